"""The cluster as rules see it: records of pods, containers, events, services and rollouts, and owners of addresses.

Only fields that rules name are read. ConfigMaps and Secrets are never read; of a pod's environment only the names are.
All texts come from users of the cluster and are escaped where they are shown.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from kubectl_gadget.kube.addresses import addresses, is_shared, special
from kubectl_gadget.kube.cluster_options import Selection, kind_of
from kubectl_gadget.kube.inventory import SLICE_OF, Pod, Service, Workload
from kubectl_gadget.kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    NETWORK_POLICIES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Object,
    Resource,
)

KINDS: tuple[Resource, ...] = (
    PODS,
    EVENTS,
    SERVICES,
    ENDPOINT_SLICES,
    NODES,
    REPLICA_SETS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
)
"""Resources that are read. A user needs the right to list only the first; the report names the others that are
missing."""
_SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_REVISION = "deployment.kubernetes.io/revision"
_EVENT_SECONDS = 3600.0
"""Older events say nothing about now."""
_RECENT_SECONDS = 3600.0
"""A rollout within this time may be what changed."""
_CONTROLLERS = ("ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController")
_NONE: Object = {}

Name = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Listener:
    """A socket that listens, or that takes datagrams."""

    address: str
    port: int
    protocol: str = "TCP"

    @property
    def is_loopback(self) -> bool:
        return self.address.startswith("127.") or self.address == "::1"


@dataclass
class Places:
    """Owners of addresses and sockets by rows, with or without a cluster."""

    owners: dict[str, Name] = field(default_factory=dict)
    """the pod that used an address as its own"""
    listeners: dict[Name, set[Listener]] = field(default_factory=dict)
    """of pods whose sockets were read"""

    def saw(self, address: str, pod: Name) -> None:
        """Record that a pod used an address as its own."""
        if address and not is_shared(address):
            self.owners[address] = pod

    def saw_sockets(self, pod: Name, listeners: Iterable[Listener]) -> None:
        """Record sockets of a pod: only what was recorded listens there."""
        self.listeners.setdefault(pod, set()).update(listeners)


class Cluster:
    """The objects of one moment. `objects` has the lists by kind; a kind that could not be listed is missing.
    `has_all_pods`: the pods of all namespaces are known, so that an address that none of them has belongs to no pod."""

    def __init__(
        self, objects: Mapping[str, Sequence[Object]], now: float | None = None, has_all_pods: bool = True
    ) -> None:
        self._objects = objects
        self.has_all_pods = has_all_pods
        self.last_words: Mapping[Name, Mapping[str, Object]] = {}
        """what the logs of ended containers say (last_words.py), by pod and container"""
        self.now = time.time() if now is None else now
        """seconds, wall time"""
        self.raw_pods: dict[Name, Object] = {name_of(found): found for found in self.of(PODS)}
        self.pods: dict[Name, Pod] = {name: Pod.from_object(found) for name, found in self.raw_pods.items()}
        pods, services, slices, nodes = map(self.of, (PODS, SERVICES, ENDPOINT_SLICES, NODES))
        self._policies: dict[tuple[Name, str], list[str]] = {}
        self.view = addresses(pods, services, slices, nodes, has_all_pods)

    def of(self, resource: Resource) -> Sequence[Object]:
        """Return all objects of a kind; none if it could not be listed."""
        return self._objects.get(resource.plural, ())

    @cached_property
    def services(self) -> dict[Name, Service]:
        """Return services by name."""
        return {(each.namespace, each.name): each for each in map(Service.from_object, self.of(SERVICES))}

    @cached_property
    def endpoints(self) -> dict[Name, tuple[list[str], list[str]]]:
        """Return the addresses of each service's endpoints: those that are ready, and the others."""
        found: dict[Name, tuple[list[str], list[str]]] = {}
        for slice in self.of(ENDPOINT_SLICES):
            namespace = slice["metadata"]["namespace"]
            service = (slice["metadata"].get("labels") or {}).get(SLICE_OF, "")
            ready, others = found.setdefault((namespace, service), ([], []))
            for endpoint in slice.get("endpoints") or ():
                is_ready = (endpoint.get("conditions") or {}).get("ready") is not False
                (ready if is_ready else others).extend(endpoint.get("addresses") or ())
        return found

    def workload(self, name: Name) -> str:
        """Return what a pod is a replica of, such as deploy/web; the pod itself if that is not known."""
        return self._workloads.get(name) or f"pod/{name[1]}"

    @cached_property
    def _workloads(self) -> dict[Name, str]:
        return {name: workload_text(pod.workload) for name, pod in self.pods.items()}

    @cached_property
    def _replicas(self) -> Counter[Name]:
        return Counter((name[0], workload) for name, workload in self._workloads.items())

    def policies_of(self, name: Name, direction: str) -> list[str]:
        """Return the network policies that select a pod for what comes in (Ingress) or goes out (Egress)."""
        if (name, direction) not in self._policies:
            self._policies[name, direction] = list(self._find_policies(name, direction))
        return self._policies[name, direction]

    def _find_policies(self, name: Name, direction: str) -> Iterator[str]:
        from kubectl_gadget.kube import selectors

        if (pod := self.pods.get(name)) is None:
            return
        for found in self.of(NETWORK_POLICIES):
            spec, metadata = found.get("spec") or {}, found["metadata"]
            types = spec.get("policyTypes") or ("Ingress", *(("Egress",) if spec.get("egress") else ()))
            if metadata["namespace"] != name[0] or direction not in types:
                continue
            if selectors.selects(spec.get("podSelector"), pod.labels):
                yield metadata["name"]

    def change(self, namespace: str, workload: str) -> str:
        """Return what the workload's last rollout changed, if that was within the last hour; else ""."""
        for found in self._changes({(namespace, workload)}):
            parts = [*found["images"], *(f"{each} (env)" for each in found["environment"])]
            parts += [f"{each} (volume)" for each in found["volumes"]]
            if 0 <= found["age_seconds"] <= _RECENT_SECONDS and parts:
                return f"{found['age_seconds'] / 60:.0f} min ago, revision {found['revision']}: {', '.join(parts)}"
        return ""

    def replicas(self, name: Name) -> int:
        """Return how many pods the workload of this pod has."""
        return self._replicas[name[0], self.workload(name)]

    # Which pods were asked for.

    def selected(self, selection: Selection, namespace: str | None, own: Collection[str] = ()) -> set[Name]:
        """Return the pods that a run is about. `namespace`: None for all but `own`, which have the agents."""
        from kubectl_gadget.kube import selectors

        labels = selectors.parse(selection.selector) if selection.selector else None
        found = set()
        for name, pod in self.pods.items():
            if name[0] != namespace if namespace is not None else name[0] in own:
                continue
            if labels is not None and not labels.accepts(pod.labels):
                continue
            if selection.nodes and pod.node not in selection.nodes:
                continue
            if (selection.pods or selection.workloads) and not self._is_named(name, pod, selection):
                continue
            found.add(name)
        return found

    def controllers(self, selection: Selection, namespace: str | None, own: Collection[str] = ()) -> set[Name]:
        """Return the controllers with events that a run is about, also those without a pod, as selected() does."""
        from kubectl_gadget.kube import selectors

        if selection.nodes or (selection.pods and not selection.workloads):
            return set()
        labels = selectors.parse(selection.selector) if selection.selector else None
        wanted = {(kind_of(spelling), name) for spelling, name in selection.workloads}
        found = set()
        for event in self.of(EVENTS):
            about = event.get("involvedObject") or {}
            kind, name = str(about.get("kind")), (about.get("namespace") or "", about.get("name") or "")
            if kind not in _CONTROLLERS or (name[0] != namespace if namespace is not None else name[0] in own):
                continue
            if labels is not None and not labels.accepts(self._labels_of_sets.get(name, {})):
                continue
            owner = self._owner(kind, name)
            if not wanted or (kind.lower(), name[1]) in wanted or (owner.kind.lower(), owner.name) in wanted:
                found.add(name)
        return found

    @cached_property
    def _labels_of_sets(self) -> dict[Name, Mapping[str, str]]:
        """Return the labels of the pods that ReplicaSets make."""
        return {
            name_of(each): (((each.get("spec") or {}).get("template") or {}).get("metadata") or {}).get("labels") or {}
            for each in self.of(REPLICA_SETS)
        }

    @cached_property
    def _owners_of_sets(self) -> dict[Name, str]:
        """Return the names of the Deployments that ReplicaSets belong to."""
        return {
            name_of(each): owner["name"]
            for each in self.of(REPLICA_SETS)
            for owner in each["metadata"].get("ownerReferences") or ()
            if owner.get("kind") == "Deployment"
        }

    @cached_property
    def _whole_sets(self) -> set[Name]:
        """Return the ReplicaSets that have all their pods."""
        return {
            name_of(each)
            for each in self.of(REPLICA_SETS)
            if (each.get("status") or {}).get("replicas", 0) >= (each.get("spec") or {}).get("replicas", 1)
        }

    def _owner(self, kind: str, name: Name) -> Workload:
        """Return the workload of a controller: the Deployment of a ReplicaSet, else itself."""
        if kind == "ReplicaSet" and (deployment := self._owners_of_sets.get(name)):
            return Workload(name[0], "Deployment", deployment)
        return Workload(name[0], kind, name[1])

    def _is_named(self, name: Name, pod: Pod, selection: Selection) -> bool:
        if name[1] in selection.pods:
            return True
        for spelling, wanted in selection.workloads:
            kind = kind_of(spelling)
            if kind == "service":
                service = self.services.get((name[0], wanted))
                if service and service.selector and service.selector.items() <= pod.labels.items():
                    return True
            elif (kind == pod.workload.kind.lower() and pod.workload.name == wanted) or (
                kind == pod.owner_kind.lower() and pod.owner_name == wanted
            ):
                return True
        return False

    # Records.

    def records(self, kind: str, of: set[Name], controllers: Collection[Name] = ()) -> Iterator[Object]:
        """Yield the records of one kind (rules.OBJECTS) about these pods, about what leads to them, and the events of
        these controllers."""
        match kind:
            case "pod":
                yield from (self._pod(name) for name in sorted(of) if name in self.raw_pods)
            case "container":
                for name in sorted(of):
                    yield from self._containers(name)
            case "event":
                yield from self._events(of, controllers)
            case "service":
                yield from self._services({namespace for namespace, _ in of})
            case "last_words":
                for name in sorted(of & self.last_words.keys()):
                    yield from self._last_words(name)
            case "change":
                yield from self._changes({(name[0], self.workload(name)) for name in of})

    def _pod(self, name: Name) -> Object:
        found = self.raw_pods[name]
        spec, status = found.get("spec") or {}, found.get("status") or {}
        conditions = {each.get("type"): each for each in status.get("conditions") or ()}
        scheduled = conditions.get("PodScheduled") or {}
        deleted = found["metadata"].get("deletionTimestamp")
        security = spec.get("securityContext") or {}
        options = (spec.get("dnsConfig") or {}).get("options") or ()
        ndots = next(
            (int(each["value"]) for each in options if each.get("name") == "ndots" and each.get("value")), None
        )
        return {
            "namespace": name[0],
            "pod": name[1],
            "node": spec.get("nodeName") or "",
            "phase": status.get("phase") or "",
            "reason": status.get("reason") or scheduled.get("reason") or "",
            "message": status.get("message") or scheduled.get("message") or "",
            "scheduled": scheduled.get("status") != "False",
            "ready": (conditions.get("Ready") or {}).get("status") == "True",
            "deleting_seconds": self._since(deleted) + float(found["metadata"].get("deletionGracePeriodSeconds") or 0)
            if deleted
            else -1.0,
            "age_seconds": self._since(found["metadata"].get("creationTimestamp")),
            "host_network": bool(spec.get("hostNetwork")),
            "dns_policy": spec.get("dnsPolicy") or "",
            "ndots": ndots,
            "volumes": [_volume(each) for each in spec.get("volumes") or ()],
            "fs_group": security.get("fsGroup"),
            "grace_seconds": spec.get("terminationGracePeriodSeconds", 30),
            "containers": [each["name"] for each in spec.get("containers") or ()],
        }

    def _containers(self, name: Name) -> Iterator[Object]:
        found = self.raw_pods.get(name)
        if found is None:
            return
        spec, status = found.get("spec") or {}, found.get("status") or {}
        volumes = {each["name"]: _volume(each) for each in spec.get("volumes") or ()}
        for kind, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
            known = {each["name"]: each for each in status.get(statuses) or ()}
            for each in spec.get(kind) or ():
                yield {
                    "namespace": name[0],
                    "pod": name[1],
                    "container": each["name"],
                    "node": spec.get("nodeName") or "",
                    "init": kind == "initContainers",
                    "image": each.get("image") or "",
                    "age_seconds": self._since(found["metadata"].get("creationTimestamp")),
                    "grace_seconds": spec.get("terminationGracePeriodSeconds", 30),
                    "fs_group": (spec.get("securityContext") or {}).get("fsGroup"),
                    **self._state(known.get(each["name"]) or {}),
                    **_limits(each.get("resources") or {}),
                    **_security(spec.get("securityContext") or {}, each.get("securityContext") or {}),
                    **{
                        probe: _probe(each.get(f"{probe}Probe"), each) for probe in ("liveness", "readiness", "startup")
                    },
                    "environment": [item["name"] for item in each.get("env") or ()],
                    "mounts": [_mount(item, volumes) for item in each.get("volumeMounts") or ()],
                    "ports": [item.get("containerPort") for item in each.get("ports") or ()],
                    "command": [*(each.get("command") or ()), *(each.get("args") or ())],
                    "pre_stop": next(iter((each.get("lifecycle") or {}).get("preStop") or ()), ""),
                }

    def _state(self, status: Object) -> Object:
        kind, now = _first(status.get("state"), "waiting")
        _, last = _first(status.get("lastState"))
        ended = now if kind == "terminated" else _NONE
        return {
            "state": kind,
            "reason": now.get("reason") or "",
            "message": now.get("message") or "",
            "exit_code": ended.get("exitCode"),
            "signal": ended.get("signal"),
            "started_seconds": self._since(now.get("startedAt")),
            "last_reason": last.get("reason") or "",
            "last_message": last.get("message") or "",
            "last_exit_code": last.get("exitCode"),
            "last_signal": last.get("signal"),
            "last_seconds": self._since(last.get("startedAt")) - self._since(last.get("finishedAt")) if last else -1.0,
            "restarts": int(status.get("restartCount") or 0),
            "ready": bool(status.get("ready")),
            "started": status.get("started") is not False,
        }

    def _last_words(self, name: Name) -> Iterator[Object]:
        for each in self._containers(name):
            if (words := self.last_words[name].get(each["container"])) is not None:
                yield {
                    **{member: each[member] for member in ("namespace", "pod", "container", "node", "image")},
                    **words,
                }

    def _events(self, of: set[Name], controllers: Collection[Name]) -> Iterator[Object]:
        workloads = {(name[0], self.workload(name).partition("/")[2]) for name in of}
        for found in self.of(EVENTS):
            about = found.get("involvedObject") or {}
            namespace, named = about.get("namespace") or "", about.get("name") or ""
            last = found.get("lastTimestamp") or found.get("eventTime") or found["metadata"].get("creationTimestamp")
            is_pod = about.get("kind") == "Pod"
            if is_pod and (namespace, named) not in of:
                continue
            if (namespace, named) in self._whole_sets and about.get("kind") == "ReplicaSet":
                continue  # it was refused this earlier, and has got it since
            owner = self._owner(str(about.get("kind")), (namespace, named))
            if not is_pod and (namespace, owner.name) not in workloads and (namespace, named) not in controllers:
                continue
            if (age := self._since(last)) > _EVENT_SECONDS:
                continue
            series = found.get("series") or {}
            yield {
                "namespace": namespace,
                "pod": named if is_pod else "",
                "node": (found.get("source") or {}).get("host") or "",
                "container": _field_container(about.get("fieldPath") or ""),
                "kind": about.get("kind") or "",
                "name": named,
                "workload": "" if is_pod else workload_text(owner),
                "reason": found.get("reason") or "",
                "message": found.get("message") or "",
                "type": found.get("type") or "",
                "times": int(series.get("count") or found.get("count") or 1),
                "age_seconds": age,
                "first_ns": round((self.now - age) * 1e9),
            }

    def _services(self, namespaces: set[str]) -> Iterator[Object]:
        for (namespace, name), service in self.services.items():
            if namespace not in namespaces or not service.selector:
                continue
            ready, others = self.endpoints.get((namespace, name), ([], []))
            chosen = [
                pod
                for pod in self.pods.values()
                if pod.namespace == namespace and service.selector.items() <= pod.labels.items() and not pod.ended
            ]
            for port in service.ports:
                yield {
                    "namespace": namespace,
                    "service": name,
                    "selector": ",".join(f"{key}={value}" for key, value in sorted(service.selector.items())),
                    "port": port.port,
                    "target_port": str(port.target or port.port),
                    "protocol": port.protocol,
                    "ready": len(set(ready)),
                    "not_ready": len(set(others)),
                    "selected": len(chosen),
                }

    def _changes(self, workloads: set[Name]) -> Iterator[Object]:
        """Yield the last change of each Deployment: what differs between its last two ReplicaSets."""
        sets: dict[Name, list[Object]] = {}
        for found in self.of(REPLICA_SETS):
            owners = found["metadata"].get("ownerReferences") or ()
            owner = next((each for each in owners if each.get("controller")), _NONE)
            if owner.get("kind") == "Deployment":
                key = found["metadata"]["namespace"], f"deploy/{owner.get('name')}"
                sets.setdefault(key, []).append(found)
        for key in sorted(workloads & set(sets)):
            ordered = sorted(sets[key], key=_revision)
            if len(ordered) < 2:
                continue
            before, after = ordered[-2:]
            spec = after.get("spec") or {}
            yield {
                "namespace": key[0],
                "workload": key[1],
                "age_seconds": self._since(after["metadata"].get("creationTimestamp")),
                "revision": _revision(after),
                "ready": int((after.get("status") or {}).get("readyReplicas") or 0),
                "replicas": int(spec.get("replicas") or 0),
                **_difference(before, after),
            }

    def _since(self, text: str | None) -> float:
        """Return the seconds since a time of the API; -1 if it is not set."""
        if not text:
            return -1.0
        return max(0.0, self.now - datetime.fromisoformat(text).timestamp())

    # Owners of addresses.

    def peer(self, address: str, port: int, places: Places) -> Object:
        """Return what rules call `peer`: the other end of a connection."""
        known: dict[str, object] = {
            **dict.fromkeys(("name", "namespace", "pod", "workload", "service", "node"), ""),
            **{"address": address, "port": port, "kind": "world", "target_port": port, "known": bool(self._objects)},
            "service_ports": [],
        }
        backends = self.pods_of(address, places)
        found = self.view.peer_at(address, port)
        match found.kind:
            case "service":
                service = self.services[found.namespace, found.service]
                target = next((each.target for each in service.ports if each.port == port), 0)
                ready, _ = self.endpoints.get((service.namespace, service.name), ([], []))
                known |= {"kind": "service", "service": service.name, "namespace": service.namespace}
                known |= {"target_port": _number(target, backends, self.pods) or port, "ready": len(set(ready))}
                known["name"] = f"service {service.name}"
                known["service_ports"] = sorted({each.port for each in service.ports})
            case "node" | "kubelet" | "kube-apiserver":
                known |= {"kind": "node", "node": found.node, "name": f"node {found.node}"}
            case _ if backends:
                known["kind"] = "pod"
            case _ if special(address) in ("loopback", "link-local"):
                known |= {"kind": "loopback", "name": address}
            case "ended pod":
                known |= {"kind": "nobody", "name": found.text(address)}
            case "no pod" | "pod" | "private":
                known["kind"] = self._unowned(address, found.kind == "no pod")
        return known | self._backends(backends, known, places)

    def _unowned(self, address: str, is_of_pods: bool) -> str:
        """Return the kind of an address of private networks that no known pod has. `is_of_pods`: nodes say so."""
        if not self.has_all_pods:
            return "unknown"
        return "nobody" if is_of_pods or (not self.view.blocks and self._is_near(address)) else "world"

    def _is_near(self, address: str) -> bool:
        """True if a pod has an address of the same /16: where nodes do not say which addresses are of pods."""
        head = address.rsplit(".", 2)[0] + "."
        return any(ip.startswith(head) for ip in (*self.view.pods, *self.view.tenures))

    def pods_of(self, address: str, places: Places) -> list[Name]:
        """Return the pods that an address leads to, also a service's pods that are not ready."""
        found = self.view.peer_at(address)
        if found.kind == "service":
            ready, others = self.endpoints.get((found.namespace, found.service), ([], []))
            pods = map(self.view.pod_at, dict.fromkeys((*ready, *others)))
            return [(pod.namespace, pod.name) for pod in pods if pod is not None]
        if found.kind == "pod" and found.pod:
            return [(found.namespace, found.pod)]
        pod = places.owners.get(address)
        return [pod] if pod and not is_shared(address) and found.kind != "ended pod" else []

    def _backends(self, backends: list[Name], known: Object, places: Places) -> Object:
        port = known["target_port"]
        read = [name for name in backends if name in places.listeners]
        sockets = {socket for name in read for socket in places.listeners[name]}
        reachable = {socket.port for socket in sockets if not socket.is_loopback}
        found: dict[str, object] = {
            "backends": len(backends),
            "known_sockets": bool(read),
            "listens": port in reachable,
            "loopback_only": port not in reachable and any(socket.port == port for socket in sockets),
            "other_ports": sorted(reachable - {port}),
            "running": any(self._runs(name) for name in backends),
            "policies": sorted({policy for name in backends for policy in self.policies_of(name, "Ingress")}),
            "ready": known.get("ready", 0),
        }
        if backends:
            first = backends[0]
            workload = self.workload(first)
            found |= {"namespace": first[0], "pod": first[1], "workload": workload}
            if known["kind"] == "pod":
                found |= {"name": workload, "ready": int(self._ready(first))}
        if not known["name"] and "name" not in found:
            found["name"] = known["address"]
        return found

    def _runs(self, name: Name) -> bool:
        found = self.raw_pods.get(name)
        statuses = ((found or {}).get("status") or {}).get("containerStatuses") or ()
        return not self._objects or any("running" in (each.get("state") or {}) for each in statuses)

    def _ready(self, name: Name) -> bool:
        conditions = ((self.raw_pods.get(name) or {}).get("status") or {}).get("conditions") or ()
        return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


