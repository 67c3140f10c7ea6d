"""Events of flows as rows of one gadget: each row is a FlowEvent, and its members read the event.

So filters, conditions and the formats of any gadget apply to flows. JSON has the ends of a flow as objects (`source`),
CSV has a column for each of their members (`source.pod`), and filters can read both. Note: a member shows the flow as
it is when the row is read, not as it was at the time of the event.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from kubectl_gadget.flows.flow import FlowEvent, Party
from kubectl_gadget.flows.records import DENIED_BY, FLOW, PARTY, denial_members, direction, end_members, end_text
from kubectl_gadget.gadgets.schema import About, Column, Field, Gadget, RecordLayout
from kubectl_gadget.output.row_texts import LATE
from kubectl_gadget.rows.amounts import Timestamps
from kubectl_gadget.rows.batch import Batch, Buffer, Origins
from kubectl_gadget.rows.kinds import Kind, Member, ObjectField
from kubectl_gadget.rows.texts import TextLists, Texts
from kubectl_gadget.rows.vectors import Booleans, Numbers, Objects, SomeNumbers, Type, Vector

_EVENT = Field("flow_event", 0, 0, "flow_event")
"""Not in the record: holds the FlowEvent of each row."""
_RECORD = 8
"""bytes of a record, which is the time alone; its header has as many"""
_TYPES: dict[str, Type] = {"int": "int", "text": "text", "list": "texts", "bool": "bool"}
"""By the names of shapes; a list is one of texts. All other values are objects."""

Value = Callable[[FlowEvent], object]


def batch_of(events: Sequence[FlowEvent]) -> Batch:
    """Return one batch with these events."""
    count = len(events)
    words = np.empty((count, 2), np.int64)
    words[:, 0] = _RECORD
    words[:, 1] = [event.time_ns for event in events]
    starts = np.arange(count) * (2 * _RECORD) + _RECORD
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(event.node, len(numbers)) for event in events], np.intp)
    origins = Origins(codes, list(numbers), np.zeros(count, np.int64))
    batch = Batch(GADGET, "", Buffer(words.tobytes()), starts, origins=origins)
    objects = np.empty(count, object)
    objects[:] = events
    batch.give(_EVENT.name, objects)
    late = np.array([event.late for event in events], np.bool_)
    if late.any():
        batch.late = late
    return batch


def events_of(batch: Batch) -> list[FlowEvent]:
    """Return the events of a batch of these rows."""
    found: list[FlowEvent] = batch.raw(_EVENT).tolist()
    return found


def _vector(type: Type, values: list[Any]) -> Vector:
    match type:
        case "text":
            return Texts(lambda: values, len(values))
        case "texts":
            return TextLists(values)
        case "bool":
            return Booleans(np.array(values, np.bool_))
        case "int" if None not in values:
            return Numbers(np.array(values, np.int64))
        case "int":
            known = np.array([value is not None for value in values], np.bool_)
            return SomeNumbers(np.array([value or 0 for value in values], np.int64), known)
    return Objects(values)


def _member(name: str, value: Value) -> Member:
    """A member with a value for each event, by the shape of this name in FLOW."""
    shape = FLOW[name]
    type = _TYPES.get(shape.name, "object")
    return Member(
        name,
        type,
        lambda batch: _vector(type, list(map(value, events_of(batch)))),
        names=tuple(shape.names),
        shape=shape if type == "object" else None,
    )


# The ends of flows, and other objects.


End = Callable[[FlowEvent], Party | None]


def _end(name: str, end: End) -> Member:
    def read(batch: Batch) -> Vector:
        parties = list(map(end, events_of(batch)))
        return _Ends(parties)

    return Member(name, "object", read, shape=FLOW[name])


class _Ends(Objects):
    """Ends of flows. A reader needs them either as objects or as JSON."""

    def __init__(self, parties: list[Party | None]) -> None:
        super().__init__([])
        self._parties = parties

    def __len__(self) -> int:
        return len(self._parties)

    def values(self) -> list[object]:
        return [party and end_members(party) for party in self._parties]

    def json(self) -> tuple[str, tuple[list[object], ...]]:
        return "%s", (["null" if party is None else end_text(party) for party in self._parties],)


def _inner(outer: Member, name: str) -> Member:
    """A member of an object, `source.pod`. Where the object may be null, a member of it is an error in CEL, which only
    an evaluation row by row can say: so it is of no type that whole columns are compared by."""
    shape = (FLOW[outer.name].members or {})[name]
    type = _TYPES.get(shape.name, "object") if outer.name in _ALWAYS else "object"

    def read(batch: Batch) -> Vector:
        records = batch.vector(f"{outer.name} as objects", lambda batch: Objects(outer.read(batch).values())).values()
        return _vector(type, [None if found is None else found[name] for found in records])

    return Member(f"{outer.name}.{name}", type, read)


_ALWAYS = ("source", "destination")
"""Objects that no event lacks."""
_OBJECTS = (
    _end("source", lambda event: event.flow.client),
    _end("destination", lambda event: event.flow.server),
    _end("backend", lambda event: event.flow.backend),
    _member("denied_by", lambda event: denial_members(event.denial) if event.denial else None),
)
_SEEN_BY = {
    (False, False): [],
    (True, False): ["client"],
    (False, True): ["server"],
    (True, True): ["client", "server"],
}
_MEMBERS = {
    member.name: member
    for member in (
        Member("timestamp", "text", lambda batch: Timestamps(batch.raw("timestamp"))),
        _member("node", attrgetter("node")),
        _member("kind", attrgetter("kind")),
        _member("verdict", attrgetter("verdict")),
        _member("protocol", attrgetter("flow.protocol")),
        _member("direction", direction),
        _member("is_reply", attrgetter("is_reply")),
        *_OBJECTS[:3],
        _member("summary", attrgetter("summary")),
        _member("error", attrgetter("errno")),
        _member("drop_reason", lambda event: event.drop_reason or None),
        _member("duration", attrgetter("duration_ns")),
        _member("rtt", attrgetter("flow.rtt_ns")),
        _member("sent", attrgetter("flow.sent")),
        _member("received", attrgetter("flow.received")),
        _member("sent_packets", attrgetter("flow.sent_packets")),
        _member("received_packets", attrgetter("flow.received_packets")),
        _member("retransmits", attrgetter("flow.retransmits")),
        _member("flow_id", attrgetter("flow.id")),
        Member(
            "flow_began",
            "text",
            lambda batch: Timestamps(np.array([event.flow.first_ns for event in events_of(batch)], np.int64)),
        ),
        _member("seen_by", lambda event: _SEEN_BY[event.flow.by_client, event.flow.by_server]),
        _member("l7", attrgetter("l7")),
        _OBJECTS[3],
    )
}
MEMBERS = tuple(_MEMBERS)
"""The members of JSON, in their order."""
_INNER = {
    outer.name: [_inner(outer, name) for name in (DENIED_BY if outer.name == "denied_by" else PARTY)]
    for outer in _OBJECTS
}
_LATE = Member(
    LATE,
    "bool",
    lambda batch: Booleans(np.zeros(len(batch), np.bool_) if batch.late is None else batch.late),
    optional=True,
)
FLAT_MEMBERS = tuple(
    inner
    for name in (*MEMBERS, LATE)
    for inner in ([member.name for member in _INNER[name]] if name in _INNER else [name])
)
"""The same with the members of ends in place of the ends, and the mark of late rows: the columns of CSV."""


def _field(member: Member) -> str:
    """A name that is none of the names of a row's container, such as `node`."""
    return f"event_{member.name.replace('.', '_')}"


def _kind(member: Member) -> Kind:
    return Kind(lambda column, field: (member,), lambda batch, field: list(map(str, member.read(batch).values())))


_ALL = [*_MEMBERS.values(), *(member for members in _INNER.values() for member in members), _LATE]
GADGET = Gadget(
    "flows",
    ("flows",),
    About("network", "Who talks to whom"),
    RecordLayout(
        "flow",
        _RECORD,
        (
            Field("timestamp", 0, _RECORD, "gadget_timestamp"),
            *(ObjectField(_field(member), 0, 0, "flow_event", kind=_kind(member)) for member in _ALL),
        ),
    ),
    tuple(Column(member.name, member.name.upper(), _field(member), "", show="json") for member in _ALL),
)
