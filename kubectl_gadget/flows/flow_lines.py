"""A flow event as a line for people: the cells of our table, and Hubble's compact and dict formats.

The trap: names come from containers and from the network; every text is escaped before it is printed.
"""

from collections.abc import Callable, Sequence

from kubectl_gadget.flows.flow import DROPPED, ERROR, FORWARDED, FlowEvent, Party, Who
from kubectl_gadget.output.columns import Heading
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.terminal import RED
from kubectl_gadget.rows.amounts import bytes_text, duration_text
from kubectl_gadget.rows.members import LATE_MARK

HEADINGS = (
    Heading("time", "TIME", 12),
    Heading("source", "SOURCE", 30, whole=True),
    Heading("destination", "DESTINATION", 33, whole=True),
    Heading("protocol", "PROTO", 5),
    Heading("verdict", "VERDICT", 9),
    Heading("summary", "SUMMARY", 20, stretch=True),
)
WIDE_HEADINGS = (
    *HEADINGS[:1],
    Heading("node", "NODE", 10),
    *HEADINGS[1:3],
    Heading("workload", "WORKLOAD", 16),
    *HEADINGS[3:5],
    Heading("sent", "SENT", 8, "right"),
    Heading("received", "RECV", 8, "right"),
    Heading("retransmits", "RETRANS", 7, "right"),
    Heading("rtt", "RTT", 7, "right"),
    *HEADINGS[5:],
)

COLORS: dict[str, str] = {FORWARDED: "", DROPPED: RED, ERROR: RED}
"""colors of verdicts"""


def columns(events: Sequence[FlowEvent], headings: Sequence[Heading]) -> list[list[str]]:
    """The columns of the table, not escaped yet."""
    return [list(map(_CELLS[heading.name], events)) for heading in headings]


def arrow(event: FlowEvent) -> str:
    """`->` from the client, `<-` for a reply, `<>` when it was dropped or it is unknown which end began."""
    if event.verdict == DROPPED or not event.flow.oriented:
        return "<>"
    return "<-" if event.is_reply else "->"


def compact(event: FlowEvent, *, with_node: bool = False) -> str:
    """`TIME: SRC:PORT (ID) -> DST:PORT (ID) TYPE VERDICT (SUMMARY)`, as `hubble observe` prints it."""
    flow = event.flow
    clock = event.timestamp[5:23].replace("T", " ")
    node = f" [{event.node}]" if with_node else ""
    kind = {"dns": "dns-response", "http": "http-response"}.get(event.kind, "to-network")
    if event.kind in ("dns", "http") and not event.is_reply:
        kind = f"{event.kind}-request"
    if event.verdict == DROPPED:
        kind = "Policy denied" if event.denial else event.drop_reason or "dropped"
    ends = [f"{party.place} ({_identity(party)})" for party in (flow.client, flow.backend or flow.server)]
    return escape(
        f"{clock}{_late(event)}{node}: {ends[0]} {arrow(event)} {ends[1]} {kind} {event.verdict} ({event.summary})"
    )


def dictionary(event: FlowEvent) -> str:
    """One field per line, as `hubble observe -o dict` prints it."""
    flow = event.flow
    fields = {
        "TIMESTAMP": event.timestamp,
        "NODE": event.node,
        "SOURCE": f"{flow.client.place}",
        "DESTINATION": f"{flow.server.place}",
        "TYPE": event.kind,
        "VERDICT": event.verdict,
        "SUMMARY": event.summary,
    }
    if event.late:
        fields["LATE"] = "true"
    return "\n".join(f"{name:>12}: {escape(text)}" for name, text in fields.items())


def _late(event: FlowEvent) -> str:
    return LATE_MARK if event.late else ""


def _source(event: FlowEvent) -> str:
    client = event.flow.client
    return f"{client.name} ({client.who.process})" if client.who.process else client.name


def _destination(event: FlowEvent) -> str:
    flow = event.flow
    server = flow.backend or flow.server
    text = f"{arrow(event)} {flow.server.place}"
    if flow.backend is not None:
        text += f" = {flow.backend.place}"
    return f"{text} ({server.who.process})" if server.who.process else text


def _workload_of(who: Who) -> str:
    found = who.pod.workload if who.pod else None
    return f"{found.kind}/{found.name}" if found else "-"


def _identity(party: Party) -> str:
    if party.who.pod is not None:
        return "pod"
    return {"node": "host", "loopback": "host"}.get(party.who.entity, party.who.entity)


def _duration(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else duration_text(nanoseconds)


_CELLS: dict[str, Callable[[FlowEvent], str]] = {
    "time": lambda event: event.timestamp[11:23] + _late(event),
    "node": lambda event: event.node,
    "source": _source,
    "destination": _destination,
    "workload": lambda event: " -> ".join(_workload_of(party.who) for party in (event.flow.client, event.flow.server)),
    "protocol": lambda event: event.flow.protocol,
    "verdict": lambda event: event.verdict,
    "sent": lambda event: bytes_text(event.flow.sent),
    "received": lambda event: bytes_text(event.flow.received),
    "retransmits": lambda event: str(event.flow.retransmits),
    "rtt": lambda event: _duration(event.flow.rtt_ns),
    "summary": lambda event: event.summary,
}
