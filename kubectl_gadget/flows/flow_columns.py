"""Lines of JSON and of CSV from the events of a chunk: those of plain connections in columns.

The trap: a line depends on the connection's present state, and is made when it is taken. So all lines are written
before the next chunk is joined. They are taken in blocks, since the text of a whole chunk would not stay in the CPU's
caches.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from json.encoder import encode_basestring as quoted
from operator import attrgetter
from typing import Any

import numpy as np

from kubectl_gadget.flows.flow import FORWARDED, Flow, FlowEvent, Party, Who
from kubectl_gadget.flows.flow_events import FlowEvents
from kubectl_gadget.flows.plain_flows import Integers, PlainConnections
from kubectl_gadget.flows.records import DENIED_BY, SEEN_BY, lines, record, who_members, who_text
from kubectl_gadget.output.columns import JoinedColumns
from kubectl_gadget.output.escape import csv_line, json_line
from kubectl_gadget.output.machine import csv_cell
from kubectl_gadget.output.row_texts import LATE
from kubectl_gadget.rows.amounts import Timestamps
from kubectl_gadget.rows.community_id import community_id, tcp_ids
from kubectl_gadget.rows.vectors import Mask, Numbers, pick

_AT_ONCE = 256
"""lines of a block"""


def json_blocks(events: Sequence[FlowEvent]) -> Iterator[str]:
    """The events as lines of JSON (records.py), in blocks of many lines."""
    if not isinstance(events, FlowEvents):
        return _blocks(iter(lines(events)))
    return _blocks(_merged(events, _json_lines(events), lines(events.others)))


def csv_blocks(events: Sequence[FlowEvent], escaped: bool) -> Iterator[str]:
    """The same as lines of CSV: the members of JSON; those of an end are named `source.pod` and so on, and are empty
    where there is no value."""
    if not isinstance(events, FlowEvents):
        return _blocks(csv_line(flat(event, escaped).values())[:-1] for event in events)
    others = [csv_line(flat(event, escaped).values())[:-1] for event in events.others]
    return _blocks(_merged(events, _csv_lines(events, escaped), others))


def csv_header() -> str:
    """The names of the columns, as a line of CSV."""
    party = Party("0.0.0.0", 0)
    return csv_line(flat(FlowEvent(0, "", "new", Flow("TCP", party, party, True, 0), FORWARDED, ""), False))


def flat(event: FlowEvent, escaped: bool) -> dict[str, Any]:
    """The cells of CSV by the names of their columns. `escaped`: for a terminal."""
    found, cells = record(event), dict[str, Any]()
    inner = {"source": (), "destination": (), "backend": found["source"], "denied_by": DENIED_BY}
    late = found.pop(LATE, "")
    for name, value in found.items():
        if name in inner:
            parts = value or dict.fromkeys(inner[name])
            cells |= {f"{name}.{part}": csv_cell(text, escaped) for part, text in parts.items()}
        else:
            cells[name] = csv_cell(value, escaped)
    return cells | {LATE: csv_cell(late, escaped)}


def _blocks(each: Iterator[str]) -> Iterator[str]:
    while block := list(islice(each, _AT_ONCE)):
        block.append("")
        yield "\n".join(block)


def _merged(events: FlowEvents, plain: Iterator[str], others: Sequence[str]) -> Iterator[str]:
    """The lines of plain events and of the others, in the order of the events."""
    if not others:
        return plain
    return _between(plain, np.searchsorted(events.plain.position, events.positions).tolist(), others)


def _between(plain: Iterator[str], places: Sequence[int], others: Sequence[str]) -> Iterator[str]:
    """Yields all lines; each of the `others` comes after as many plain ones as `places` says."""
    taken = 0
    for place, other in zip(places, others, strict=True):
        yield from islice(plain, place - taken)
        yield other
        taken = place
    yield from plain


def _json_lines(events: FlowEvents) -> Iterator[str]:
    """Lines of the plain events: by column first, then combined."""
    plain, (slots, places) = events.plain, events.flows
    if not len(places):
        return iter(())
    known, (codes, kinds) = events.known, events.kinds()
    errors = list(map(quoted, plain.errors))
    ends, printable = _ends(known, slots, _JSON_ENDS, _json_of)
    joined = JoinedColumns(len(places))
    template, lists = Timestamps(plain.time_ns).pieces()
    joined.each('{"timestamp": "' + template + '", "node": ', lists)
    joined.few(plain.node, list(map(quoted, plain.nodes)))
    joined.text(', "kind": "')
    joined.few(codes, kinds)
    joined.text('", "verdict": "FORWARDED", "protocol": "TCP", "direction": "')
    joined.few(plain.is_client.astype(np.intp), ("INGRESS", "EGRESS"))
    joined.text('", "is_reply": false, ')
    joined.texts(pick(ends, places))
    joined.texts(events.summaries())
    joined.text('", "error": ')
    joined.few(np.where(codes == 2, plain.error + 1, 0), ['""', *errors])
    joined.text(', "drop_reason": null, "duration": ')
    joined.texts(_durations(events, "null"))
    numbers = _numbers(known, slots, _JSON_NUMBERS, "null", SEEN_BY)
    joined.texts(pick(numbers, places))
    fine = printable[places]
    for code, texts in ((plain.node, plain.nodes), (plain.error, errors)):
        fine &= np.array(list(map(str.isprintable, texts)), np.bool_)[code]
    unprintable = np.flatnonzero(~fine).tolist()
    if not unprintable:
        return joined.each_row()
    rows = joined.rows()
    for place in unprintable:  # then the whole line is escaped
        rows[place] = json_line(record(events.one(place)))
    return iter(rows)


def _csv_lines(events: FlowEvents, escaped: bool) -> Iterator[str]:
    """As _json_lines()."""
    plain, (slots, places) = events.plain, events.flows
    if not len(places):
        return iter(())
    known, (codes, kinds) = events.known, events.kinds()
    cell = _Cell(escaped)
    ends, _ = _ends(known, slots, _CSV_ENDS, cell.of_all)
    joined = JoinedColumns(len(places))
    template, lists = Timestamps(plain.time_ns).pieces()
    joined.each(template + ",", lists)
    joined.few(plain.node, list(map(cell, plain.nodes)))
    joined.text(",")
    joined.few(codes, kinds)
    joined.text(",FORWARDED,TCP,")
    joined.few(plain.is_client.astype(np.intp), ("INGRESS", "EGRESS"))
    joined.text(",false,")
    # Summaries have no quotes, and only commas have to be quoted.
    summaries = [f'"{text}"' if "," in text else text for text in events.summaries()]
    joined.texts(pick(ends, places))
    joined.texts(summaries)
    joined.text(",")
    joined.few(np.where(codes == 2, plain.error + 1, 0), ["", *map(cell, plain.errors)])
    joined.text(",,")
    joined.texts(_durations(events, ""))
    seen_by = {sides: cell(text) for sides, text in SEEN_BY.items()}
    joined.texts(pick(_numbers(known, slots, _CSV_NUMBERS, "", seen_by), places))
    return joined.each_row()


class _Cell:
    """Cells of CSV."""

    def __init__(self, escaped: bool) -> None:
        self._escaped = escaped

    def __call__(self, value: Any) -> str:
        # A second cell, since an empty one alone is quoted.
        return csv_line([csv_cell(value, self._escaped), ""])[:-2]

    def of_all(self, whos: Sequence[Who], ips: Sequence[str]) -> tuple[list[str], Mask]:
        """The members of ends after address and port."""
        return list(map(self._of, whos, ips)), np.ones(len(whos), np.bool_)

    def _of(self, who: Who, ip: str) -> str:
        kept = who.cached_cells
        if kept is None or kept[1] != self._escaped:
            cells = [csv_cell(value, self._escaped) for value in who_members(who, ip).values()]
            kept = csv_line(cells)[:-1], self._escaped
            if who.name:  # else the text contains the address
                who.cached_cells = kept
        return kept[0]


def _json_of(whos: Sequence[Who], ips: Sequence[str]) -> tuple[list[str], Mask]:
    texts, fine = list(map(_cached_text, whos)), np.ones(len(whos), np.bool_)
    if not all(texts):
        for place in [place for place, text in enumerate(texts) if not text]:
            texts[place], fine[place] = who_text(whos[place], ips[place])
    return texts, fine


_cached_text: Callable[[Who], str] = attrgetter("cached_text")


def _ends(
    known: PlainConnections,
    slots: Integers,
    templates: Sequence[str],
    texts: Callable[[Sequence[Who], Sequence[str]], tuple[list[str], Mask]],
) -> tuple[list[str], Mask]:
    """The text of both ends of each connection, and whether it can be printed as it is. `texts`: those of owners after
    their addresses and ports, and whether they can be printed as they are."""
    _, _, client_ips, client_ports, server_ips, server_ports = zip(*known.key[slots].tolist(), strict=True)
    clients, client_fine = texts(known.client[slots].tolist(), client_ips)
    servers, server_fine = texts(known.server[slots].tolist(), server_ips)
    joined = JoinedColumns(len(slots))
    joined.each(templates[0], [client_ips, client_ports])
    joined.texts(clients)
    joined.each(templates[1], [server_ips, server_ports])
    joined.texts(servers)
    joined.text(templates[2])
    return joined.rows(), client_fine & server_fine


def _numbers(
    known: PlainConnections, slots: Integers, templates: Sequence[str], none: str, seen_by: dict[tuple[bool, bool], str]
) -> list[str]:
    """The numbers of each connection, its ID, when it began, and who saw it. `none`: what stands for null."""
    ids = flow_ids(known, slots)
    rtts = [none if rtt < 0 else str(rtt) for rtt in known.rtt[slots].tolist()]
    joined = JoinedColumns(len(slots))
    joined.text(templates[0])
    joined.texts(rtts)
    for name, before in zip(_COUNTS, templates[1:-2], strict=True):
        numbers = Numbers(getattr(known, name)[slots])
        joined.text(before)
        few = numbers.few()
        joined.few(*few) if few else joined.each(*numbers.json())
    began, lists = Timestamps(known.first_ns[slots]).pieces()
    joined.each(templates[-2] % began, [ids, *lists])
    sides = [seen_by[client, server] for client in (False, True) for server in (False, True)]
    joined.few(known.by_client[slots] * 2 + known.by_server[slots], [templates[-1] % side for side in sides])
    return joined.rows()


def flow_ids(known: PlainConnections, slots: Integers) -> list[str]:
    """Flow.id of each connection."""
    ids: list[str] = known.id[slots].tolist()
    if not all(ids):
        clients, servers = known.client_v4[slots], known.server_v4[slots]
        if clients.all() and servers.all():
            ids = tcp_ids(clients, servers)
        else:
            ids = [community_id("TCP", key[2:4], key[4:]) for key in known.key[slots].tolist()]
        known.id[slots] = np.fromiter(ids, object, len(ids))
    return ids


_COUNTS = ("sent", "received", "sent_packets", "received_packets", "retransmits")


def _durations(events: FlowEvents, none: str) -> list[str]:
    plain, (codes, _) = events.plain, events.kinds()
    durations: list[int] = np.where(codes == 2, plain.duration, -1).tolist()
    return [none if duration < 0 else str(duration) for duration in durations]


_JSON_ENDS = (
    '"source": {"ip": "%s", "port": %d, ',
    ', "destination": {"ip": "%s", "port": %d, ',
    ', "backend": null, "summary": "',
)
_JSON_NUMBERS = (
    ', "rtt": ',
    *(f', "{name}": ' for name in _COUNTS),
    ', "flow_id": "%%s", "flow_began": "%s", ',
    '"seen_by": %s, "l7": null, "denied_by": null}',
)
_CSV_ENDS = ("%s,%d,", ",%s,%d,", "," * (len(who_members(Who(), "")) + 3))
"""the members of the backend are those of an end, and empty"""
_CSV_NUMBERS = (",", *("," for _ in _COUNTS), ",%%s,%s,", "%s,,,,,")
