"""A flow event as `hubble observe` prints it: its Flow message as JSON, and its formats compact and dict.

Source: Hubble's flow.proto, as printed by `hubble observe -o jsonpb`. Data for which Hubble has no field (process,
container, bytes) is in `extensions` there. Hubble's readers reject a line with an unknown field or value.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kubectl_gadget.flows.flow import DROPPED, POLICY_DENIED, FlowEvent, Party
from kubectl_gadget.flows.records import direction, record
from kubectl_gadget.output.escape import escape
from kubectl_gadget.rows.gadget_kinds import dns_rcode
from kubectl_gadget.rows.members import LATE_MARK
from kubectl_gadget.yaml_files import own_data


def hubble(event: FlowEvent) -> dict[str, object]:
    """One event as `hubble observe -o jsonpb` prints it. The source is the sender, which is the server in a reply."""
    flow, own = event.flow, record(event)
    ends = [flow.client, flow.backend or flow.server]
    source, destination = reversed(ends) if event.is_reply else ends
    found: dict[str, object] = {
        "time": event.timestamp,
        "uuid": _uuid(event),
        "verdict": event.verdict,
        "IP": {
            "source": source.ip,
            "destination": destination.ip,
            "ipVersion": "IPv6" if ":" in source.ip else "IPv4",
        },
        "l4": _l4(event, source, destination),
        "source": _endpoint(source),
        "destination": _endpoint(destination),
        "Type": "L7" if event.l7 else "L3_L4",
        "node_name": event.node,
        "is_reply": event.is_reply,
        "traffic_direction": direction(event),
        "Summary": event.summary,
        "event_type": _event_type(event),
        "extensions": {
            "@type": "type.googleapis.com/google.protobuf.Struct",
            "value": {"kubectl-gadget": {key: own[key] for key in _OWN}},
        },
    }
    for name, party in (("source_names", source), ("destination_names", destination)):
        if party.who.names:
            found[name] = list(party.who.names)
    if flow.server.who.service:
        namespace, _, name = flow.server.who.service.partition("/")
        found["source_service" if event.is_reply else "destination_service"] = {"name": name, "namespace": namespace}
    if event.verdict == DROPPED:
        # Hubble's reasons are a closed set; the kernel's own word is in the extension.
        drop = hubble_drop(event.drop_reason, event.denial is not None)
        found |= {"drop_reason": drop.sub_type, "drop_reason_desc": drop.name}
    elif not event.l7:
        found["trace_observation_point"] = "TO_NETWORK"
    if event.denial:
        found[f"{event.denial.direction}_denied_by"] = [
            {"name": name, "namespace": event.denial.namespace, "kind": "NetworkPolicy"}
            for name in event.denial.policies
        ]
    if event.l7:
        found["l7"] = _l7(event)
    return {"flow": found, "node_name": event.node, "time": event.timestamp}


_OWN = (
    "kind",
    "source",
    "destination",
    "sent",
    "received",
    "sent_packets",
    "received_packets",
    "rtt",
    "duration",
    "error",
    "drop_reason",
    "denied_by",
    "flow_id",
)


def _event_type(event: FlowEvent) -> dict[str, int]:
    """By Cilium's monitor numbers: a drop, a proxy's log record, or a trace on the way to the network."""
    if event.verdict == DROPPED:
        return {"type": 1, "sub_type": hubble_drop(event.drop_reason, event.denial is not None).sub_type}
    return {"type": 129} if event.l7 else {"type": 4, "sub_type": 11}


def _uuid(event: FlowEvent) -> str:
    flow = event.flow
    text = f"{event.timestamp} {event.node} {event.kind} {flow.client.ip}:{flow.client.port} {flow.server.ip}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def _l4(event: FlowEvent, source: Party, destination: Party) -> dict[str, object]:
    protocol = event.flow.protocol
    if protocol.startswith("ICMP"):
        # An echo request of either IP version.
        return {"ICMPv6": {"type": 128}} if protocol == "ICMPv6" else {"ICMPv4": {"type": 8}}
    ports: dict[str, object] = {"source_port": source.port, "destination_port": destination.port}
    if protocol == "TCP":
        ports["flags"] = dict.fromkeys(event.tcp_flags, True)
    return {protocol: ports}


def _endpoint(party: Party) -> dict[str, object]:
    """`identity` stands for a set of labels, like Cilium's number; it is only useful for comparison."""
    pod = party.who.pod
    if pod is None:
        return {
            "identity": _IDENTITIES.get(reserved := _RESERVED.get(party.who.entity, "world"), 2),
            "labels": [f"reserved:{reserved}"],
        }
    labels = [f"k8s:{label}" for label in pod.labels] + [f"k8s:io.kubernetes.pod.namespace={pod.namespace}"]
    number = int.from_bytes(hashlib.sha256("\n".join(sorted(labels)).encode()).digest()[:3], "big")
    endpoint: dict[str, object] = {
        "identity": 256 + number,
        "namespace": pod.namespace,
        "labels": sorted(labels),
        "pod_name": pod.name,
    }
    if pod.workload:
        endpoint["workloads"] = [{"name": pod.workload.name, "kind": pod.workload.kind}]
    return endpoint


