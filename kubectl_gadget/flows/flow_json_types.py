"""The types of a flow's members in JSON (flow_json.record), for CEL expressions about flows.

The trap: `l7` has different members for DNS and for HTTP, and is null otherwise, so has(l7.method) may be needed.
"""

from collections.abc import Mapping
from typing import get_args

from kubectl_gadget.filters.cel import ANY, BOOL, INT, TEXT, TEXTS, Shape
from kubectl_gadget.flows.flow import EventKind, Verdict


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
