"""`kubectl gadget advise seccomp`: profiles from system calls.

The trap: a profile is a JSON file that a node reads, while other advice consists of Kubernetes objects.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.cli.advise.advisor import (
    AdviseFlags,
    advice_format,
    baselines_of,
    print_advice,
    print_documents,
    watch,
    write_documents,
)
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags import connect
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Text, flag
from kubectl_gadget.cli.help.printed_tables import print_json
from kubectl_gadget.errors import GadgetError

if TYPE_CHECKING:
    from kubectl_gadget.behavior.facts import Behavior

_FORMATS = ("profile", "patch", "SeccompProfile")
Format = Annotated[Text, advice_format(*_FORMATS)]
Merge = Annotated[Text, flag(SHOW, "--merge FILE", "Extend this profile")]


def seccomp(pods: Pods, flags: AdviseFlags, format: Format = None, merge: Merge = None) -> int:
    from kubectl_gadget.advise import seccomp as advisor
    from kubectl_gadget.advise.documents import read_text

    earlier = None if merge is None else advisor.read_profile(read_text(merge), merge)
    format = format or "profile"
    if (baselines := baselines_of(flags, pods)) is not None:
        return _seccomp_of(baselines, format, earlier, flags)
    recording, code = watch(advisor.RECIPE, pods, flags)
    documents = advisor.advise(recording, format, earlier)
    warnings = list(advisor.warnings(recording))
    if flags.watch.directory is not None:
        print_documents(documents, recording, flags, warnings, "json" if format == "profile" else None)
        return code
    if format == "profile" and len(documents) > 1:
        warnings.append("there are several profiles; --directory DIR writes a file for each")
    if format == "profile" and len(documents) == 1:
        print_json(documents[0].body)
        documents = []
    print_documents(documents, recording, flags, warnings)
    return code


def _seccomp_of(baselines: "Behavior", format: str, earlier: "Mapping[str, object] | None", flags: AdviseFlags) -> int:
    from kubectl_gadget.advise.baselines import not_looked_at
    from kubectl_gadget.advise.seccomp import profiles
    from kubectl_gadget.behavior.facts import FactKind

    documents, warnings = profiles(baselines, format, earlier)
    for text in warnings:
        connect.say(f"warning: {text}")
    without = not_looked_at(baselines, FactKind.SYSCALL)
    if without and documents:
        connect.say(f"warning: no system calls, so no profile: {', '.join(map(str, without))}")
    remedy = "kubectl gadget behavior save or update --syscalls; or record --for behavior-syscalls"
    if not documents:
        raise GadgetError("the baseline has no system calls, which are recorded only with --syscalls", remedy)
    if format == "profile":
        if flags.watch.directory is None:
            if len(documents) > 1:
                connect.say("warning: there are several profiles; --directory DIR writes a file for each")
            else:
                print_json(documents[0].body)
                return 0
        else:
            write_documents(Path(flags.watch.directory), documents, "json")
            return 0
    return print_advice(documents, flags)