_RESERVED = {
    "node": "host",
    "loopback": "host",
    "kubelet": "host",
    "kube-apiserver": "kube-apiserver",
    "service": "unknown",
    "pod": "unknown",
    "no pod": "unknown",
}
"""Cilium's reserved identities, by entity. It has none for services: it sees their backends."""
_IDENTITIES = {"unknown": 0, "host": 1, "world": 2, "kube-apiserver": 7}


def _l7(event: FlowEvent) -> dict[str, object]:
    l7 = event.l7 or {}
    found: dict[str, Any] = {"type": "RESPONSE" if event.is_reply else "REQUEST"}
    if event.is_reply and l7.get("latency"):
        found["latency_ns"] = str(l7["latency"])
    if l7["type"] == "dns":
        found["dns"] = {"query": f"{str(l7['name']).rstrip('.')}.", "qtypes": [l7["type_name"]]}
        if event.is_reply:
            found["dns"] |= {"ips": l7.get("addresses") or [], "rcode": dns_rcode(l7["rcode"])}
    else:
        # Hubble shows gRPC as HTTP/2, with its own status in a header.
        protocol, status = l7.get("protocol"), l7.get("grpc_status_raw")
        found["http"] = {
            "code": l7.get("status") or 0,
            "method": l7["method"],
            "url": f"http://{l7.get('host') or ''}{l7.get('target') or ''}",
            "protocol": "HTTP/2" if protocol == "gRPC" else protocol,
        }
        if status is not None:
            found["http"]["headers"] = [{"key": "grpc-status", "value": str(status)}]
    return found


# Drop reasons: Hubble's client prints a reason before DROPPED and filters by it. Source of the numbers: `enum
# DropReason` of flow.proto, which are Cilium's own. A subtype of 0 is printed as `Success`, and a reader whose version
# lacks a name rejects the line. So only names of Cilium 1.14 are used, and a reason that fits none gets a number that
# Cilium does not use. The summary contains the kernel's reason.


class HubbleDrop(NamedTuple):
    """A member of `enum DropReason`, and the subtype of the event."""

    name: str
    sub_type: int


_UNKNOWN = HubbleDrop("DROP_REASON_UNKNOWN", 255)
_DENIED = HubbleDrop(POLICY_DENIED, 133)


@cache
def by_reason() -> dict[str, HubbleDrop]:
    """The kernel's reasons that have a number there."""
    found = own_data(Path(__file__).with_suffix(".yaml")).items()
    return {reason: HubbleDrop(name, item["sub_type"]) for name, item in found for reason in item["reasons"].split()}


def hubble_drop(reason: str, denied: bool) -> HubbleDrop:
    """`reason` is the kernel's word without its prefix; `denied`: a known network policy rejected it."""
    return _DENIED if denied or reason == POLICY_DENIED else by_reason().get(reason, _UNKNOWN)


# Lines for people.


def arrow(event: FlowEvent) -> str:
    """`->` from the client, `<-` for a reply, `<>` when it was dropped or it is unknown which end began."""
    if event.verdict == DROPPED or not event.flow.oriented:
        return "<>"
    return "<-" if event.is_reply else "->"


def compact(event: FlowEvent) -> str:
    """`TIME: SRC:PORT (ID) -> DST:PORT (ID) TYPE VERDICT (SUMMARY)`, as `hubble observe` prints it."""
    flow = event.flow
    clock = event.timestamp[5:23].replace("T", " ")
    kind = {"dns": "dns-response", "http": "http-response"}.get(event.kind, "to-network")
    if event.kind in ("dns", "http") and not event.is_reply:
        kind = f"{event.kind}-request"
    if event.verdict == DROPPED:
        kind = "Policy denied" if event.denial else event.drop_reason or "dropped"
    ends = [f"{party.place} ({_identity(party)})" for party in (flow.client, flow.backend or flow.server)]
    return escape(
        f"{clock}{late_mark(event)}: {ends[0]} {arrow(event)} {ends[1]} {kind} {event.verdict} ({event.summary})"
    )


def late_mark(event: FlowEvent) -> str:
    """Return what follows the time of an event that came after a younger one was printed."""
    return LATE_MARK if event.late else ""


def _identity(party: Party) -> str:
    if party.who.pod is not None:
        return "pod"
    entity = party.who.entity
    return "host" if _RESERVED.get(entity) == "host" else entity
