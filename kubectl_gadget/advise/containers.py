"""Groups uses by container of a workload, so that replicas are merged.

The trap: a container outside Kubernetes has no pod; it is a workload of its own, under its own name.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_gadget.advise.uses import SeenUses, Use, Watched
from kubectl_gadget.kube.inventory import Inventory, Workload
from kubectl_gadget.rows.container_lookup import SANDBOX


@dataclass(frozen=True)
class ContainerOf:
    """One container, merged over all replicas of a workload."""

    workload: Workload
    container: str
    init: bool = False

    @property
    def file_name(self) -> str:
        """The parts of the name, joined by a character that no name in Kubernetes contains."""
        workload = self.workload
        return "_".join(filter(None, (workload.namespace, workload.kind.lower(), workload.name, self.container)))

    def __str__(self) -> str:
        return f"{self.workload}/{self.container}"


def by_container(
    uses: Iterable[Use], inventory: Inventory, watched: Iterable[Watched] = ()
) -> dict[ContainerOf, list[Use]]:
    """The uses by container, sorted by name. Containers in `watched` that have no uses get an empty list."""
    found: dict[ContainerOf, list[Use]] = {}
    for namespace, name, container in watched:
        found.setdefault(_container_of(inventory, namespace, name, container), [])
    for use in uses:
        if use["container"] == SANDBOX:
            continue  # a pod's template does not configure its sandbox
        item = _container_of(inventory, use["namespace"], use["pod"], use["container"])
        found.setdefault(item, []).append(use)
    return dict(sorted(found.items(), key=lambda item: str(item[0])))


def start_unseen(recording: SeenUses) -> set[ContainerOf]:
    """Containers that ran before watching began, and of which no replica was seen to start."""
    earlier, begun = (
        {_container_of(recording.inventory, *names) for names in found}
        for found in (recording.earlier, recording.begun)
    )
    return earlier - begun


def _container_of(inventory: Inventory, namespace: str, name: str, container: str) -> ContainerOf:
    pod = inventory.pod(namespace, name)
    init = pod is not None and container in pod.init_containers
    return ContainerOf(inventory.workload(namespace, name or container), container, init)


def by_workload(containers: Iterable[ContainerOf]) -> dict[Workload, list[ContainerOf]]:
    found: dict[Workload, list[ContainerOf]] = {}
    for item in containers:
        found.setdefault(item.workload, []).append(item)
    return found


def replicas(uses: Iterable[Use]) -> int:
    """The number of pods that these uses come from."""
    return len({(use["namespace"], use["pod"]) for use in uses})
