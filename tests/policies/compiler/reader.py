"""Reads the engine's tables as the kernel's program does, in Python: which selectors of a hook are left, and count.

Written from bpf/include/policy/match.h and decide.h, so that tables can be tested without a kernel.
"""

import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from kubectl_gadget.policies.compiler.hooks import CompiledHook, hook_spec
from kubectl_gadget.policies.read.values import signed
from kubectl_gadget.wire.policy_record import Value

_TEST = struct.Struct("<BBHIII")
_SLOT_BYTES = 40
_COMPUTED: dict[int, Callable[..., int]] = {
    **{3: operator.neg, 4: lambda a: (a + (1 << 31)) % (1 << 32) - (1 << 31), 5: lambda a: a % (1 << 32)},
    **{6: operator.invert, 7: operator.not_, 8: operator.add, 9: operator.sub, 10: operator.and_, 11: operator.or_},
    **{12: operator.xor, 13: lambda a, b: bool(a and b), 14: lambda a, b: bool(a or b), 15: operator.eq},
    **{16: operator.ne, 17: operator.lt, 18: operator.le, 19: operator.gt, 20: operator.ge},
}
"""enum policy_operation_code."""
_KEY_SIZES = {"policy_numbers": 16, "policy_prefixes": 260}


class Reader:
    """`values` of a call are in the order of the hook's slots; None could not be read."""

    def __init__(self, hook: CompiledHook, machine_wanted: str = "x86_64") -> None:
        self._hook = hook
        spec = hook_spec(hook)
        self._size = 8 * spec.words
        self._tests = list(_TEST.iter_unpack(_bytes(spec.variables["policy_tests"])))
        slots = _bytes(spec.ways[0].variables["policy_slots"])
        self._spans = [struct.unpack_from("<HH", slots, start + 8) for start in range(0, len(slots), _SLOT_BYTES)]
        self._tables = {
            name: self._table(name, entries)
            for name, _, machine, entries in ((*key.partition("@"), entries) for key, entries in spec.tables.items())
            if machine in ("", machine_wanted)
        }
        self._automata = [
            [int.from_bytes(automaton[at : at + 32], "little") for at in range(0, len(automaton), 32)]
            for automaton in self._tables.get("policy_automata", {}).values()
        ]
        self._guard, self._start = (int.from_bytes(self._tables["policy_masks"][_u32(i)], "little") for i in (0, 1))

    def chosen(self, values: Sequence[Value | None]) -> list[int]:
        """The bits of the selectors that count: of each policy the first that is left."""
        alive = (1 << 8 * self._size) - 1 & ~self._guard
        for value, (first, count) in zip(values, self._spans, strict=True):
            for number in range(first, first + count):
                alive &= self._keep(number, value, values)
        everything = (1 << 8 * self._size) - 1
        lowest = alive & ((~alive & ~self._guard & everything) + self._start)
        return [bit for bit in range(len(self._hook.bits)) if lowest >> bit & 1]

    def _keep(self, number: int, value: Value | None, values: Sequence[Value | None]) -> int:
        plane = self._tables["policy_planes"][_u32(number)]
        negated, unasked = (int.from_bytes(half, "little") for half in (plane[: self._size], plane[self._size :]))
        kind, _, _, first, count, _ = self._tests[number]
        if kind == 11:
            found: int | None = self._expressions(first, count, values)
        else:
            found = None if value is None or value.unreadable else self._found(number, value)
        return unasked if found is None else (found ^ negated) | unasked

    def _found(self, number: int, value: Value) -> int | None:
        kind, part, flags, first, count, first_interval = self._tests[number]
        raw = value.numbers[part] & (1 << 64) - 1 if part < len(value.numbers) else 0
        if kind == 2 and flags & 1:
            raw ^= 1 << 63
        match kind:
            case 1:
                return self._get("policy_numbers", struct.pack("<IIQ", number, 0, raw))
            case 13:
                own = self._get("policy_numbers", struct.pack("<IIQ", number, 0, 1 << 32))
                named = self._get("policy_numbers", struct.pack("<IIQ", number, 0, raw))
                return named | (own if value.numbers[10] >> part & 1 else 0)
            case 2:
                bounds = [self._get("policy_bounds", _u32(first + place), 8) for place in range(count)]
                place = sum(bound <= raw for bound in bounds)
                return self._get("policy_intervals", _u32(first_interval + place))
            case 3:
                return self._patterns(first, count, lambda mask, _: bool(raw & mask))
            case 4:
                return self._longest(number, value.text + b"\0")
            case 5:
                return self._longest(number, value.text[::-1] + b"\0")
            case 10:
                return self._globs(first, count, value.text)
            case 9:
                found = 0
                for program in value.numbers:
                    found |= self._get("policy_numbers", struct.pack("<IIQ", number, 0, program))
                return found
            case 6:
                lower = bytes(value.text).lower()
                return self._patterns(first, count, lambda mask, text: text in (lower if mask else value.text))
        address = value.addresses[part]
        return None if address is None else self._longest(number, _mapped(address))

    def _patterns(self, first: int, count: int, holds: Any) -> int:
        found = 0
        for place in range(first, first + count):
            entry = self._tables["policy_patterns"][_u32(place)]
            mask, length = struct.unpack_from("<QQ", entry)
            if holds(mask, entry[16 : 16 + length]):
                found |= int.from_bytes(entry[272:], "little")
        return found

    def _longest(self, number: int, data: bytes) -> int:
        text = _bits(bytes([number]) + data[:255])
        best, found = -1, 0
        for key, selectors in self._tables.get("policy_prefixes", {}).items():
            length = struct.unpack_from("<I", key)[0]
            if length > best and length <= len(text) and _bits(key[4:])[:length] == text[:length]:
                best, found = length, int.from_bytes(selectors, "little")
        return found

    def _globs(self, first: int, count: int, text: bytes) -> int:
        found = 0
        for place in range(first, first + count):
            entry = self._tables["policy_patterns"][_u32(place)]
            last, number = struct.unpack_from("<QQ", entry)
            states, any, name, *step = self._automata[number]
            for byte in text:
                states = states << 1 & step[byte] | states & (any | (name if byte != ord("/") else 0))
            if states >> last & 1:
                found |= int.from_bytes(entry[272:], "little")
        return found

    def _expressions(self, first: int, count: int, values: Sequence[Value | None]) -> int:
        found = 0
        for place in range(first, first + count):
            entry = self._tables["policy_expressions"][_u32(place)]
            stack: list[int] = []
            known = True
            for at in range(8, 8 + 16 * struct.unpack_from("<Q", entry)[0], 16):
                code, slot, number = entry[at], entry[at + 1], struct.unpack_from("<q", entry, at + 8)[0]
                if code == 1:
                    stack.append(number)
                elif code == 2:
                    value = values[slot]
                    known = known and value is not None
                    stack.append(signed(value.numbers[0]) if value else 0)
                else:
                    count_taken = 1 if code < 8 else 2
                    taken, stack = stack[-count_taken:], stack[:-count_taken]
                    stack.append(signed(_COMPUTED[code](*taken)))
            if known and stack[0]:
                found |= int.from_bytes(entry[1032:], "little")
        return found

    def _get(self, table: str, key: bytes, size: int | None = None) -> int:
        return int.from_bytes(self._tables.get(table, {}).get(key, b""), "little")

    def _table(self, name: str, data: bytes) -> Mapping[bytes, bytes]:
        key = _KEY_SIZES.get(name, 4)
        value = {"policy_planes": 2 * self._size, "policy_patterns": 272 + self._size, "policy_bounds": 8}
        value |= {"policy_automata": 259 * 32, "policy_expressions": 1032 + self._size}
        step = key + {**value, "policy_actions": 40}.get(name, self._size)
        entries = {data[at : at + key]: data[at + key : at + step] for at in range(0, len(data), step)}
        assert len(entries) * step == len(data), f"{name} has a key twice, or half an entry"
        return entries


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _bits(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)


def _mapped(address: IPv4Address | IPv6Address) -> bytes:
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
