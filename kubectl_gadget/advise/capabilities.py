"""`advise capabilities`: the smallest securityContext.capabilities of each container, and what it was denied.

A capability counts as used when a check of it succeeded and the result mattered. The kernel also checks where a denial
would change nothing. For each piece of memory it checks SYS_ADMIN, to decide whether the last reserve may be used
(cap_vm_enough_memory() of security/commoncap.c); and some checks are made by functions whose name says that they are
not audited (…_noaudit). When the stack includes these, the container does not need the capability.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.advise.baselines import file_name, gaps, units_by_workload
from kubectl_gadget.advise.documents import ContainerPatch, Document, patch
from kubectl_gadget.advise.uses import (
    RUNC,
    ContainerOf,
    Recipe,
    SeenUses,
    Use,
    UseKind,
    by_container,
    by_workload,
    start_note,
    start_unseen,
)
from kubectl_gadget.behavior.facts import DENIED, Behavior, Fact, FactKind
from kubectl_gadget.wording import some

KIND = UseKind(
    ("namespace", "pod", "container", "capability", "granted", "optional", "nested", "syscall", "comm"), ("count",)
)
_OPTIONAL = ("vm_enough_memory", "_noaudit", "oom_badness")
_FIRST_USER_NAMESPACE = 0xEFFFFFFD
"""The machine's initial user namespace (PROC_USER_INIT_INO of include/linux/proc_ns.h)."""
_MOST_REFUSALS = 8


def uses_of(row: Mapping[str, Any]) -> Iterator[Use]:
    """The uses in a row of `trace capabilities --unique --stack`."""
    comm = row["comm"] or ""
    if not row.get("container") or comm.startswith(RUNC):
        return
    granted = row["errno"] == 0
    if granted and not row["effective_raw"] >> row["capability_raw"] & 1:
        # The creator of a user namespace has all capabilities in it, and needs none here.
        return
    yield {
        **{name: row[name] for name in ("namespace", "pod", "container")},
        "capability": row["capability"],
        "granted": granted,
        "optional": any(word in name for name in row["stack"] or () for word in _OPTIONAL),
        "nested": row["user_ns"] != _FIRST_USER_NAMESPACE,
        "syscall": row["syscall"] or "",
        "comm": comm,
        "count": 1,
    }


RECIPE = Recipe("capabilities", KIND, uses_of, (("trace_capabilities", {"unique": True, "stack": True}),))


@dataclass(frozen=True)
class Need:
    """The use of capabilities by one container."""

    used: tuple[str, ...]
    """names as in Kubernetes, without CAP_"""
    refused: Mapping[str, tuple[str, ...]]
    """by name: the callers, and the system calls in which they were denied"""


def need(uses: Sequence[Use]) -> Need:
    # In a user namespace of its own, a pod has no capabilities in the initial namespace, and a program that created the
    # namespace has all capabilities in it.
    in_first = any(not use["nested"] for use in uses)
    own = [use for use in uses if not (in_first and use["nested"])]
    used = {_short(use["capability"]) for use in own if use["granted"] and not use["optional"]}
    refused: dict[str, dict[str, None]] = {}
    for use in own:
        if not use["granted"] and not use["optional"]:
            text = f"{use['comm'] or '-'} ({use['syscall'] or 'no system call'})"
            refused.setdefault(_short(use["capability"]), {})[text] = None
    return Need(
        tuple(sorted(used)), {name: tuple(texts) for name, texts in sorted(refused.items()) if name not in used}
    )


def advise(recording: SeenUses) -> list[Document]:
    needs = {
        item: need(uses) for item, uses in by_container(recording.uses, recording.inventory, recording.watched).items()
    }
    unseen = start_unseen(recording)
    return [
        patch(
            workload,
            [_set(item, needs[item]) for item in items],
            (line for item in items for line in (*_comments(item, needs[item]), *start_note(item, unseen))),
            items[0].file_name,
        )
        for workload, items in by_workload(needs).items()
    ]


def _set(item: ContainerOf, need: Need) -> ContainerPatch:
    capabilities: dict[str, object] = {"drop": ["ALL"]}
    if need.used:
        capabilities["add"] = list(need.used)
    return ContainerPatch(item.container, item.init, {"securityContext": {"capabilities": capabilities}})


def _comments(item: ContainerOf, need: Need) -> Iterable[str]:
    yield f"{item}: " + (f"used {', '.join(need.used)}." if need.used else "used none.")
    for name, texts in need.refused.items():
        yield f"  requested {name}, which was denied: {some(texts, _MOST_REFUSALS)}"


def _short(name: str) -> str:
    return name.removeprefix("CAP_")


# Capabilities from facts: those that were used, and no others.


def used_capabilities(facts: Iterable[Fact]) -> list[str]:
    """The names as in Kubernetes, sorted, without capabilities that the container was denied."""
    values = {fact.value for fact in facts if fact.kind is FactKind.CAPABILITY}
    return sorted(value.removeprefix("CAP_") for value in values if not value.startswith(f"{DENIED} "))


def from_facts(behavior: Behavior) -> list[Document]:
    """A patch for each workload whose containers were watched for capabilities."""
    documents = []
    for workload, units in units_by_workload(behavior):
        patches, comments = list[ContainerPatch](), list[str]()
        for unit in units:
            if FactKind.CAPABILITY not in behavior.coverage[unit].kinds:
                comments.append(f"{unit}: no advice, because the use of capabilities was not observed.")
                continue
            used = used_capabilities(behavior.of(unit))
            comments.append(f"{unit}: used {', '.join(used) or 'none'}.")
            denied = {fact.value for fact in behavior.of(unit) if fact.value.startswith(f"{DENIED} CAP_")}
            comments += [
                f"  requested {value.removeprefix(f'{DENIED} CAP_')}, which was denied" for value in sorted(denied)
            ]
            comments += gaps(behavior, unit)
            add = {"add": used} if used else {}
            fields = {"securityContext": {"capabilities": {"drop": ["ALL"], **add}}}
            patches.append(ContainerPatch(unit.container, False, fields))
        if patches:
            documents.append(patch(workload, patches, comments, file_name(workload)))
    return documents
