"""Static event metadata, so that readers can decode records without the policy.

The client makes one for each selector; agents get those of installed policies as JSON.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Generic, TypeVar

from kubectl_gadget.wire.policy_events.argument_values import argument
from kubectl_gadget.wire.policy_events.event import EventArgument, EventHead, PolicyEvent
from kubectl_gadget.wire.policy_events.policy_record import Found, Value, blocks, function_called
from kubectl_gadget.wire.policy_events.strict_names import system_call

Place = TypeVar("Place")


_LONGEST_ID = 20
"""Bytes of a build ID."""
_HEAD = tuple(one.name for one in fields(EventHead))


@dataclass(frozen=True)
class EventMetadata(EventHead):
    """What the events of one selector have in common, and how the other members are made."""

    arguments: tuple[tuple[str, str], ...] = ()
    """type and label of each argument"""
    data: tuple[tuple[str, str], ...] = ()
    returned: tuple[str, str] | None = None
    system_call: bool = False
    """`function` is a system call, for which the kernel has another name on each architecture"""
    error: int = 0
    """for events at a return: what the function returns if the call was denied; 0: it cannot have been"""
    signal: int = 0
    """for events at a return: the signal that was sent at the call; 0: none"""

    def spec(self) -> dict[str, Any]:
        """The metadata as JSON."""
        return asdict(self)

    def event(self, machine: str, called: str = "", **own: Any) -> PolicyEvent:
        """An event with `own` members, of a node with the architecture `machine`. `called`: the function, for a hook at
        several."""
        function = called or self.function
        symbol = system_call(function, machine) if self.system_call else ""
        common = {name: getattr(self, name) for name in _HEAD}
        return PolicyEvent(**(common | {"function": function, "symbol": symbol} | own))


def read_metadata(value: dict[str, Any]) -> EventMetadata:
    """The metadata from JSON. Raises KeyError or TypeError."""
    returned = value["returned"]
    lists = {
        "tags": tuple(value["tags"]),
        "arguments": tuple((str(type), str(label)) for type, label in value["arguments"]),
        "data": tuple((str(type), str(label)) for type, label in value["data"]),
        "returned": (str(returned[0]), str(returned[1])) if returned else None,
    }
    return EventMetadata(**(value | lists))


@dataclass(frozen=True)
class Match(Generic[Place]):
    """A policy's selector that matched a call."""

    place: Place
    """the selector"""
    values: tuple[Value | None, ...]
    """the values of the hook's arguments, in their order"""
    data: tuple[Value | None, ...]
    """the values of the hook's `data`"""
    returned: Value | None
    called: str
    """for a hook at several functions, the one that was called; else empty"""
    found: Found
    """the record, which has the verdict, the process and everything else that does not depend on the selector"""


Slot = int | None
"""The number of the slot in a record that has a value; None: no value."""


def match_of(
    found: Found, place: Place, values: Sequence[Slot], data: Sequence[Slot], returned: Slot, called: Slot
) -> Match[Place]:
    """The match of the selector `place` in a record, with the values in these slots."""

    def value(slot: Slot) -> Value | None:
        return None if slot is None else found.values.get(slot)

    return Match(
        place,
        tuple(map(value, values)),
        tuple(map(value, data)),
        value(returned),
        function_called(value(called)),
        found,
    )


def make_event(
    description: EventMetadata, matched: Match[Any], tid: int, spell: Callable[[int, int], str], machine: str
) -> PolicyEvent:
    """The event. `spell` describes verdict and signal for people; `machine` is the node's architecture."""
    found, (verdict, signal) = matched.found, _done(description, matched)
    own: dict[str, Any] = {"args": _shown(description.arguments, matched.values, machine)}
    if description.returned is not None and matched.returned is not None:
        own["returned"] = argument(*description.returned, matched.returned, machine)
    if description.hook == "loader":
        own["path"], id = _loaded_file(matched.values)
        own["args"] = (EventArgument("build_id", id),)
    return description.event(
        machine,
        matched.called,
        process=found.exec,
        tid=tid,
        data=_shown(description.data, matched.data, machine),
        blocked=blocks(verdict),
        verdict=spell(verdict, signal),
        credentials=found.caller.credentials,
        namespaces=found.caller.namespaces,
        host_namespaces=found.caller.host_namespaces,
        comm=found.caller.comm,
        ima_hash=found.hash,
        file_id=f"{found.file_id:x}" if found.file_id else "",
        **own,
    )


def _loaded_file(values: Sequence[Value | None]) -> tuple[str, str]:
    """Path, and build ID in hexadecimal, from the values that `spec.loader`'s hook read (policies/read/hooks.py); the
    latter is empty when the file has none."""
    file, size, *parts, _ = values
    assert file
    numbers = [part.numbers[0] if part else 0 for part in parts]
    length = min(size.numbers[0], _LONGEST_ID) if size else 0
    return file.text.decode("utf-8", "backslashreplace"), struct.pack("<QQI", *numbers)[:length].hex()


def _done(description: EventMetadata, matched: Match[Any]) -> tuple[int, int]:
    """Verdict and signal; at a return, those of the call."""
    verdict, returned = matched.found.verdict, matched.returned
    if not verdict and description.error and returned is not None and not returned.unreadable:
        differs = (returned.numbers[0] - description.error) % (1 << 8 * returned.form.size)
        verdict = 0 if differs else description.error
    return verdict, matched.found.signal or description.signal


def _shown(read: Sequence[tuple[str, str]], values: Sequence[Value | None], machine: str) -> tuple[EventArgument, ...]:
    pairs = zip(read, values, strict=True)
    return tuple(argument(type, label, value, machine) for (type, label), value in pairs if value is not None)
