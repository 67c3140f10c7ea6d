"""A flow event as a line for people: the cells of our table, and Hubble's compact and dict formats.

The trap: names come from containers and from the network; every text is escaped before it is printed.
"""

from collections.abc import Callable, Sequence

from kubectl_gadget.flows.flow import DROPPED, ERROR, FORWARDED, FlowEvent, Party, Who, address_name
from kubectl_gadget.flows.flow_events import FlowEvents
from kubectl_gadget.flows.plain_flows import Objects
from kubectl_gadget.output.columns import Heading
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.terminal import RED
from kubectl_gadget.rows.amounts import Timestamps, bytes_text, duration_text
from kubectl_gadget.rows.members import LATE_MARK
from kubectl_gadget.rows.texts import Memo
from kubectl_gadget.rows.vectors import pick

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
    if isinstance(events, FlowEvents):
        others = columns(events.others, headings)
        plain = [_plain_cells(events, heading.name) for heading in headings]
        return [events.merged(*both) for both in zip(plain, others, strict=True)]
    return [list(map(_CELLS[heading.name], events)) for heading in headings]


def _plain_cells(events: FlowEvents, name: str) -> Sequence[str]:
    known, plain, (slots, places) = events.known, events.plain, events.flows
    match name:
        case "time":
            return [text[11:23] for text in Timestamps(plain.time_ns).values()]
        case "node":
            return pick(plain.nodes, plain.node)
        case "protocol":
            return ["TCP"] * len(places)
        case "verdict":
            return [FORWARDED] * len(places)
        case "summary":
            return events.summaries()
        case "source":
            texts = _named(known.client[slots], known.key[slots], 2)
        case "destination":
            texts = _named(known.server[slots], known.key[slots], 4)
        case "workload":
            sides = (map(_workload_of, of_side[slots].tolist()) for of_side in (known.client, known.server))
            texts = list(map("%s -> %s".__mod__, zip(*sides, strict=True)))
        case "rtt":
            texts = [_duration(None if rtt < 0 else rtt) for rtt in known.rtt[slots].tolist()]
        case "retransmits":
            texts = list(map(str, known.retransmits[slots].tolist()))
        case _:
            texts = list(map(Memo(bytes_text).__getitem__, getattr(known, name)[slots].tolist()))
    return pick(texts, places)


def _named(whos: Objects, keys: Objects, at: int) -> list[str]:
    """_source() or _destination() of plain connections: of the end whose address is at this place of their keys."""
    known: dict[tuple[int, str], tuple[str, str]] = {}
    found = []
    for who, key in zip(whos.tolist(), keys.tolist(), strict=True):
        texts = known.get((id(who), key[at]))
        if texts is None:
            process = f" ({who.process})" if who.process else ""
            texts = known[id(who), key[at]] = who.name or address_name(key[at]), process
        port = f":{key[5]}" if key[5] else ""
        found.append(texts[0] + texts[1] if at == 2 else f"-> {texts[0]}{port}{texts[1]}")
    return found


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
