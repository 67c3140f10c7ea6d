"""A flow event as JSON: with the field names of this project, and as Hubble's Flow message.

Source: Hubble's flow.proto, as printed by `hubble observe -o jsonpb`. Data for which Hubble has no field (process,
container, bytes) is in `extensions` there. The trap: Hubble's readers reject a line with an unknown field or value.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as _quoted
from typing import Any, get_args

from kubectl_gadget.filters.cel import ANY, BOOL, INT, TEXT, TEXTS, Shape
from kubectl_gadget.flows.flow import DROPPED, Denial, EventKind, Flow, FlowEvent, Party, Verdict, Who, address_name
from kubectl_gadget.flows.hubble_drops import hubble_drop
from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.row_texts import LATE
from kubectl_gadget.rows.protocol_names import dns_rcode
from kubectl_gadget.wire.policy_events import rfc3339

MEMBERS = frozenset(
    (
        *("timestamp", "node", "kind", "verdict", "protocol", "direction", "is_reply", "source", "destination"),
        *("backend", "summary", "error", "drop_reason", "duration", "rtt", "sent", "received", "sent_packets"),
        *("received_packets", "retransmits", "flow_id", "flow_began", "seen_by", "l7", "denied_by", LATE),
    )
)
"""The members of a record; `late` is optional."""
DENIED_BY = ("policies", "direction", "rule")
"""The members of its `denied_by`."""


def record(event: FlowEvent) -> dict[str, Any]:
    """One event in the form of -o json. Numbers are totals since the flow began, as far as they are known at that
    time."""
    flow = event.flow
    found = {
        "timestamp": event.timestamp,
        "node": event.node,
        "kind": event.kind,
        "verdict": event.verdict,
        "protocol": flow.protocol,
        "direction": direction(event),
        "is_reply": event.is_reply,
        "source": _party(flow.client),
        "destination": _party(flow.server),
        "backend": _party(flow.backend) if flow.backend else None,
        "summary": event.summary,
        "error": event.errno,
        "drop_reason": event.drop_reason or None,
        "duration": event.duration_ns,
        "rtt": flow.rtt_ns,
        "sent": flow.sent,
        "received": flow.received,
        "sent_packets": flow.sent_packets,
        "received_packets": flow.received_packets,
        "retransmits": flow.retransmits,
        "flow_id": flow.id,
        "flow_began": rfc3339(flow.first_ns),
        "seen_by": sorted(flow.seen_by),
        "l7": event.l7,
        "denied_by": _denied_by(event.denial) if event.denial else None,
    }
    return found | {LATE: True} if event.late else found


def direction(event: FlowEvent) -> str:
    """EGRESS or INGRESS, from the view of the end that saw it."""
    return "EGRESS" if event.observer == "client" else "INGRESS"


def _denied_by(denial: Denial) -> dict[str, Any]:
    return {
        "policies": [{"namespace": denial.namespace, "name": name} for name in denial.policies],
        "direction": denial.direction,
        "rule": denial.rule or None,
    }


def _party(party: Party) -> dict[str, Any]:
    return {"ip": party.ip, "port": party.port, **who_members(party.who, party.ip)}


def who_members(who: Who, ip: str) -> dict[str, Any]:
    pod = who.pod
    return {
        "entity": who.entity,
        "name": who.name or address_name(ip),
        "namespace": pod.namespace if pod else None,
        "pod": pod.name if pod else None,
        "container": who.container or None,
        "service": who.service or None,
        "node": who.node or (pod.node if pod else "") or None,
        "names": list(who.names),
        "labels": list(pod.labels) if pod else [],
        "workload": {"kind": pod.workload.kind, "name": pod.workload.name} if pod and pod.workload else None,
        "pid": who.pid,
        "comm": who.comm or None,
        "exec_id": who.exec_id or None,
        "user_pid": who.user_pid,
        "user_comm": who.user_comm or None,
        "socket": who.socket or None,
    }


def lines(events: Sequence[FlowEvent]) -> list[str]:
    """The records of events as lines of JSON. What the events of a flow share is written once, since each line shows
    the flow as it is now."""
    shared: dict[int, tuple[str, str, bool]] = {}
    found, second, spelt = [], -1, ""
    for event in events:
        time_ns, node, kind, flow, verdict, said, is_reply, observer, errno, drop, duration, _, l7, denial, late = event
        kept = shared.get(id(flow))
        if kept is None:
            kept = shared[id(flow)] = _shared(flow)
        ends, numbers, printable = kept
        if time_ns // 1_000_000_000 != second:
            second = time_ns // 1_000_000_000
            spelt = rfc3339(second * 1_000_000_000)[:-11]
        summary = said if isinstance(said, str) else said.text()
        more = json.dumps(l7, ensure_ascii=False) if l7 else "null"
        denied = json.dumps(_denied_by(denial), ensure_ascii=False) if denial else "null"
        # Unprintable text is rare; then the whole line is escaped.
        if not (printable and f"{node}{summary}{errno}{drop}{more}{denied}".isprintable()):
            found.append(json_line(record(event)))
            continue
        found.append(
            _LINE
            % (
                spelt,
                time_ns % 1_000_000_000,
                _quoted(node),
                kind,
                verdict,
                flow.protocol,
                "EGRESS" if observer == "client" else "INGRESS",
                "true" if is_reply else "false",
                ends,
                _quoted(summary),
                _quoted(errno),
                _quoted(drop) if drop else "null",
                "null" if duration is None else duration,
                numbers,
                more,
                denied,
                f', "{LATE}": true' if late else "",
            )
        )
    return found


_ENDS = '"source": {"ip": "%s", "port": %d, %s, "destination": {"ip": "%s", "port": %d, %s, "backend": %s, '
_LINE = (
    '{"timestamp": "%s.%09dZ", "node": %s, "kind": "%s", "verdict": "%s", "protocol": "%s", "direction": "%s", '
    '"is_reply": %s, %s"summary": %s, "error": %s, "drop_reason": %s, "duration": %s, %s"l7": %s, "denied_by": %s%s}'
)
_NUMBERS = (
    '"rtt": %s, "sent": %d, "received": %d, "sent_packets": %d, "received_packets": %d, "retransmits": %d, '
    '"flow_id": "%s", "flow_began": "%s", "seen_by": %s, '
)
SEEN_BY = {
    (False, False): "[]",
    (True, False): '["client"]',
    (False, True): '["server"]',
    (True, True): '["client", "server"]',
}


def _shared(flow: Flow) -> tuple[str, str, bool]:
    """Ends and numbers of a flow, and whether the ends can be printed as they are."""
    client, server, backend = flow.client, flow.server, flow.backend
    texts = [who_text(party.who, party.ip) for party in (client, server, backend) if party is not None]
    source, destination = texts[0][0], texts[1][0]
    other = "null" if backend is None else f'{{"ip": "{backend.ip}", "port": {backend.port}, {texts[2][0]}'
    ends = _ENDS % (client.ip, client.port, source, server.ip, server.port, destination, other)
    numbers = _NUMBERS % (
        "null" if flow.rtt_ns is None else flow.rtt_ns,
        flow.sent,
        flow.received,
        flow.sent_packets,
        flow.received_packets,
        flow.retransmits,
        flow.id,
        rfc3339(flow.first_ns),
        SEEN_BY[flow.by_client, flow.by_server],
    )
    return ends, numbers, all([printable for _, printable in texts])


def who_text(who: Who, ip: str) -> tuple[str, bool]:
    """The members of an end after address and port, and whether they can be printed as they are."""
    if who.cached_text:
        return who.cached_text, True
    # Thousands of processes may come at once, and json.dumps takes four times as long.
    members = who_members(who, ip).values()
    text = _WHO % tuple([_quoted(value) if value.__class__ is str else _json(value) for value in members])
    # Control characters are escaped already, except DEL.
    printable = (text.isascii() and "\x7f" not in text) or text.isprintable()
    if printable and who.name:  # else the text contains the address
        who.cached_text = text
    return text, printable


_WHO = ", ".join([f'"{name}": %s' for name in who_members(Who(), "")]) + "}"


def _json(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, ensure_ascii=False) if value else "[]"


def hubble(event: FlowEvent) -> dict[str, Any]:
    """One event as `hubble observe -o jsonpb` prints it. The source is the sender, which is the server in a reply."""
    flow, own = event.flow, record(event)
    ends = [flow.client, flow.backend or flow.server]
    source, destination = reversed(ends) if event.is_reply else ends
    found: dict[str, Any] = {
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


def _l4(event: FlowEvent, source: Party, destination: Party) -> dict[str, Any]:
    protocol = event.flow.protocol
    if protocol.startswith("ICMP"):
        # An echo request of either IP version.
        return {"ICMPv6": {"type": 128}} if protocol == "ICMPv6" else {"ICMPv4": {"type": 8}}
    ports: dict[str, Any] = {"source_port": source.port, "destination_port": destination.port}
    if protocol == "TCP":
        ports["flags"] = dict.fromkeys(event.tcp_flags, True)
    return {protocol: ports}


def _endpoint(party: Party) -> dict[str, Any]:
    """`identity` stands for a set of labels, like Cilium's number; it is only useful for comparison."""
    pod = party.who.pod
    if pod is None:
        return {
            "identity": 1 if party.who.entity == "node" else 2,
            "labels": [f"reserved:{_RESERVED.get(party.who.entity, 'world')}"],
        }
    labels = [f"k8s:{label}" for label in pod.labels] + [f"k8s:io.kubernetes.pod.namespace={pod.namespace}"]
    number = int.from_bytes(hashlib.sha256("\n".join(sorted(labels)).encode()).digest()[:3], "big")
    endpoint: dict[str, Any] = {
        "identity": 256 + number,
        "namespace": pod.namespace,
        "labels": sorted(labels),
        "pod_name": pod.name,
    }
    if pod.workload:
        endpoint["workloads"] = [{"name": pod.workload.name, "kind": pod.workload.kind}]
    return endpoint


