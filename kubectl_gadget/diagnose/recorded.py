"""What a recording keeps of a search beside its rows, so that a replay says the same: objects of the API, and what was
read of pods at the other end.

Of objects only the listed fields are kept: never ConfigMaps and Secrets, values of the environment, headers of probes,
or attributes of volumes. A recording may come from anybody, so a replay takes only the same fields, of the same types.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from kubectl_gadget import gadgets
from kubectl_gadget.diagnose.cluster import KINDS, Cluster, Name, name_of
from kubectl_gadget.diagnose.observations import Owner
from kubectl_gadget.diagnose.rules import OBJECTS
from kubectl_gadget.kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    GONE,
    NETWORK_POLICIES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Object,
)
from kubectl_gadget.recording.layout import to_json
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.wire.message import value_count

MOST_OBJECTS = 20_000
"""of one kind"""
_MOST_VALUES = 500_000
"""of all objects; a reader takes twice as many"""
_MOST_ITEMS, _MOST_MEMBERS, _LONGEST = 1_000, 200, 32_768


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _number(value: object) -> bool:
    return type(value) is int and -(1 << 62) < value < 1 << 62


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _port(value: object) -> bool:
    return _text(value) or _number(value)


def _amount(value: object) -> bool:
    """True for a quantity, such as 128Mi or 0.5, which is a text in most objects."""
    return _text(value) or (isinstance(value, int | float) and not isinstance(value, bool))


_TEXTS: Any = {"*": _text}
_METADATA: dict[str, Any] = {
    **{name: _text for name in ("name", "namespace", "uid")},
    "labels": _TEXTS,
    "annotations": {
        name: _text
        for name in ("kubernetes.io/config.hash", "kubernetes.io/config.mirror", "deployment.kubernetes.io/revision")
    },
    **{name: _time for name in ("creationTimestamp", "deletionTimestamp", GONE)},
    "deletionGracePeriodSeconds": _number,
    "ownerReferences": [{"apiVersion": _text, "kind": _text, "name": _text, "controller": _flag}],
}
_STATE: dict[str, Any] = {
    "*": {
        **{name: _text for name in ("reason", "message", "containerID")},
        **{name: _time for name in ("startedAt", "finishedAt")},
        **{name: _number for name in ("exitCode", "signal")},
    }
}
_STATUSES: list[Any] = [
    {
        **{name: _text for name in ("name", "image", "containerID")},
        **{name: _flag for name in ("ready", "started")},
        "restartCount": _number,
        "state": _STATE,
        "lastState": _STATE,
    }
]
_CALL = {"port": _port, "path": _text, "host": _text, "command": [_text]}
_PROBE = {"*": _number, **dict.fromkeys(("httpGet", "tcpSocket", "grpc", "exec"), _CALL)}
_SECURITY: dict[str, Any] = {
    **{name: _number for name in ("runAsUser", "runAsGroup", "fsGroup")},
    **{name: _flag for name in ("runAsNonRoot", "readOnlyRootFilesystem")},
    "capabilities": {"add": [_text], "drop": [_text]},
    "seccompProfile": {"type": _text},
}
_CONTAINERS: list[Any] = [
    {
        **{name: _text for name in ("name", "image")},
        "command": [_text],
        "args": [_text],
        "env": [{"name": _text}],
        "resources": {"limits": {"*": _amount}, "requests": {"*": _amount}},
        "securityContext": _SECURITY,
        **{f"{name}Probe": _PROBE for name in ("liveness", "readiness", "startup")},
        "volumeMounts": [{"name": _text, "mountPath": _text, "readOnly": _flag}],
        "ports": [{"name": _text, "protocol": _text, "containerPort": _number, "hostPort": _number}],
        "lifecycle": {"preStop": {"*": {}}},
    }
]
_VOLUMES: list[Any] = [
    {
        "name": _text,
        "*": {
            **{name: _text for name in ("name", "secretName", "claimName", "path")},
            "optional": _flag,
            "defaultMode": _number,
            "sizeLimit": _amount,
        },
    }
]
_POD_SPEC: dict[str, Any] = {
    **{name: _text for name in ("nodeName", "dnsPolicy")},
    "hostNetwork": _flag,
    "terminationGracePeriodSeconds": _number,
    "dnsConfig": {"options": [{"name": _text, "value": lambda value: _text(value) and value.isdecimal()}]},
    "securityContext": _SECURITY,
    "volumes": _VOLUMES,
    "initContainers": _CONTAINERS,
    "containers": _CONTAINERS,
}
_SELECTOR = {"matchLabels": _TEXTS, "matchExpressions": [{"key": _text, "operator": _text, "values": [_text]}]}
_SHAPES: dict[str, Any] = {
    PODS.plural: {
        "metadata": _METADATA,
        GONE: _time,
        "spec": _POD_SPEC,
        "status": {
            **{name: _text for name in ("phase", "reason", "message", "podIP", "hostIP")},
            "podIPs": [{"ip": _text}],
            "conditions": [{name: _text for name in ("type", "status", "reason", "message")}],
            "initContainerStatuses": _STATUSES,
            "containerStatuses": _STATUSES,
        },
    },
    EVENTS.plural: {
        "metadata": _METADATA,
        "involvedObject": {name: _text for name in ("kind", "namespace", "name", "fieldPath")},
        "source": {"host": _text},
        **{name: _text for name in ("reason", "message", "type")},
        "count": _number,
        "series": {"count": _number},
        **{name: _time for name in ("lastTimestamp", "eventTime")},
    },
    SERVICES.plural: {
        "metadata": _METADATA,
        "spec": {
            **{name: _text for name in ("type", "clusterIP")},
            "clusterIPs": [_text],
            "externalIPs": [_text],
            "selector": _TEXTS,
            "ports": [
                {"name": _text, "protocol": _text, "port": _number, "targetPort": _port, "nodePort": _number},
            ],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": _text}]}},
    },
    ENDPOINT_SLICES.plural: {
        "metadata": _METADATA,
        "ports": [{"name": _text, "protocol": _text, "port": _number}],
        "endpoints": [{"addresses": [_text], "conditions": {"*": _flag}}],
    },
    NODES.plural: {
        "metadata": _METADATA,
        "spec": {"podCIDR": _text, "podCIDRs": [_text]},
        "status": {"addresses": [{"type": _text, "address": _text}]},
    },
    REPLICA_SETS.plural: {
        "metadata": _METADATA,
        "spec": {
            "replicas": _number,
            "template": {
                "metadata": {"labels": _TEXTS},
                "spec": {
                    "initContainers": [{"name": _text, "image": _text, "env": [{"name": _text}]}],
                    "containers": [{"name": _text, "image": _text, "env": [{"name": _text}]}],
                    "volumes": [{"name": _text}],
                },
            },
        },
        "status": {"replicas": _number, "readyReplicas": _number},
    },
    DEPLOYMENTS.plural: {"metadata": _METADATA},
    NETWORK_POLICIES.plural: {
        "metadata": _METADATA,
        "spec": {"podSelector": _SELECTOR, "policyTypes": [_text], "egress": [{}]},
    },
}
_WORDS = {**{name: _text for name in ("says", "name", "error", "what")}, "exit_code": _number}
_OWNER = dict.fromkeys(("node", "namespace", "pod", "container"), _text)
_COLUMNS: dict[str, Any] = {"int": _number, "bool": _flag, "text": _text, "texts": [_text]}
"""of a row, by the type of its member"""
_EMPTY: Mapping[str, Any] = {"int": 0, "bool": False, "text": "", "texts": ()}
_OTHER_POD: dict[str, Any] = {
    "metadata": _METADATA,
    "spec": {"nodeName": _text, "hostNetwork": _flag},
    "status": _SHAPES[PODS.plural]["status"],
}
"""Of a pod that the run was not about."""


def kept_of(value: object, shape: Any) -> Any:
    """Return what a value has of a shape: a function is a leaf, and tells whether a value may be kept; a list has any
    number of its element; of a mapping `*` stands for all other members. None: nothing."""
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            return None
        kept = {}
        for name, item in list(value.items())[:_MOST_MEMBERS]:
            wanted = shape.get(name, shape.get("*"))
            if wanted is not None and (part := kept_of(item, wanted)) is not None:
                kept[str(name)] = part
        return kept
    if isinstance(shape, list):
        if not isinstance(value, list | tuple):
            return None
        return [part for item in value[:_MOST_ITEMS] if (part := kept_of(item, shape[0])) is not None]
    return value if value is not None and shape(value) else None


def facts(cluster: Cluster, about: set[Name], selected: Iterable[Name], controllers: Iterable[Name]) -> dict[str, Any]:
    """Return what a recording keeps of the API. `about`: the pods that all is kept of; the other pods of a very large
    cluster are left out."""
    objects: dict[str, list[Object]] = {}
    own = list[Object]()
    is_whole = len(cluster.raw_pods) <= MOST_OBJECTS
    for kind in KINDS:
        found = cluster.of(kind)
        if kind is not PODS:
            objects[kind.plural] = [kept_of(each, _SHAPES[kind.plural]) for each in found[:MOST_OBJECTS]]
            continue
        own = [kept_of(each, _SHAPES[kind.plural]) for each in found if name_of(each) in about]
        others = [kept_of(each, _OTHER_POD) for each in found if name_of(each) not in about] if is_whole else []
        objects[kind.plural] = [*own, *others]
    if value_count(to_json(objects)) > _MOST_VALUES:
        is_whole, objects = False, {PODS.plural: own}
    return {
        "objects": objects,
        "time": cluster.now,
        "has_all_pods": cluster.has_all_pods and is_whole,
        "selected": sorted(map(list, selected)),
        "controllers": sorted(map(list, controllers)),
        "last_words": [
            [*name, container, words]
            for name, of_pod in sorted(cluster.last_words.items())
            for container, words in sorted(of_pod.items())
        ],
    }


@dataclass(frozen=True)
class PeerRow:
    """A row of a look at a pod at the other end, which is no row of the run."""

    gadget: str
    look: str
    at: int
    """ns, wall time"""
    owner: Owner
    row: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "owner": asdict(self.owner)}


def peer_rows(found: object, of: Sequence[str]) -> Iterator[PeerRow]:
    """Yield the rows of a recording about pods at the other end, by the gadgets `of`."""
    members = {name: filter_members(gadgets.load_gadget(name)) for name in of}
    for each in found[:MOST_OBJECTS] if isinstance(found, list) else ():
        if not isinstance(each, dict) or each.get("gadget") not in members:
            continue
        at, row, owner = each.get("at"), each.get("row"), kept_of(each.get("owner"), _OWNER)
        if not (isinstance(row, dict) and isinstance(owner, dict) and isinstance(at, int) and _number(at)):
            continue
        record: dict[str, Any] = {}
        for name, member in members[each["gadget"]].items():
            kept = kept_of(row.get(name), _COLUMNS.get(member.type, _text))
            record[name] = _EMPTY.get(member.type) if kept is None else kept
        yield PeerRow(each["gadget"], str(each.get("look")), at, Owner(**owner), record)


def names(found: object) -> Iterator[Name]:
    """Yield the names of a recording, each a namespace and a name."""
    for each in found[:MOST_OBJECTS] if isinstance(found, list) else ():
        if isinstance(each, list) and len(each) >= 2 and _text(each[0]) and _text(each[1]):
            yield each[0], each[1]


def cluster_of(found: Sequence[Mapping[str, Any]]) -> Cluster:
    """Return the cluster as it was at the end of runs, from what their recordings kept. Raises ValueError if that makes
    no sense."""
    objects: dict[str, list[Object]] = {}
    words: dict[Name, dict[str, Object]] = {}
    times = [each["time"] for each in found if isinstance(each.get("time"), int | float)]
    for each in found:
        listed = each.get("objects")
        for kind, shape in _SHAPES.items():
            of_kind = listed.get(kind) if isinstance(listed, dict) else None
            for item in of_kind[:MOST_OBJECTS] if isinstance(of_kind, list) else ():
                if isinstance(kept := kept_of(item, shape), dict):
                    objects.setdefault(kind, []).append(kept)
        said = each.get("last_words")
        for line in said[:MOST_OBJECTS] if isinstance(said, list) else ():
            for name in names([line]):
                if len(line) == 4 and _text(line[2]):
                    words.setdefault(name, {})[line[2]] = kept_of(line[3], _WORDS) or {}
    try:
        cluster = Cluster(objects, max(times, default=0.0), all(each.get("has_all_pods") is True for each in found))
        cluster.last_words = words
        _ = cluster.services, cluster.endpoints
        for kind in OBJECTS:
            for _ in cluster.records(kind, set(cluster.pods)):
                pass
        for name in cluster.pods:
            cluster.policies_of(name, "Ingress")
            cluster.policies_of(name, "Egress")
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return cluster