_SHORT = {
    "Deployment": "deploy",
    "StatefulSet": "sts",
    "DaemonSet": "ds",
    "Job": "job",
    "CronJob": "cronjob",
    "ReplicaSet": "rs",
}


def workload_text(workload: Workload) -> str:
    """Return KIND/NAME with kubectl's short name of the kind."""
    return f"{_SHORT.get(workload.kind, workload.kind.lower())}/{workload.name}"


def _first(states: Object | None, default: str = "") -> tuple[str, Object]:
    return next(iter((states or {}).items()), (default, _NONE))


def name_of(found: Object) -> Name:
    """Return namespace and name of an object."""
    return found["metadata"].get("namespace") or "", found["metadata"]["name"]


def _number(target: int | str, backends: Sequence[Name], pods: Mapping[Name, Pod]) -> int:
    """Return the number of a target port, which may be the name of a container's port; 0 if it is not known."""
    if str(target).isdigit():
        return int(target)
    return next((port.port for name in backends for port in pods[name].ports if port.name == target), 0)


def _volume(found: Object) -> Object:
    kind = next((name for name in found if name != "name"), "")
    of = found.get(kind) or {}
    source = of.get("name") or of.get("secretName") or of.get("claimName") or of.get("path") or ""
    return {
        "name": found.get("name") or "",
        "kind": kind,
        "source": source,
        "optional": bool(of.get("optional")),
        "mode": of.get("defaultMode", 0o644 if kind in ("secret", "configMap", "projected") else None),
        "size_limit": _size(of.get("sizeLimit")),
    }


