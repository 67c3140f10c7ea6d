"""`advise networkpolicy`: for each workload, a policy that allows exactly what was seen.

NetworkPolicy: https://kubernetes.io/docs/concepts/services-networking/network-policies/. Replies need no rules: a
policy lets in the packets of a connection that it let out. Pods without any flow get no policy here, so the advice of a
quiet hour isolates no pod by mistake; and policies are additive, so a policy whose labels also select other pods allows
them the same.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.advise.baselines import file_name, units_by_workload
from kubectl_gadget.advise.documents import Document
from kubectl_gadget.advise.uses import Instead, Recipe, SeenUses, Use, UseKind
from kubectl_gadget.behavior.facts import Behavior, Fact, FactKind
from kubectl_gadget.behavior.generalization import EPHEMERAL
from kubectl_gadget.kube.inventory import LOCAL_LABEL, Pod, Workload
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.policies.network.evaluate import NAMESPACE_LABEL, NeededFlow, Peer, Peers

KIND = UseKind(
    ("namespace", "pod", "local", "direction", "protocol", "remote", "port"),
    ("connections", "sent_packets", "received_packets"),
)
_MANY_ADDRESSES = 20
Ports = tuple[tuple[str, int], ...]


def uses_of(row: Mapping[str, object]) -> Iterator[Use]:
    """The uses in a row of `top flow`."""
    if row.get("pod"):
        yield {name: row[name] for name in (*KIND.key, *KIND.sums)} | {"container": row["container"]}


class FlowsOfRows:
    """Makes uses of rows of `trace tcp` and `trace udp`. The side that began is the one that connected, and for UDP the
    sender of the first packet; of what began before the recording it may be unknown."""

    def __init__(self, seen: SeenUses) -> None:
        self._seen = seen
        self._directions: dict[tuple[object, ...], str] = {}
        """of UDP, by both ends"""
        self._is_said = False

    def __call__(self, row: Mapping[str, object]) -> Iterator[Use]:
        """Yield the use of a row."""
        is_socket = row["family"] not in ("packet", "xdp")  # whose headers the program writes itself
        if not row.get("pod") or not row["remote"] or not is_socket:
            return
        found = self._tcp(row) if "initiator" in row else self._udp(row)
        if found is None:
            return
        direction, connections, sent, received = found
        if not direction:
            if not self._is_said:
                self._seen.lacking.append(
                    "of some flows that began before the recording, it does not say which side began: they are left out"
                )
            self._is_said = True
            return
        yield {
            **{name: row[name] for name in ("namespace", "pod", "container", "local", "remote")},
            "direction": direction,
            "protocol": row.get("protocol") or "TCP",
            "port": row["remote_port" if direction == "egress" else "local_port"],
            "connections": connections,
            "sent_packets": sent,
            "received_packets": received,
        }

    def _tcp(self, row: Mapping[str, Any]) -> tuple[str, int, int, int] | None:
        """Return direction, connections, and the packets that tell whether it was answered."""
        operation, error = row["operation"], row.get("error")
        if operation == "connect" and error:
            return None if error in _NOT_SENT else ("egress", 1, 1, int(error == "ECONNREFUSED"))
        if operation == "accept" and error:
            return None
        direction = {"this end": "egress", "other end": "ingress"}.get(row["initiator"], "")
        return direction, int(operation in ("connect", "accept", "open")), 1, int(operation != "syn")

    def _udp(self, row: Mapping[str, Any]) -> tuple[str, int, int, int]:
        ends = tuple(row[name] for name in _ENDS)
        sent, received = row["sent_packets"], row["received_packets"]
        if row["operation"] == "first" and bool(sent) != bool(received):
            if len(self._directions) >= _MOST_FLOWS:
                self._directions.pop(next(iter(self._directions)))
            self._directions[ends] = "egress" if sent else "ingress"
        direction = self._directions.get(ends, "")
        if row["operation"] == "end":
            self._directions.pop(ends, None)
        return direction, int(row["operation"] == "first"), sent, received


_MOST_FLOWS = 100_000
_ENDS = ("node", "namespace", "pod", "container", "protocol", "local", "local_port", "remote", "remote_port")
_NOT_SENT = ("EPERM", "EACCES", "ENETUNREACH", "EADDRNOTAVAIL", "EINVAL", "EAFNOSUPPORT")
"""Errors of a connect for which no packet left."""
RECIPE = Recipe(
    "networkpolicy",
    KIND,
    uses_of,
    (("top_flow", {}),),
    whole_cluster=True,
    instead=Instead(
        ("trace_tcp", "trace_udp"),
        FlowsOfRows,
        "connections that neither began nor ended while it ran",
    ),
)


@dataclass(frozen=True)
class PolicySubject:
    """The pods that one policy selects, and the flows that it has to allow."""

    workload: Workload
    labels: dict[str, str]
    flows: tuple[NeededFlow, ...]
    shared_with: tuple[str, ...]
    """other workloads with the same labels"""
    name: str
    """the policy's name"""


