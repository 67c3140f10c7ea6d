"""A flow event as a record of JSON, and the types of its members."""

import json
from collections.abc import Mapping
from json.encoder import encode_basestring as _quoted
from typing import get_args

from kubectl_gadget.flows.flow import Denial, EventKind, FlowEvent, Party, Verdict, Who, address_name
from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.row_texts import LATE
from kubectl_gadget.rows.shapes import ANY, BOOL, INT, TEXT, TEXTS, Shape
from kubectl_gadget.wire.policy_events import rfc3339

DENIED_BY = ("policies", "direction", "rule")
"""The members of `denied_by`."""


def record(event: FlowEvent) -> dict[str, object]:
    """Return an event in the form of -o json. Numbers are totals since the flow began, known at that time."""
    flow = event.flow
    found = {
        "timestamp": event.timestamp,
        "node": event.node,
        "kind": event.kind,
        "verdict": event.verdict,
        "protocol": flow.protocol,
        "direction": direction(event),
        "is_reply": event.is_reply,
        "source": end_members(flow.client),
        "destination": end_members(flow.server),
        "backend": end_members(flow.backend) if flow.backend else None,
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
        "denied_by": denial_members(event.denial) if event.denial else None,
    }
    return found | {LATE: True} if event.late else found


def direction(event: FlowEvent) -> str:
    """EGRESS or INGRESS, from the view of the end that saw it."""
    return "EGRESS" if event.observer == "client" else "INGRESS"


def denial_members(denial: Denial) -> dict[str, object]:
    return {
        "policies": [{"namespace": denial.namespace, "name": name} for name in denial.policies],
        "direction": denial.direction,
        "rule": denial.rule or None,
    }


def end_members(party: Party) -> dict[str, object]:
    """An end of a flow."""
    return {"ip": party.ip, "port": party.port, **_who_members(party.who, party.ip)}


def _who_members(who: Who, ip: str) -> dict[str, object]:
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


PARTY = ("ip", "port", *_who_members(Who(), ""))
"""The members of an end."""


def end_text(party: Party) -> str:
    """An end of a flow as JSON, safe to print."""
    who = party.who
    text = who.cached_text
    if not text:
        # Thousands of processes may come in a second, and json.dumps takes four times as long.
        members = _who_members(who, party.ip).values()
        text = _WHO % tuple([_quoted(value) if value.__class__ is str else _json(value) for value in members])
        if not text.isprintable():
            return json_line(end_members(party), (",", ":"))
        if who.name:  # else the text contains the address
            who.cached_text = text
    return f'{{"ip":"{party.ip}","port":{party.port},{text}'


_WHO = ",".join([f'"{name}":%s' for name in PARTY[2:]]) + "}"


def _json(value: object) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
