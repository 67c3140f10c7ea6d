"""Capabilities from facts: those that were used, and no others."""

from collections.abc import Iterable

from kubectl_gadget.advise.documents import ContainerPatch, Document, patch
from kubectl_gadget.advise.from_facts.baselines import by_workload, file_name, gaps
from kubectl_gadget.behavior.facts import DENIED, Behavior, Fact, FactKind


def used_capabilities(facts: Iterable[Fact]) -> list[str]:
    """The names as in Kubernetes, sorted, without capabilities that the container was denied."""
    values = {fact.value for fact in facts if fact.kind is FactKind.CAPABILITY}
    return sorted(value.removeprefix("CAP_") for value in values if not value.startswith(f"{DENIED} "))


def capabilities(behavior: Behavior) -> list[Document]:
    """A patch for each workload whose containers were watched for capabilities."""
    documents = []
    for workload, units in by_workload(behavior):
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
