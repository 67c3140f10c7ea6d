"""The members of plain events in columns, for expressions: the values that records.record() gives one by one.

The trap: a member of a null, such as `l7.type` of a connection, is an error in CEL, not null. ERRORS has these names.
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from kubectl_gadget.flows.flow import FORWARDED, Who, address_name
from kubectl_gadget.flows.flow_columns import flow_ids
from kubectl_gadget.flows.flow_events import FlowEvents
from kubectl_gadget.flows.plain_flows import Integers, Objects
from kubectl_gadget.flows.records import FLOW, who_members
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.texts import CodedMarks, Nulls, TextLists, Texts
from kubectl_gadget.rows.vectors import Booleans, Mask, Numbers, SomeNumbers, Type, Vector, pick
from kubectl_gadget.wire.policy_events import rfc3339


class PlainMembers:
    """Takes the place of a batch where an expression is evaluated: one row for each plain event, of which there is at
    least one."""

    def __init__(self, events: FlowEvents) -> None:
        self.events, self.plain, self.known = events, events.plain, events.known
        self.slots = events.flows[0]
        """of the connections"""
        self._vectors: dict[str, Vector] = {}

    def __len__(self) -> int:
        return len(self.plain.slot)

    def vector(self, name: str, read: Callable[[Any], Vector]) -> Vector:
        """The member's values; each is read once."""
        if name not in self._vectors:
            self._vectors[name] = read(self)
        return self._vectors[name]

    def of_flow(self, values: list[Any]) -> list[Any]:
        """The value of each event, from those of its connections."""
        return pick(values, self.events.flows[1])

    @cached_property
    def is_close(self) -> Mask:
        found: Mask = self.events.kinds()[0] == 2
        return found

    @cached_property
    def keys(self) -> list[Any]:
        """Of each connection (endpoint_rows.Key)."""
        keys: list[Any] = self.known.key[self.slots].tolist()
        return keys

    @cached_property
    def source(self) -> tuple[Integers, list[dict[str, Any]], list[Who]]:
        """The different owners of the clients' ends: the place of each event's, their members, and they themselves."""
        return self._owners(self.known.client)

    @cached_property
    def destination(self) -> tuple[Integers, list[dict[str, Any]], list[Who]]:
        """The same for the servers' ends."""
        return self._owners(self.known.server)

    def _owners(self, of_slots: Objects) -> tuple[Integers, list[dict[str, Any]], list[Who]]:
        slots, events = self.events.flows
        found, places = dict[int, Who](), dict[int, int]()
        codes = []
        for who in of_slots[slots].tolist():
            found[id(who)] = who
            codes.append(places.setdefault(id(who), len(places)))
        owners = list(found.values())
        return np.array(codes, np.int64)[events], [who_members(who, "") for who in owners], owners


def _count(members: PlainMembers, name: str) -> Vector:
    return Numbers(getattr(members.known, name)[members.plain.slot])


def _seen_by(members: PlainMembers) -> Vector:
    known, slot = members.known, members.plain.slot
    sides = zip(known.by_client[slot].tolist(), known.by_server[slot].tolist(), strict=True)
    return TextLists([["client"] * client + ["server"] * server for client, server in sides])


def _of_owner(members: PlainMembers, end: str, name: str, type: Type) -> Vector:
    codes, owners, _ = getattr(members, end)
    values = [owner[name] for owner in owners]
    if type == "text":
        return CodedMarks(codes, values)
    if type == "texts":
        return TextLists(pick(values, codes))
    known = np.array([value is not None for value in values], np.bool_)
    return SomeNumbers(np.array([value or 0 for value in values], np.int64)[codes], known[codes])


def _ip(members: PlainMembers, end: str) -> Vector:
    return Texts(lambda: members.of_flow([key[_PLACES[end]] for key in members.keys]), len(members))


def _port(members: PlainMembers, end: str) -> Vector:
    return Numbers(np.array(members.of_flow([key[_PLACES[end] + 1] for key in members.keys]), np.int64))


def _name(members: PlainMembers, end: str) -> Vector:
    """An end without a name has its address."""
    codes, _, owners = getattr(members, end)

    def read() -> list[str | None]:
        ips = members.of_flow([key[_PLACES[end]] for key in members.keys])
        names = pick([owner.name for owner in owners], codes)
        return [name or address_name(ip) for name, ip in zip(names, ips, strict=True)]

    return Texts(read, len(members))


_PLACES = {"source": 2, "destination": 4}
"""of an end's address in a key; its port follows"""


def _members() -> dict[str, Member]:
    found: dict[str, tuple[Type, Callable[[PlainMembers], Vector]]] = {
        "timestamp": ("text", lambda of: Texts(lambda: list(map(rfc3339, of.plain.time_ns.tolist())), len(of))),
        "node": ("text", lambda of: CodedMarks(of.plain.node, of.plain.nodes)),
        "kind": ("text", lambda of: CodedMarks(*of.events.kinds())),
        "verdict": ("text", lambda of: CodedMarks(np.zeros(len(of), np.int64), [FORWARDED])),
        "protocol": ("text", lambda of: CodedMarks(np.zeros(len(of), np.int64), ["TCP"])),
        "direction": ("text", lambda of: CodedMarks(of.plain.is_client.astype(np.int64), ["INGRESS", "EGRESS"])),
        "is_reply": ("bool", lambda of: Booleans(np.zeros(len(of), np.bool_))),
        "summary": ("text", lambda of: Texts(lambda: list(of.events.summaries()), len(of))),
        "error": ("text", lambda of: CodedMarks(np.where(of.is_close, of.plain.error + 1, 0), ["", *of.plain.errors])),
        "duration": ("int", lambda of: SomeNumbers(of.plain.duration, of.is_close & (of.plain.duration >= 0))),
        "rtt": ("int", lambda of: SomeNumbers(rtt := of.known.rtt[of.plain.slot], rtt >= 0)),
        "flow_id": ("text", lambda of: Texts(lambda: of.of_flow(flow_ids(of.known, of.slots)), len(of))),
        "flow_began": (
            "text",
            lambda of: Texts(lambda: of.of_flow(list(map(rfc3339, of.known.first_ns[of.slots].tolist()))), len(of)),
        ),
        "seen_by": ("texts", _seen_by),
    }
    for name in ("sent", "received", "sent_packets", "received_packets", "retransmits"):
        found[name] = "int", partial(_count, name=name)
    for name in ("drop_reason", *_NULLS):
        found[name] = "text", lambda members: Nulls(len(members))
    for end in _PLACES:
        found[f"{end}.ip"] = "text", partial(_ip, end=end)
        found[f"{end}.port"] = "int", partial(_port, end=end)
        found[f"{end}.name"] = "text", partial(_name, end=end)
        for name, shape in (FLOW[end].members or {}).items():
            type = _TYPES.get(shape.name)
            if type and f"{end}.{name}" not in found:
                found[f"{end}.{name}"] = type, partial(_of_owner, end=end, name=name, type=type)
    return {name: Member(name, type, read) for name, (type, read) in found.items()}  # type: ignore[arg-type]


_NULLS = ("backend", "l7", "denied_by")
_TYPES: dict[str, Type] = {"int": "int", "text": "text", "list": "texts"}
"""By the names of shapes; a list is one of texts."""
MEMBERS = _members()
ERRORS = {f"{name}.{inner}": MEMBERS[name] for name in _NULLS for inner in FLOW[name].members or {}}