def _mount(found: Object, volumes: Mapping[str, Object]) -> Object:
    volume = volumes.get(found.get("name") or "", {})
    kept = {name: volume.get(name) for name in ("kind", "source", "mode", "size_limit")}
    return {"path": found.get("mountPath") or "", "read_only": bool(found.get("readOnly")), **kept}


def _limits(resources: Object) -> Object:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    return {
        "memory_limit": _size(limits.get("memory")),
        "cpu_limit": _cpus(limits.get("cpu")),
        "memory_request": _size(requests.get("memory")),
        "cpu_request": _cpus(requests.get("cpu")),
    }


def _security(pod: Object, container: Object) -> Object:
    both = {**pod, **container}
    capabilities = container.get("capabilities") or {}
    return {
        "user": both.get("runAsUser"),
        "non_root": bool(both.get("runAsNonRoot")),
        "read_only_root": bool(container.get("readOnlyRootFilesystem")),
        "added": list(capabilities.get("add") or ()),
        "dropped": list(capabilities.get("drop") or ()),
        "seccomp": (both.get("seccompProfile") or {}).get("type") or "",
    }


def _probe(found: Object | None, container: Object) -> Object | None:
    if not found:
        return None
    kind = next((name for name in ("httpGet", "tcpSocket", "grpc", "exec") if name in found), "")
    of = found.get(kind) or {}
    port: Any = of.get("port")
    if isinstance(port, str) and not port.isdigit():
        port = next((each.get("containerPort") for each in container.get("ports") or () if each.get("name") == port), 0)
    return {
        "kind": kind,
        "port": int(port or 0),
        "path": of.get("path") or "",
        "command": list(of.get("command") or ()),
        "timeout": int(found.get("timeoutSeconds") or 1),
        "period": int(found.get("periodSeconds") or 10),
        "failures": int(found.get("failureThreshold") or 3),
        "delay": int(found.get("initialDelaySeconds") or 0),
    }


