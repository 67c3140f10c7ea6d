"""Seccomp profiles from facts: the system calls that the programs of a container made.

The trap: a baseline has system calls only if it was made with `--syscalls`; without them a profile would deny all.
"""

from collections.abc import Mapping
from typing import Any

from kubectl_gadget.advise import seccomp
from kubectl_gadget.advise.containers import ContainerOf
from kubectl_gadget.advise.documents import Document
from kubectl_gadget.advise.from_facts.baselines import gaps
from kubectl_gadget.advise.uses import Use
from kubectl_gadget.behavior.facts import Behavior, FactKind


def profiles(
    behavior: Behavior, format: str, earlier: Mapping[str, Any] | None = None
) -> tuple[list[Document], list[str]]:
    """The profiles in a format of `advise seccomp`, and notes for the user."""
    uses: dict[ContainerOf, list[Use]] = {}
    comments: dict[ContainerOf, list[str]] = {}
    for unit in sorted(behavior.coverage, key=str):
        if FactKind.SYSCALL in behavior.coverage[unit].kinds:
            item = ContainerOf(unit.workload, unit.container)
            calls = sorted({fact.value for fact in behavior.of(unit) if fact.kind is FactKind.SYSCALL})
            # Names are the same on all architectures, and a profile without architectures is for that of the node.
            uses[item] = [{"architecture": "", "syscall": call} for call in calls]
            said = f"{unit}: {len(calls)} system calls seen; the others are for runc."
            comments[item] = [said, *gaps(behavior, unit)]
    made = {item: seccomp.profile(found) for item, found in uses.items() if found}
    if earlier is not None:
        made = {item: seccomp.merge(found, earlier) for item, found in made.items()}
    return seccomp.documents(made, comments, format), list(seccomp.warnings_of(uses))
