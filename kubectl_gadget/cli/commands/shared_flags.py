"""`kubectl gadget options`: the flags that all commands share, as `kubectl options` has kubectl's."""

import sys
from functools import partial

from kubectl_gadget.cli.flags.flag_declaration import Flag
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.flags.run_flags import RunFlags
from kubectl_gadget.cli.framework.command import GadgetCommand, make_command, preset_texts
from kubectl_gadget.cli.help.help_pages import page_of
from kubectl_gadget.cli.help.rendering import flag_tables

TARGETS = """A gadget follows the pods that are named, or those of a workload or service as they come and go:
xwing  deploy/web  ds/agent  sts/db  rs/web-5d4f  job/import  cronjob/backup  svc/web  pod/xwing"""


def options(scope: ScopeFlags, cluster: ClusterFlags) -> int:
    sys.stdout.write("These flags work with every gadget, and those of the connection with every command.\n\n")
    sys.stdout.write(f"{TARGETS}\n\n")
    command = shared()
    sys.stdout.write(flag_tables(command.text, preset_texts(command, ())))
    return 0


def all_flags() -> list[Flag]:
    """The flags that gadgets share, as settings know them."""
    return [*shared().flags]


def shared() -> GadgetCommand:
    """A command with these flags, which is never run."""
    return make_command(_all, "options", partial(page_of, "options"))


def _all(flags: RunFlags) -> int:
    raise NotImplementedError("it only lends its flags")
