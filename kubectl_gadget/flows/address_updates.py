"""Keeps an address book up to date with the cluster's pods, services and nodes.

The trap: addresses of objects that the user may not list stay without names; this does not end the run.
"""

from collections.abc import Callable
from functools import partial

from kubectl_gadget.flows.address_book import AddressBook, Addresses
from kubectl_gadget.flows.flow import PodFacts
from kubectl_gadget.kube.api.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Object
from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import SLICE_OF, Node, Pod, Service

_FIRST_SECONDS = 5.0
_KEPT_SECONDS = 60.0
_KINDS = (PODS, SERVICES, ENDPOINT_SLICES, NODES)


def followed(book: AddressBook) -> Follower:
    """Keeps `book.cluster` up to date during a run; the run waits a moment for the first lists."""

    def take(found: Objects) -> Callable[[], object]:
        return partial(setattr, book, "cluster", known(found))

    # The last packets of deleted objects may still be on their way.
    return Follower(
        _KINDS,
        take,
        _FIRST_SECONDS,
        _KEPT_SECONDS,
        missing="some addresses have no names",
        unchanged="names of addresses are not updated",
    )


def known(found: Objects) -> Addresses:
    """The address book of all API objects that it can use."""
    return addresses(*(found.get(kind, []) for kind in _KINDS))


def addresses(pods: list[Object], services: list[Object], slices: list[Object], nodes: list[Object]) -> Addresses:
    found = Addresses()
    for node in map(Node.from_object, nodes):
        found.nodes.update(dict.fromkeys(node.addresses, node.name))
    for item in pods:
        pod = Pod.from_object(item)
        facts = found.by_name[pod.namespace, pod.name] = _facts(pod, (item.get("spec") or {}).get("nodeName") or "")
        if not pod.host_network and not pod.ended:
            found.pods.update(dict.fromkeys(pod.addresses, facts))
    ports: dict[tuple[str, str], tuple[tuple[str, ...], dict[str, int]]] = {}
    for service in map(Service.from_object, services):
        found.services.update(dict.fromkeys(service.addresses, f"{service.namespace}/{service.name}"))
        by_name = {port.name: port.port for port in service.ports}
        ports[service.namespace, service.name] = service.addresses, by_name
    services_of_backend: dict[str, set[tuple[str, int]]] = {}
    for item in slices:
        metadata = item["metadata"]
        service_name = (metadata.get("labels") or {}).get(SLICE_OF, "")
        own, by_name = ports.get((metadata["namespace"], service_name), ((), {}))
        to = {
            (ip, by_name[port.get("name") or ""])
            for ip in own
            for port in item.get("ports") or ()
            if (port.get("name") or "") in by_name
        }
        for endpoint in item.get("endpoints") or ():
            for address in endpoint.get("addresses") or ():
                services_of_backend.setdefault(address, set()).update(to)
    found.services_of_backend = {address: tuple(sorted(to)) for address, to in services_of_backend.items()}
    return found


def _facts(pod: Pod, node: str) -> PodFacts:
    workload = pod.workload if pod.workload.kind != "Pod" else None
    labels = tuple(f"{name}={value}" for name, value in sorted(pod.labels.items()))
    return PodFacts(pod.namespace, pod.name, labels, workload, node)
