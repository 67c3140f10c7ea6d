"""From the engine's records to what happened: `struct policy_event` of bpf/include/policy/event.h.

One record stands for all policies whose selectors it has, so it gives one `Match` for each of them. The trap: the
record's values are all that any policy reads there; a match has its own hook's arguments only.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from kubectl_gadget.policies.engine.hooks import CompiledHook, Place
from kubectl_gadget.policies.engine.slots import NUMBERS, WITH_ADDRESSES, Flag, Slot

HEAD = 128
"""Bytes of struct policy_event, of which RECORD are struct gadget_record."""
RECORD = 80
_EVENT = struct.Struct("<IiIHHQIIQII")
_VALUE = struct.Struct("<BBH")
_NO_ADDRESS = b"\xff" * 16
_UNREADABLE, _CUT = 1, 2


@dataclass(frozen=True)
class Value:
    """What a slot was read to. What the numbers mean: bpf/include/policy/values.h, at the type's reader."""

    slot: Slot
    numbers: tuple[int, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address | None, ...] = ()
    text: bytes = b""
    unreadable: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Match:
    """A policy's selector that matched a call."""

    place: Place
    values: tuple[Value | None, ...]
    """of the hook's arguments, in their order"""
    returned: Value | None
    verdict: int
    """what the kernel returned instead of going on; 0: nothing"""
    signal: int
    """sent to the process; 0: none"""
    exec: tuple[int, int]
    """of the process: started, pid"""
    parent: tuple[int, int]


def matches(record: bytes | memoryview, hooks: Sequence[CompiledHook]) -> Iterator[Match]:
    """Those of one record."""
    hook_number, verdict, signal, words, count, *who = _EVENT.unpack_from(record, RECORD)
    hook = hooks[hook_number]
    selectors = int.from_bytes(record[HEAD : HEAD + 8 * words], "little")
    values = dict(_values(record, HEAD + 8 * words, count, hook.slots))
    while selectors:
        bit = (selectors & -selectors).bit_length() - 1
        selectors &= selectors - 1
        place = hook.bits[bit]
        if place is None:
            continue
        arguments = hook.arguments[id(place.hook)]
        result = hook.results[id(place.hook)]
        yield Match(
            place,
            tuple(None if slot is None else values.get(slot) for slot in arguments),
            None if result is None else values.get(result),
            verdict,
            signal,
            (who[0], who[1]),
            (who[3], who[4]),
        )


def _values(record: bytes | memoryview, offset: int, count: int, slots: Sequence[Slot]) -> Iterator[tuple[int, Value]]:
    for _ in range(count):
        number, lacks, length = _VALUE.unpack_from(record, offset)
        offset += _VALUE.size
        yield number, _value(slots[number], bytes(record[offset : offset + length]), lacks)
        offset += length


def _value(slot: Slot, data: bytes, lacks: int) -> Value:
    count = NUMBERS.get(slot.type, 0)
    signed = bool(slot.flags & Flag.SIGNED)
    numbers = struct.unpack_from(f"<{count}{'q' if signed else 'Q'}", data)
    place = 8 * count
    addresses: tuple[IPv4Address | IPv6Address | None, ...] = ()
    if slot.type in WITH_ADDRESSES:
        addresses = (_address(data[place : place + 16]), _address(data[place + 16 : place + 32]))
        place += 32
    return Value(slot, numbers, addresses, data[place:], bool(lacks & _UNREADABLE), bool(lacks & _CUT))


def _address(data: bytes) -> IPv4Address | IPv6Address | None:
    if data == _NO_ADDRESS:
        return None
    address = IPv6Address(data)
    return address.ipv4_mapped or address
