"""The cluster's pods, services and nodes as an address book has them, kept up to date in a thread of its own.

The trap: what the user may not list is only missing, as names; it does not end the run.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TextIO

from kubectl_gadget.cluster import kubeconfig
from kubectl_gadget.cluster.api import Api
from kubectl_gadget.cluster.options import KubeOptions
from kubectl_gadget.cluster.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Object, Resource
from kubectl_gadget.cluster.watch import Changed, Scope, Synced, follow
from kubectl_gadget.errors import ClusterError
from kubectl_gadget.flows.book import AddressBook, Addresses
from kubectl_gadget.flows.flow import PodFacts, Workload

_SETTLE_SECONDS = 0.1
_STOP_SECONDS = 5.0
_FIRST_SECONDS = 5.0
_KEPT_SECONDS = 60.0
_GONE = "kubectl-gadget/gone"
"""Put into an object that was deleted: when, by the monotonic clock."""
_NEVER = float("inf")
_KINDS = (PODS, SERVICES, ENDPOINT_SLICES, NODES)


@contextmanager
def following(kube: KubeOptions, book: AddressBook, stderr: TextIO, quiet: bool = False) -> Iterator[None]:
    """Keeps `book.cluster` up to date inside the block; waits a moment for the first lists."""
    known = threading.Event()
    stop: list[Any] = []

    def say(text: str) -> None:
        if not quiet:
            print(text, file=stderr, flush=True)

    def work() -> None:
        async def main() -> None:
            task = asyncio.current_task()
            stop.append((asyncio.get_running_loop(), task))
            await _follow_all(Api(kubeconfig.load(kube), say), book, say, known)

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        except ClusterError as error:
            say(f"names of addresses are not known: {error}")
        finally:
            known.set()

    thread = threading.Thread(target=work, name="addresses of the cluster", daemon=True)
    thread.start()
    known.wait(_FIRST_SECONDS)
    try:
        yield
    finally:
        for loop, task in stop:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        thread.join(_STOP_SECONDS)


async def _follow_all(api: Api, book: AddressBook, say: Any, known: threading.Event) -> None:
    objects: dict[Resource, dict[str, Object]] = {kind: {} for kind in _KINDS}
    missing = set(_KINDS)
    changed = asyncio.Event()

    async def one(kind: Resource) -> None:
        try:
            async with aclosing(follow(api, Scope(kind))) as changes:
                async for change in changes:
                    _apply(objects[kind], change)
                    missing.discard(kind)
                    changed.set()
        except ClusterError as error:
            say(f"names of {kind.plural} are not known: {error}")
            missing.discard(kind)
            changed.set()

    async with asyncio.TaskGroup() as tasks:
        for kind in _KINDS:
            tasks.create_task(one(kind), name=f"watch of {kind.plural}")
        while True:
            await changed.wait()
            changed.clear()
            book.cluster = addresses(*(list(objects[kind].values()) for kind in _KINDS))
            if not missing:
                known.set()
            await asyncio.sleep(_SETTLE_SECONDS)


def _apply(known: dict[str, Object], change: Synced | Changed) -> None:
    if isinstance(change, Synced):
        known.clear()
        known.update({found["metadata"]["uid"]: found for found in change.items})
    elif change.deleted:
        # Its last packets may still be on their way. Whoever gets its address comes later in the order.
        change.object[_GONE] = time.monotonic()
        known[change.object["metadata"]["uid"]] = change.object
        for uid in [uid for uid, found in known.items() if found.get(_GONE, _NEVER) + _KEPT_SECONDS < time.monotonic()]:
            del known[uid]
    else:
        known[change.object["metadata"]["uid"]] = change.object


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