def subjects(recording: SeenUses) -> list[PolicySubject]:
    """One for each workload that policies can select."""
    peers = Peers(recording.inventory)
    found: dict[Workload, list[Use]] = {}
    for use in recording.uses:
        if _pod_of(recording, use) is not None:
            found.setdefault(recording.inventory.workload(use["namespace"], use["pod"]), []).append(use)
    made = []
    names = Counter((workload.namespace, workload.name) for workload in found)
    for workload, uses in sorted(found.items(), key=lambda item: str(item[0])):
        labels = _common_labels([pod for use in uses if (pod := _pod_of(recording, use))])
        flows = dict.fromkeys(flow for use in uses for flow in peers.flows(use))
        if not labels or _why_not(recording, uses[0]):
            continue
        others = {str(pod.workload) for pod in peers.selected(workload.namespace, labels)} - {str(workload)}
        alone = names[workload.namespace, workload.name] == 1
        name = workload.name if alone else f"{workload.name}-{workload.kind.lower()}"
        made.append(PolicySubject(workload, labels, tuple(flows), tuple(sorted(others)), name))
    return made


def _pod_of(recording: SeenUses, use: Use) -> Pod | None:
    return recording.inventory.pod(use["namespace"], use["pod"])


def _common_labels(pods: Sequence[Pod]) -> dict[str, str]:
    first, *others = [pod.selecting_labels.items() for pod in pods]
    return {name: value for name, value in first if all((name, value) in items for items in others)}


def _why_not(recording: SeenUses, use: Use) -> str | None:
    """Return why no policy can be made for the pod of this use; None: one can."""
    pod = _pod_of(recording, use)
    if pod is None:
        return "was not among the cluster's pods, so its labels are unknown"
    if pod.host_network:
        return "uses its node's network, to which network policies do not apply"
    if not pod.selecting_labels:
        return "has no labels of its own that a policy could select"
    return None


def warnings(recording: SeenUses) -> Iterator[str]:
    """Pods that get no policy, with the reason."""
    reasons: dict[str, str] = {}
    for use in recording.uses:
        if reason := _why_not(recording, use):
            reasons[f"{use['namespace']}/{use['pod']}"] = reason
    for name, reason in sorted(reasons.items()):
        yield f"{name} {reason}"
    if recording.uses and not recording.inventory.nodes and not recording.inventory.services:
        yield "no services or nodes are known, so their addresses have no names"


def advise(recording: SeenUses, format: str = "kubernetes") -> list[Document]:
    make = _kubernetes if format == "kubernetes" else _cilium
    return [
        Document(make(subject), tuple(_comments(subject)), f"{subject.workload.namespace}_{subject.name}")
        for subject in subjects(recording)
    ]


