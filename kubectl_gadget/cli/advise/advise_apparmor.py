"""`kubectl gadget advise apparmor`: profiles from the facts of a run or of baselines."""

import sys
from pathlib import Path
from typing import Annotated

from kubectl_gadget.cli.advise.advisor import AdviseFlags, advice_format, print_advice, watch_facts, write_files
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.errors import UsageError

_FORMATS = ("profile", "patch", "AppArmorProfile")
Format = Annotated[str | None, advice_format(*_FORMATS)]


def apparmor(pods: Pods, flags: AdviseFlags, format: Format = None) -> int:
    from kubectl_gadget.advise import apparmor as advice

    if (format or "profile") == "profile" and flags.watch.output is not None:
        raise UsageError("-o has no effect on a profile, which is text", "--format patch or AppArmorProfile")
    found, multicall, code = watch_facts(pods, flags)
    if format == "patch":
        return print_advice(advice.patches(found, multicall), flags) or code
    if format == "AppArmorProfile":
        return print_advice(advice.operator_objects(found, multicall), flags) or code
    profiles = advice.profiles(found, multicall)
    if not profiles:
        return print_advice([], flags)
    if flags.watch.directory is not None:
        write_files(Path(flags.watch.directory), ((item.file_name, text) for item, text in profiles.items()))
    else:
        sys.stdout.write("\n".join(profiles.values()))
    return code