def _size(text: object) -> int | None:
    """Return the bytes of a quantity of Kubernetes; None if it is not set or not understood."""
    if text is None:
        return None
    found = str(text)
    for suffix, factor in _SIZES.items():
        if found.endswith(suffix):
            return round(float(found.removesuffix(suffix)) * factor)
    try:
        return round(float(found))
    except ValueError:
        return None


def _cpus(text: object) -> float | None:
    if text is None:
        return None
    found = str(text)
    try:
        return float(found.removesuffix("m")) / 1000 if found.endswith("m") else float(found)
    except ValueError:
        return None


def _field_container(path: str) -> str:
    """Return the container that an event is about: spec.containers{web} is web."""
    return path.partition("{")[2].removesuffix("}")


def _revision(found: Object) -> int:
    text = (found["metadata"].get("annotations") or {}).get(_REVISION, "0")
    return int(text) if str(text).isdigit() else 0


def _difference(before: Object, after: Object) -> dict[str, list[str]]:
    """Return what a rollout changed, without any value of the environment."""

    def parts(found: Object) -> dict[str, set[str]]:
        spec = (((found.get("spec") or {}).get("template") or {}).get("spec")) or {}
        containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        return {
            "images": {f"{each['name']}={each.get('image') or ''}" for each in containers},
            "environment": {f"{each['name']}.{item['name']}" for each in containers for item in each.get("env") or ()},
            "volumes": {each["name"] for each in spec.get("volumes") or ()},
        }

    old, new = parts(before), parts(after)
    return {
        name: [
            *(f"+{each}" for each in sorted(new[name] - old[name])),
            *(f"-{each}" for each in sorted(old[name] - new[name])),
        ]
        for name in new
    }