def rules(flows: Iterable[NeededFlow], ingress: bool) -> dict[Ports, list[Peer]]:
    """Groups peers by the ports that they need. A rule allows each of its peers all of its ports, so only peers with
    the same ports share a rule."""
    ports: dict[Peer, set[tuple[str, int]]] = {}
    for flow in flows:
        if flow.ingress is ingress:
            ports.setdefault(flow.peer, set()).add((flow.protocol, flow.port))
    found: dict[Ports, list[Peer]] = {}
    for peer, needed in ports.items():
        found.setdefault(tuple(sorted(needed)), []).append(peer)
    return {key: sorted(peers, key=_order) for key, peers in sorted(found.items())}


def _order(peer: Peer) -> tuple[object, ...]:
    return (peer.namespace == "", peer.namespace, peer.labels, peer.address)


def _kubernetes(subject: PolicySubject) -> Object:
    def peer_of(peer: Peer) -> Object:
        if peer.address:
            return {"ipBlock": {"cidr": peer.cidr}}
        where = {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: peer.namespace}}}
        pods = {"podSelector": {"matchLabels": dict(peer.labels)}}
        return pods if peer.namespace == subject.workload.namespace else {**where, **pods}

    def rules_of(ingress: bool) -> list[dict[str, object]]:
        return [
            {
                "from" if ingress else "to": [peer_of(peer) for peer in peers],
                "ports": [{"protocol": protocol, "port": port} for protocol, port in ports],
            }
            for ports, peers in rules(subject.flows, ingress).items()
        ]

    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": subject.name, "namespace": subject.workload.namespace},
        "spec": {
            "podSelector": {"matchLabels": subject.labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": rules_of(True),
            "egress": rules_of(False),
        },
    }


def _cilium(subject: PolicySubject) -> dict[str, object]:
    """A CiliumNetworkPolicy: https://docs.cilium.io/en/stable/security/policy/. The peers of one rule are all of one
    kind."""

    def kinds(peers: Sequence[Peer], way: str) -> Iterator[dict[str, object]]:
        pods = [peer for peer in peers if not peer.address]
        entities = sorted({entity for peer in peers for entity in _ENTITIES.get(peer.kind, ())})
        blocks = [peer.cidr for peer in peers if peer.address and peer.kind not in _ENTITIES]
        if pods:
            yield {f"{way}Endpoints": [{"matchLabels": _cilium_labels(peer)} for peer in pods]}
        if entities:
            yield {f"{way}Entities": entities}
        if blocks:
            yield {f"{way}CIDR": blocks}

    def rules_of(ingress: bool) -> list[dict[str, object]]:
        way = "from" if ingress else "to"
        made = [
            {**chosen, "toPorts": [{"ports": [{"port": str(port), "protocol": name} for name, port in ports]}]}
            for ports, peers in rules(subject.flows, ingress).items()
            for chosen in kinds(peers, way)
        ]
        # A direction without any rule would stay open; an empty rule closes it.
        return made or [{}]

    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": subject.name, "namespace": subject.workload.namespace},
        "spec": {
            "endpointSelector": {"matchLabels": subject.labels},
            "ingress": rules_of(True),
            "egress": rules_of(False),
        },
    }


_ENTITIES = {"node": ("host", "remote-node"), "api": ("kube-apiserver",)}


def _cilium_labels(peer: Peer) -> dict[str, str]:
    return {"k8s:io.kubernetes.pod.namespace": peer.namespace, **dict(peer.labels)}


def _comments(subject: PolicySubject) -> Iterator[str]:
    yield f"{subject.workload}"
    if subject.shared_with:
        yield f"  its labels also select these, which are then allowed the same: {', '.join(subject.shared_with)}"
    for ingress, word in ((True, "from"), (False, "to")):
        yield from _directions(subject, ingress, word)


