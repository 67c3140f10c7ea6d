"""Maps a container of a pod to the workload's container that it is an instance of."""

from kubectl_gadget.behavior.facts import Unit
from kubectl_gadget.behavior.from_rows.generalization import Generalizer
from kubectl_gadget.behavior.from_rows.programs import PodContainer
from kubectl_gadget.kube.inventory import Inventory, Workload


def unit_of(place: PodContainer, inventory: Inventory, generalizer: Generalizer) -> Unit:
    """By the pod's owner where it is known, else by its name; a container without a pod is a workload of its own."""
    namespace, pod, container = place
    known = inventory.pod(namespace, pod) if pod else None
    if known is not None and known.owner_kind:
        return Unit(known.workload, container)
    name = generalizer.pod(pod or container)
    return Unit(Workload(namespace, "Pod" if pod else "Container", name), container)
