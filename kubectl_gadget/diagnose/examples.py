"""The examples of rules: what may be seen, and whether that is a finding. Tests check ours, and a
run the examples of --rules before it begins.

    examples:
      - what: two refusals, and nobody listens
        finds: true
        places:
          - {pod: db, address: 10.1.0.2, listens: ["0.0.0.0:5433"]}
          - {service: db, address: 10.9.0.1, port: 5432, pods: [db]}
        rows:
          - {gadget: trace_tcp, operation: connect, error: ECONNREFUSED, remote: 10.9.0.1, remote_port: 5432, times: 2}

Rows and records are about container app of pod shop/web unless they say otherwise. Of a row: `at` is when it happened,
in seconds from the start of a run of 30 s; `before`, how many such rows the first turn of a snapshot had; `times`, how
many there are.
"""

import errno
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from kubectl_gadget import gadgets
from kubectl_gadget.diagnose.cluster import Cluster, Listener, Places
from kubectl_gadget.diagnose.findings import Diagnosis, Found, RunFacts
from kubectl_gadget.diagnose.observations import Observations, Owner, Record
from kubectl_gadget.diagnose.rules import OBJECTS, Example, Rule
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NETWORK_POLICIES, NODES, PODS, SERVICES, Object
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.wording import did_you_mean

NAMESPACE, POD, CONTAINER, NODE = "shop", "web", "app", "node-1"
SECONDS = 30.0
_BEGAN_NS = 1_790_000_000_000_000_000
_OF_ROWS = ("gadget", "times", "pod", "container", "node", "at", "before")
_OF_PLACES = ("pod", "service", "node", "address", "listens", "port", "target", "pods", "ready", "policies")
_EMPTY: Record = {"int": 0, "bool": False, "text": "", "texts": []}
_TYPES: Mapping[str, tuple[type, ...]] = {"int": (int,), "bool": (bool,), "text": (str,), "texts": (list, tuple)}


def check(rules: Iterable[Rule]) -> None:
    """Apply each rule to its examples. Raises UsageError, which names the example that is wrong."""
    for rule in rules:
        for example in rule.examples:
            if wrong := problem(rule, example):
                raise UsageError(f"{rule.file}: {rule.name}: the example {example.what!r} {wrong}")


def problem(rule: Rule, example: Example) -> str:
    """Return why an example contradicts its rule; "" if it does not."""
    try:
        found = found_in([rule], example)
    except UsageError as error:
        return f"cannot be read: {error}"
    if bool(found) != example.finds:
        why = f" ({rule.when.first_error})" if rule.when.first_error and not found else ""
        return f"is a finding: {found[0].words.title}" if found else f"is no finding{why}"
    if example.says and not any(example.says in each.words.title for each in found):
        return f"does not say {example.says!r}: {found[0].words.title}"
    return ""


def found_in(rules: Iterable[Rule], example: Example) -> list[Found]:
    """Return the roots that rules find in an example. Raises UsageError if the example cannot be read."""
    known = tuple(rules)
    observations, places = Observations(known), Places()
    diagnosis = Diagnosis(known, observations, places)
    diagnosis.cluster = Cluster(_objects(example, places), _BEGAN_NS / 1e9 + SECONDS)
    for name, rows in _rows(example.rows).items():
        observations.take_records(name, rows)
    for kind in OBJECTS:
        written = [each for each in example.records if each.get("object") == kind]
        observations.take_objects(kind, [_record(kind, each, diagnosis.cluster) for each in written], _BEGAN_NS)
    return diagnosis.findings(RunFacts(SECONDS, _BEGAN_NS))


def _rows(written: Iterable[Record]) -> dict[str, list[tuple[Owner, Record, int]]]:
    found: dict[str, list[tuple[Owner, Record, int]]] = {}
    for row in written:
        rows = found.setdefault(str(row.get("gadget")), [])
        record = _whole(str(row.get("gadget")), row)
        owner = Owner(row.get("node", NODE), NAMESPACE, row.get("pod", POD), row.get("container", CONTAINER))
        record |= {name: value for name, value in vars(owner).items() if name in record}
        for at, times in ((row.get("at", SECONDS - 1), row.get("times", 1)), (0, row.get("before", 0))):
            rows += [(owner, record, _BEGAN_NS + round(at * 1e9))] * times
    for rows in found.values():
        rows.sort(key=lambda each: each[2])
    return found


