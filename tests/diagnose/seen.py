"""What a run has seen, made by hand: rows as in JSON, and objects as the API server sends them."""

from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_gadget.diagnose.cluster import Cluster, Listener, Name, Places
from kubectl_gadget.diagnose.findings import Diagnosis, Found, RunFacts
from kubectl_gadget.diagnose.observations import Observations, Owner
from kubectl_gadget.diagnose.rules import OBJECTS, Rule, load, own_files

NOW = 1_790_000_000.0
RULES = load(own_files())


def pod(name: str, ip: str, labels: Mapping[str, str] = {}, **status: Any) -> dict[str, Any]:
    """A pod of a Deployment if its name ends like one's, as the API server sends it."""
    workload, _, _ = name.rpartition("-")
    template = workload.rpartition("-")[2]
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "shop",
        "uid": name,
        "creationTimestamp": "2026-09-21T12:00:00Z",
        "labels": {**labels, **({"pod-template-hash": template} if workload else {})},
    }
    if workload:
        metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": workload, "controller": True}]
    container = status.pop("container", {})
    containers = [{"name": "app", "image": "shop/app:1", **container}]
    state = status.pop("state", {"running": {"startedAt": "2026-09-21T12:00:01Z"}})
    last = status.pop("last", {})
    restarts = status.pop("restarts", 0)
    ready = status.pop("ready", True)
    return {
        "metadata": metadata,
        "spec": {"nodeName": "node-1", "containers": containers, **status.pop("spec", {})},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [
                {"name": "app", "state": state, "lastState": last, "restartCount": restarts, "ready": ready}
            ],
            **status,
        },
    }


def service(name: str, ip: str, port: int, target: int | str, **selector: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": ip, "selector": selector, "ports": [{"port": port, "targetPort": target}]},
    }


def endpoints(name: str, ready: Sequence[str] = (), others: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": [
            *({"addresses": [ip], "conditions": {"ready": True}} for ip in ready),
            *({"addresses": [ip], "conditions": {"ready": False}} for ip in others),
        ],
        "ports": [],
    }


def event(pod: str, reason: str, message: str, count: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{pod}.1", "namespace": "shop"},
        "involvedObject": {
            "kind": "Pod",
            "namespace": "shop",
            "name": pod,
            "fieldPath": "spec.containers{app}",
        },
        "reason": reason,
        "message": message,
        "count": count,
        "lastTimestamp": "2026-09-21T14:13:00Z",
        "type": "Warning",
    }


def connect(remote: str, port: int, error: str = "ECONNREFUSED", **more: Any) -> dict[str, Any]:
    errno = {"": 0, "ECONNREFUSED": 111, "ETIMEDOUT": 110, "ECANCELED": 125}[error]
    row = {"event": "tcp", "operation": "connect", "errno": errno, "error": error, "remote": remote}
    return {**row, "remote_port": port, "comm": "app", "pid": 7, **more}


class Seen:
    """Adds rows and objects, and gives the findings."""

    def __init__(self, rules: Sequence[Rule] = RULES, **objects: Sequence[Mapping[str, Any]]) -> None:
        self.observations = Observations(rules)
        self.places = Places()
        self.rules = rules
        self.diagnosis = Diagnosis(rules, self.observations, self.places)
        if objects:
            self.diagnosis.cluster = Cluster(objects, NOW)  # type: ignore[arg-type]
        selected = set(self.diagnosis.cluster.pods)
        for kind in OBJECTS:
            records = self.diagnosis.cluster.records(kind, selected)
            self.observations.take_objects(kind, records, round(NOW * 1e9))

    def row(self, pod: str, gadget: str, row: Mapping[str, Any], times: int = 1, container: str = "app") -> "Seen":
        """Count a row of a gadget in all sets that it matches."""
        owner = Owner("node-1", "shop", pod, container)
        for rule in self.rules:
            for seen in rule.seen:
                if seen.gadget is None or seen.gadget.name != gadget:
                    continue
                record = {**row, "base": str(row.get("path", "")).rpartition("/")[2]}
                if seen.row_condition is not None and not seen.row_condition.matches(record):
                    continue
                watch = self.observations.of(seen)
                found = watch.of(owner, tuple(record.get(name) for name in seen.by))
                if found is not None and (id(found), id(row)) not in self._done:
                    self._done.add((id(found), id(row)))
                    self._kept.append(row)
                    for _ in range(times):
                        found.add(record, round(NOW * 1e9), seen.measure)
        return self

    def listens(self, pod: str, *sockets: tuple[str, int]) -> "Seen":
        name: Name = ("shop", pod)
        self.places.saw_sockets(name, [Listener(address, port) for address, port in sockets])
        return self

    @property
    def findings(self) -> list[Found]:
        return self.diagnosis.findings(RunFacts(30.0, round(NOW * 1e9) - 30_000_000_000))

    @property
    def roots(self) -> list[str]:
        """The names of the rules of the roots, the worst first."""
        return [each.rule.name for each in self.findings]

    _done: set[tuple[int, int]]
    _kept: list[Mapping[str, Any]]

    def __new__(cls, *_: Any, **__: Any) -> "Seen":
        made = super().__new__(cls)
        made._done, made._kept = set(), []
        return made