def _directions(subject: PolicySubject, ingress: bool, word: str) -> Iterator[str]:
    notes: dict[str, list[NeededFlow]] = {}
    for flow in subject.flows:
        if flow.ingress is ingress:
            where = f"{flow.peer.address}, {flow.peer.note}" if flow.peer.address else flow.peer.note
            notes.setdefault(where, []).append(flow)
    if not notes:
        yield f"  no {'ingress' if ingress else 'egress'} was seen, so none is allowed"
    for where, flows in sorted(notes.items())[:_MANY_ADDRESSES]:
        ports = ", ".join(dict.fromkeys(f"{flow.port}/{flow.protocol}" for flow in flows))
        silent = "" if any(flow.answered for flow in flows) else "; never answered: remove it if that is expected"
        yield f"  {word} {where}: {ports}{silent}{_hint(flows)}"
    if len(notes) > _MANY_ADDRESSES:
        yield f"  and {len(notes) - _MANY_ADDRESSES} more; CIDR blocks that cover several may be better"


def _hint(flows: Sequence[NeededFlow]) -> str:
    if all(flow.peer.kind == "node" and flow.ingress for flow in flows):
        return "; kubelet's probes, which most network plugins always allow, or a NodePort"
    asks = {(flow.protocol, flow.port) for flow in flows if not flow.ingress}
    return "; long answers use 53/TCP" if ("UDP", 53) in asks and ("TCP", 53) not in asks else ""


# Makes network policies from facts, where this is possible.


_INSIDE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
_OUTSIDE = {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(_INSIDE)}}


def network_policies(behavior: Behavior) -> list[Document]:
    """A policy for each workload that was watched for connections."""
    documents = []
    for workload, units in units_by_workload(behavior):
        if any({FactKind.CONNECT, FactKind.LISTEN} - behavior.coverage[unit].kinds for unit in units):
            continue
        facts = [fact for fact in behavior.facts if fact.workload == workload]
        egress = list(dict.fromkeys(fact.value for fact in facts if fact.kind is FactKind.CONNECT))
        comments = [f"{workload}: a baseline has no labels. Check every {LOCAL_LABEL} below."]
        rules = [rule for value in egress for rule in _egress(value, workload, comments)]
        body = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": workload.name, "namespace": workload.namespace or "default"},
            "spec": {
                "podSelector": {"matchLabels": {LOCAL_LABEL: workload.name}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": list(_ingress(facts, comments)),
                "egress": rules,
            },
        }
        documents.append(Document(body, tuple(comments), file_name(workload)))
    return documents


def _ingress(facts: Sequence[Fact], comments: list[str]) -> Iterator[dict[str, object]]:
    ports = sorted({fact.value for fact in facts if fact.kind is FactKind.LISTEN})
    chosen = [_port(value) for value in ports if not value.startswith(EPHEMERAL)]
    if chosen:
        comments.append(f"  from anywhere to the ports that it listens on: {', '.join(ports)}; say from where")
        yield {"ports": chosen}


def _egress(value: str, workload: Workload, comments: list[str]) -> Iterator[Object]:
    where, _, port_text = value.rpartition(":")
    kind, _, name = where.partition(" ")
    if where == "localhost" or kind == "multicast":
        return
    peer: Object | None = None
    if kind in ("service", "workload"):
        namespace, _, rest = name.partition("/")
        pods = {"podSelector": {"matchLabels": {LOCAL_LABEL: rest.rpartition("/")[2]}}}
        other = {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: namespace}}}
        peer = pods if namespace in ("", workload.namespace) else {**other, **pods}
    elif kind == "network" and "/" in name:
        peer = {"ipBlock": {"cidr": name}}
    elif kind in ("internet", "name"):
        peer = _OUTSIDE
    if peer is None or name == "default/kubernetes":
        comments.append(f"  to {value}: its addresses are not in a baseline, so it is not allowed; add them")
        return
    comments.append(f"  to {value}{'; a policy cannot name it, so anything outside' if peer is _OUTSIDE else ''}")
    ports = [] if port_text.startswith(EPHEMERAL) else [_port(port_text)]
    yield {"to": [peer], **({"ports": ports} if ports else {})}


def _port(text: str) -> Object:
    number, _, protocol = text.partition("/")
    return {"protocol": protocol.upper(), "port": int(number)}