@lru_cache
def _members(gadget: str) -> Mapping[str, Member]:
    return filter_members(gadgets.load_gadget(gadget))


def _whole(gadget: str, row: Record) -> dict[str, Any]:
    """Return a row with all members of its gadget. Raises UsageError if a value does not fit its column."""
    members = _members(gadget)
    record: dict[str, Any] = {name: _EMPTY.get(member.type) for name, member in members.items()}
    for name, value in row.items():
        if name in _OF_ROWS:
            continue
        if name not in members:
            raise UsageError(f"{gadget} has no column {name!r}{did_you_mean(name, members)}")
        member = members[name]
        if value is not None and type(value) not in _TYPES.get(member.type, (object,)):
            raise UsageError(f"{name} of {gadget} cannot be {value!r}: it is {member.type}")
        if member.names and value and value not in member.names:
            raise UsageError(f"{name} of {gadget} is never {value!r}{did_you_mean(value, member.names)}")
        record[name] = value
    if "errno" in record and (error := record.get("error")):
        record["errno"] = getattr(errno, error)
    return record


def _record(kind: str, written: Record, cluster: Cluster) -> dict[str, Any]:
    """Return a record of the API. Other members are as in a healthy pod."""
    name = (NAMESPACE, written.get("pod", POD))
    known = next(cluster.records(kind, {name}), None) if kind in ("pod", "container") else None
    record = known or {"namespace": NAMESPACE, "pod": name[1], "node": NODE}
    for member, value in written.items():
        if member not in (*OBJECTS[kind], "object", "times"):
            raise UsageError(f"{kind} has no {member!r}{did_you_mean(member, OBJECTS[kind])}")
        record[member] = value
    return {**dict.fromkeys(OBJECTS[kind]), **record}


def _objects(example: Example, places: Places) -> dict[str, list[Object]]:
    """Return the objects of the API server that an example needs: its pods and services, and pod web."""
    found: dict[str, list[Object]] = {kind.plural: [] for kind in (PODS, SERVICES, ENDPOINT_SLICES, NODES)}
    found[NETWORK_POLICIES.plural] = []
    pods: dict[str, Record] = {POD: {"pod": POD, "address": "10.1.0.1"}}
    for place in example.places:
        for name in place:
            if name not in _OF_PLACES:
                raise UsageError(f"a place has no {name!r}{did_you_mean(name, _OF_PLACES)}")
        if "pod" in place:
            pods[place["pod"]] = place
    for name, place in pods.items():
        found[PODS.plural].append(_pod(name, place))
        if "listens" in place:
            ends = (each.rpartition(":") for each in place["listens"])
            places.saw_sockets((NAMESPACE, name), [Listener(host.strip("[]"), int(port)) for host, _, port in ends])
        for policy in place.get("policies", ()):
            spec = {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress", "Egress"]}
            found[NETWORK_POLICIES.plural].append({"metadata": _metadata(policy), "spec": spec})
    for place in example.places:
        if "service" in place:
            name, port, selector = place["service"], place["port"], {"app": place["service"]}
            ports: list[Object] = [{"port": port, "targetPort": place.get("target", port)}]
            ports_of: Object = {"clusterIP": place["address"], "selector": selector, "ports": ports}
            found[SERVICES.plural].append({"metadata": _metadata(name), "spec": ports_of})
            endpoints = [
                {"addresses": [pods[each]["address"]], "conditions": {"ready": pods[each].get("ready", True)}}
                for each in place.get("pods", ())
            ]
            metadata = _metadata(f"{name}-1", {"kubernetes.io/service-name": name})
            found[ENDPOINT_SLICES.plural].append({"metadata": metadata, "endpoints": endpoints})
        elif "pod" not in place:
            status = {"addresses": [{"type": "InternalIP", "address": place["address"]}]}
            found[NODES.plural].append({"metadata": {"name": place["node"]}, "status": status})
    return found


def _metadata(name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "uid": name, "labels": labels or {"app": name}}


def _pod(name: str, place: Record) -> Object:
    address, ready = place.get("address", ""), place.get("ready", True)
    metadata = {**_metadata(name), "creationTimestamp": "2026-09-21T12:00:00Z"}
    status = {"name": CONTAINER, "state": {"running": {"startedAt": "2026-09-21T12:00:01Z"}}, "ready": ready}
    return {
        "metadata": metadata,
        "spec": {"nodeName": place.get("node", NODE), "containers": [{"name": CONTAINER, "image": "shop/app:1"}]},
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [status],
        },
    }