_RESERVED = {"node": "host", "loopback": "host"}


def _l7(event: FlowEvent) -> dict[str, Any]:
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


# The types of these members, for CEL expressions about flows. `l7` has different members for DNS and for HTTP, and is
# null otherwise, so has(l7.method) may be needed.


def _one_of(*names: str) -> Shape:
    return Shape("text", names=frozenset(names))


_PARTY = Shape(
    "map",
    members={
        **dict.fromkeys(("ip", "entity", "name", "namespace", "pod", "container", "service", "node"), TEXT),
        **dict.fromkeys(("comm", "exec_id", "user_comm", "socket"), TEXT),
        **dict.fromkeys(("port", "pid", "user_pid"), INT),
        **dict.fromkeys(("names", "labels"), TEXTS),
        "workload": Shape("map", members={"kind": TEXT, "name": TEXT}),
    },
)
_L7 = Shape(
    "map",
    members={
        **dict.fromkeys(("type", "type_name", "name", "rcode", "method", "host", "target", "protocol"), TEXT),
        **dict.fromkeys(("status", "latency", "grpc_status_raw"), INT),
        "grpc_status": TEXT,
        "addresses": ANY,
        "reset": ANY,
    },
)
_POLICY = Shape("map", members={"namespace": TEXT, "name": TEXT})
FLOW: Mapping[str, Shape] = {
    **dict.fromkeys(("timestamp", "node", "protocol", "summary", "error"), TEXT),
    "kind": _one_of(*get_args(EventKind)),
    "verdict": _one_of(*get_args(Verdict)),
    "direction": _one_of("EGRESS", "INGRESS"),
    **dict.fromkeys(("drop_reason", "flow_id", "flow_began"), TEXT),
    **dict.fromkeys(("duration", "rtt", "sent", "received", "sent_packets", "received_packets", "retransmits"), INT),
    **dict.fromkeys(("source", "destination", "backend"), _PARTY),
    "is_reply": BOOL,
    "seen_by": TEXTS,
    "l7": _L7,
    "denied_by": Shape("map", members={"policies": Shape("list", _POLICY), "direction": TEXT, "rule": TEXT}),
}
