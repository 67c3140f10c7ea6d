"""The cluster's pods, services and nodes as an address book has them, kept up to date.

The trap: what the user may not list is only missing, as names; it does not end the run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from kubectl_gadget.cluster import objects
from kubectl_gadget.cluster.objects import Objects
from kubectl_gadget.cluster.options import KubeOptions
from kubectl_gadget.cluster.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Object, Resource
from kubectl_gadget.errors import ClusterError
from kubectl_gadget.flows.book import AddressBook, Addresses
from kubectl_gadget.flows.flow import PodFacts, Workload

_FIRST_SECONDS = 5.0
_KEPT_SECONDS = 60.0
_KINDS = (PODS, SERVICES, ENDPOINT_SLICES, NODES)


@contextmanager
def following(kube: KubeOptions, book: AddressBook, stderr: TextIO, quiet: bool = False) -> Iterator[None]:
    """Keeps `book.cluster` up to date inside the block; waits a moment for the first lists."""

    def say(text: str) -> None:
        if not quiet:
            print(text, file=stderr, flush=True)

    def changed(found: Objects) -> None:
        book.cluster = addresses(*(found[kind] for kind in _KINDS))

    def failed(kind: Resource | None, error: ClusterError) -> None:
        say(f"names of {kind.plural if kind else 'addresses'} are not known: {error}")

    # Last packets of what is gone may still be on their way. Whoever gets its address comes later in the order.
    limits = {"first_seconds": _FIRST_SECONDS, "keep_seconds": _KEPT_SECONDS}
    with objects.following(kube, _KINDS, changed, failed, say, **limits):
        yield


def addresses(pods: list[Object], services: list[Object], slices: list[Object], nodes: list[Object]) -> Addresses:
    """The address book of these objects of the API."""
    found = Addresses()
    for node in nodes:
        for item in (node.get("status") or {}).get("addresses") or ():
            if item["type"] in ("InternalIP", "ExternalIP"):
                found.nodes[item["address"]] = node["metadata"]["name"]
    for pod in pods:
        facts = _facts(pod)
        found.by_name[facts.namespace, facts.name] = facts
        status, spec = pod.get("status") or {}, pod.get("spec") or {}
        if not spec.get("hostNetwork") and status.get("phase") not in ("Succeeded", "Failed"):
            for item in status.get("podIPs") or ():
                found.pods[item["ip"]] = facts
    ports: dict[tuple[str, str], tuple[list[str], dict[str, int]]] = {}
    for service in services:
        metadata, spec = service["metadata"], service.get("spec") or {}
        own = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]
        own += spec.get("externalIPs") or []
        balancer = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        own += [item["ip"] for item in balancer if item.get("ip")]
        for ip in own:
            found.services[ip] = f"{metadata['namespace']}/{metadata['name']}"
        by_name = {port.get("name") or "": port["port"] for port in spec.get("ports") or ()}
        ports[metadata["namespace"], metadata["name"]] = own, by_name
    behind: dict[str, set[tuple[str, int]]] = {}
    for item in slices:
        metadata = item["metadata"]
        service_name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        own, by_name = ports.get((metadata["namespace"], service_name), ([], {}))
        to = {
            (ip, by_name[port.get("name") or ""])
            for ip in own
            for port in item.get("ports") or ()
            if (port.get("name") or "") in by_name
        }
        for endpoint in item.get("endpoints") or ():
            for address in endpoint.get("addresses") or ():
                behind.setdefault(address, set()).update(to)
    found.behind = {address: tuple(sorted(to)) for address, to in behind.items()}
    return found


def _facts(pod: Object) -> PodFacts:
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    owner = next((item for item in metadata.get("ownerReferences") or () if item.get("controller")), None)
    workload = None
    if owner is not None:
        kind, name = owner["kind"], owner["name"]
        template = labels.get("pod-template-hash")
        if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
            kind, name = "Deployment", name.removesuffix(f"-{template}")
        workload = Workload(kind, name)
    texts = tuple(f"{name}={value}" for name, value in sorted(labels.items()))
    node = (pod.get("spec") or {}).get("nodeName") or ""
    return PodFacts(metadata["namespace"], metadata["name"], texts, workload, node)
