"""Compiles filters into the tests of the engine: the slot, how to look at it, and entries of lookup tables, which map a
value to a set of selectors.

Texts with wildcards become automata, and expressions a postfix form; the structs are those of
bpf/include/policy/memory.h. Patterns are matched byte by byte, so `?` and `[…]` match one byte, not one
character.
"""

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.slots import WITH_TEXT, Slot, SlotFlag, task_slot
from kubectl_gadget.policies.language import MACHINES, glob_bytes, glob_parts, number_on
from kubectl_gadget.policies.model import (
    CAPABILITY_SETS,
    HOST_NAMESPACE,
    NAMESPACES,
    HookFilter,
    Range,
    SystemCall,
    Value,
)
from kubectl_gadget.policies.read.values import ArgumentValue, Expression, Number, parse_expression
from kubectl_gadget.wire.policy_record import WITH_ADDRESSES, Type

# Patterns with wildcards as automata, `struct policy_automaton` of bpf/include/policy/memory.h.
#
# A pattern is a sequence of places. Each place consumes one byte of a set of bytes; before a place, and at the end,
# other bytes may be skipped. The kernel keeps the places reached so far as bits, so that several patterns share one
# automaton. Patterns are matched byte by byte, so `?` and `[…]` match one byte, not one character.

BITS = 256
"""POLICY_GLOB_WORDS of bpf/include/policy/memory.h, times 64."""
_BYTES = BITS // 8


@dataclass
class Automaton:
    """Sets of places, as bits. `step` maps a byte to the places that it leads to."""

    used: int = 0
    start: int = 0
    any: int = 0
    name: int = 0
    step: dict[int, int] = field(default_factory=dict)

    def add(self, parts: list[str]) -> int:
        """Adds a pattern and returns the number of its last place."""
        place = self.used
        self.start |= 1 << place
        for part in parts:
            if part == "**":
                self.any |= 1 << place
            elif part == "*":
                self.name |= 1 << place
            else:
                place += 1
                for byte in glob_bytes(part):
                    self.step[byte] = self.step.get(byte, 0) | 1 << place
        self.used = place + 1
        return place

    def encode(self) -> bytes:
        """The bytes of `struct policy_automaton`."""
        sets = (self.start, self.any, self.name, *(self.step.get(byte, 0) for byte in range(256)))
        return b"".join(each.to_bytes(_BYTES, "little") for each in sets)


def fits(pattern: str) -> bool:
    """Return True if one automaton can hold the pattern."""
    return _places(glob_parts(pattern)) <= BITS


def automata(patterns: Mapping[bytes, int], first: int) -> tuple[list[Automaton], list[tuple[int, int, int]]]:
    """Automata numbered from `first`; and for each pattern the number of its automaton, its last place there, and its
    selectors."""
    made: list[Automaton] = []
    placed = []
    for pattern, selectors in patterns.items():
        parts = glob_parts(pattern.decode("utf-8", "surrogateescape"))
        if not made or made[-1].used + _places(parts) > BITS:
            made.append(Automaton())
        placed.append((first + len(made) - 1, made[-1].add(parts), selectors))
    return made, placed


def _places(parts: list[str]) -> int:
    return 1 + sum(part not in ("*", "**") for part in parts)


# Compiles filters into the engine's lookup tables, which map a value to a set of selectors.
#
# Every selector of a hook is one bit. A set of selectors is an int here and an array of 64-bit words in the kernel. A
# *test* looks at one part of one slot in one way and yields the set of selectors whose filter holds. Filters that
# look at the same part in the same way share a test, so that one lookup serves a thousand selectors. Two such filters
# of one selector need two tests, since both have to hold. An entry of a prefix table has to include the
# selectors of all shorter entries, since the kernel finds only the longest match.


MOST_TESTS, MOST_WORDS = 64, 64
PATTERN_BYTES, KEY_BYTES = 256, 255
LONGEST_TEXT = KEY_BYTES - 1
"""The longest text that a table can hold, in bytes; one more byte is needed for the NUL that ends a text."""
BIASED, FILE_TYPE = 1, 2
_BIAS, _WORD = 1 << 63, (1 << 64) - 1
_Text = TypeVar("_Text", bytes, str)
_TEST = struct.Struct("<BBHIII")


class TestClass(IntEnum):
    """enum policy_class."""

    __test__ = False  # pytest must not collect this

    IN_SET = 1
    IN_INTERVAL = 2
    MASK = 3
    PREFIX = 4
    POSTFIX = 5
    SUBSTRING = 6
    NETWORK = 7
    DESCENDS = 8
    RAN = 9
    GLOB = 10
    COMPUTED = 11
    SAME_FILE = 12
    IN_NAMESPACE = 13


@dataclass(frozen=True)
class Look:
    """The subject and the operation of a test. `part` is the index of a number or of an address within the slot's
    value."""

    kind: TestClass
    part: int = 0
    flags: int = 0


@dataclass
class Test:
    """A look at a slot, shared by several selectors. `entries` maps each value that the kernel looks up to
    selectors."""

    __test__ = False

    look: Look
    selectors: int = 0
    negated: int = 0
    entries: dict["Entry", int] = field(default_factory=dict)


Entry = int | bytes | tuple[int, int] | str | SystemCall
"""A number, a text, an interval with both ends, a network as a string of bits, or a system call, whose number depends
on the architecture."""


def add_filter(
    tests: list[Test], first: int, selector: int, look: Look, entries: Iterable[Entry], negated: bool
) -> None:
    """Adds one filter of `selector` to the tests of a hook, on the slot whose tests begin at number `first`: all
    filters of one slot are added before the next slot's. Raises ValueError, with a message for users, when there are
    too many tests."""
    bit = 1 << selector
    test = next((test for test in tests[first:] if test.look == look and not test.selectors & bit), None)
    if test is None:
        if len(tests) == MOST_TESTS:
            raise ValueError(f"more than {MOST_TESTS} different tests on one hook")
        test = Test(look)
        tests.append(test)
    test.selectors |= bit
    if negated:
        test.negated |= bit
    for entry in entries:
        test.entries[entry] = test.entries.get(entry, 0) | bit


class Encoded:
    """`tests` is the array of struct policy_test; `tables` maps the name of a BPF map to its keys and values,
    alternating."""

    def __init__(self, tests: list[Test], bits: int) -> None:
        self.words = max(1, (bits + 63) // 64)
        if self.words > MOST_WORDS:
            raise ValueError(f"{bits} selectors on one hook; at most {64 * MOST_WORDS} are supported")
        self._all = (1 << 64 * self.words) - 1
        self._tables: dict[str, list[bytes]] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._calls: list[tuple[int, SystemCall, int]] = []
        self.files: list[tuple[int, bytes, bytes]] = []
        """files to look up by path: the number of the test, the path, the set of selectors"""
        self._bounds = self._intervals = self._patterns = self._automata = self._expressions = 0
        self.tests = b"".join(self._test(number, test) for number, test in enumerate(tests))
        self.tests = self.tests.ljust(_TEST.size * MOST_TESTS, b"\0")
        self.tables = {name: b"".join(entries) for name, entries in self._tables.items()} | self._number_tables()

    def set(self, selectors: int) -> bytes:
        """A set of selectors in the kernel's layout."""
        return (selectors & self._all).to_bytes(8 * self.words, "little")

    def _put(self, table: str, key: bytes, value: bytes) -> None:
        self._tables.setdefault(table, []).append(key + value)

    def _test(self, number: int, test: Test) -> bytes:
        self._put("policy_planes", _u32(number), self.set(test.negated) + self.set(~test.selectors))
        first, count, first_interval = 0, 0, 0
        match test.look.kind:
            case TestClass.IN_SET | TestClass.IN_NAMESPACE | TestClass.DESCENDS | TestClass.RAN:
                for value, selectors in test.entries.items():
                    if isinstance(value, SystemCall):
                        self._calls.append((number, value, selectors))
                    elif isinstance(value, int):
                        self._numbers[number, value & _WORD] = selectors
            case TestClass.IN_INTERVAL:
                first, first_interval = self._bounds, self._intervals
                count = self._spread(test)
            case TestClass.MASK | TestClass.SUBSTRING:
                first, count = self._patterns, len(test.entries)
                self._list(test)
            case TestClass.SAME_FILE:
                self.files += [
                    (number, entry, self.set(bits)) for entry, bits in test.entries.items() if isinstance(entry, bytes)
                ]
            case TestClass.GLOB:
                first, count = self._patterns, len(test.entries)
                self._globs(test)
            case TestClass.COMPUTED:
                first, count = self._expressions, len(test.entries)
                for entry, selectors in test.entries.items():
                    assert isinstance(entry, bytes)
                    self._put("policy_expressions", _u32(self._expressions), entry + self.set(selectors))
                    self._expressions += 1
            case TestClass.PREFIX | TestClass.POSTFIX:
                texts = {entry: bits for entry, bits in test.entries.items() if isinstance(entry, bytes)}
                for text, selectors in with_shorter(texts).items():
                    self._put("policy_prefixes", prefix_key(number, text), self.set(selectors))
            case TestClass.NETWORK:
                self._networks(number, {entry: bits for entry, bits in test.entries.items() if isinstance(entry, str)})
        return _TEST.pack(test.look.kind, test.look.part, test.look.flags, first, count, first_interval)

    def _number_tables(self) -> dict[str, bytes]:
        """One table for all machines, or one `NAME@MACHINE` for each when system calls are among the numbers."""
        if not self._calls:
            return {"policy_numbers": self._sets_of(self._numbers)} if self._numbers else {}
        found = {}
        for machine in MACHINES:
            numbers = dict(self._numbers)
            for test, call, selectors in self._calls:
                number = number_on(call, machine)
                if number is not None:
                    numbers[test, number] = numbers.get((test, number), 0) | selectors
            found[f"policy_numbers@{machine}"] = self._sets_of(numbers)
        return found

    def _sets_of(self, numbers: Mapping[tuple[int, int], int]) -> bytes:
        return b"".join(
            struct.pack("<IIQ", test, 0, number) + self.set(selectors) for (test, number), selectors in numbers.items()
        )

    def _spread(self, test: Test) -> int:
        """Fills the table of intervals and returns the number of bounds. All numbers between two neighboring bounds
        are in the same intervals."""
        bias = _BIAS if test.look.flags & BIASED else 0
        spans = [entry for entry in test.entries if isinstance(entry, tuple)]
        lowest = -bias
        bounds = {first + bias for first, _ in spans if first > lowest}
        bounds |= {last + 1 + bias for _, last in spans if last + 1 + bias <= _WORD}
        ordered = sorted(bounds)
        sets = [0] * (len(ordered) + 1)
        for span in spans:
            first_set = bisect_right(ordered, span[0] + bias) if span[0] > lowest else 0
            last_set = bisect_right(ordered, span[1] + bias)
            for place in range(first_set, last_set + 1):
                sets[place] |= test.entries[span]
        for bound in ordered:
            self._put("policy_bounds", _u32(self._bounds), struct.pack("<Q", bound))
            self._bounds += 1
        for selectors in sets:
            self._put("policy_intervals", _u32(self._intervals), self.set(selectors))
            self._intervals += 1
        return len(ordered)

    def _list(self, test: Test) -> None:
        for entry, selectors in test.entries.items():
            text = entry if isinstance(entry, bytes) else b""
            # For texts, the mask says whether to ignore case.
            mask = entry if isinstance(entry, int) else test.look.flags
            self._pattern(mask & _WORD, len(text), text, selectors)

    def _pattern(self, mask: int, length: int, text: bytes, selectors: int) -> None:
        head = struct.pack("<QQ", mask, length) + text.ljust(PATTERN_BYTES, b"\0")
        self._put("policy_patterns", _u32(self._patterns), head + self.set(selectors))
        self._patterns += 1

    def _globs(self, test: Test) -> None:
        """In the test of a pattern, `length` is the number of its automaton and `mask` its last place there."""
        patterns = {entry: selectors for entry, selectors in test.entries.items() if isinstance(entry, bytes)}
        made, placed = automata(patterns, self._automata)
        for number, place, selectors in placed:
            self._pattern(place, number, b"", selectors)
        for automaton in made:
            self._put("policy_automata", _u32(self._automata), automaton.encode())
            self._automata += 1

    def _networks(self, number: int, entries: dict[str, int]) -> None:
        for bits, selectors in networks_with_wider(entries).items():
            data = int(bits.ljust(128, "0"), 2).to_bytes(16, "big")
            key = struct.pack("<IB", 8 + len(bits), number) + data.ljust(KEY_BYTES, b"\0")
            self._put("policy_prefixes", key, self.set(selectors))


def prefix_key(test: int, text: bytes) -> bytes:
    return struct.pack("<IB", 8 * (1 + len(text)), test) + text.ljust(KEY_BYTES, b"\0")


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


_MAPPED = format(0xFFFF, "096b")
"""The leading bits of ::ffff:0:0/96, the IPv4-mapped addresses."""


def with_shorter(entries: Mapping[_Text, int]) -> dict[_Text, int]:
    """Adds to each entry the selectors of all entries that are a prefix of it."""
    found: dict[_Text, int] = {}
    above: list[_Text] = []
    for entry in sorted(entries):
        while above and not entry.startswith(above[-1]):
            above.pop()
        found[entry] = entries[entry] | (found[above[-1]] if above else 0)
        above.append(entry)
    return found


def networks_with_wider(entries: Mapping[str, int]) -> dict[str, int]:
    """The same for networks. An IPv6 network does not match IPv4 addresses, even where their mapped form lies in it."""
    mapped = {entry: bits for entry, bits in entries.items() if entry.startswith(_MAPPED)}
    others = {entry: bits for entry, bits in entries.items() if not entry.startswith(_MAPPED)}
    return with_shorter(others) | with_shorter({_MAPPED: 0} | mapped)


def network_bits(network: IPv4Network | IPv6Network) -> str:
    """The bits of a network's prefix; an IPv4 network is written as IPv4-mapped addresses."""
    if isinstance(network, IPv4Network):
        return _MAPPED + format(int(network.network_address), "032b")[: network.prefixlen]
    mapped = network.network_address.ipv4_mapped
    if mapped is not None and network.prefixlen >= 96:
        return network_bits(IPv4Network((mapped, network.prefixlen - 96)))
    return format(int(network.network_address), "0128b")[: network.prefixlen]


# Expressions in the postfix form that the kernel evaluates: `struct policy_expression` of
# bpf/include/policy/memory.h.
#
# The kernel refers to an argument by the number of its slot, and slots are numbered last; so operations
# refer to slots until they are encoded.


MOST_OPERATIONS, MOST_DEPTH = 64, 16
_OPERATION = struct.Struct("<BBHIQ")
_ALL_BITS = (1 << 64) - 1


class Code(IntEnum):
    """enum policy_operation_code."""

    PUSH = 1
    PUSH_SLOT = 2
    NEGATE = 3
    INT32 = 4
    UINT32 = 5
    INVERT = 6
    NOT = 7
    ADD = 8
    SUBTRACT = 9
    AND = 10
    OR = 11
    XOR = 12
    BOTH = 13
    EITHER = 14
    EQUAL = 15
    UNEQUAL = 16
    LESS = 17
    LESS_EQUAL = 18
    GREATER = 19
    GREATER_EQUAL = 20


_OF_ONE = {"-": Code.NEGATE, "int32": Code.INT32, "uint32": Code.UINT32, "not": Code.INVERT, "!": Code.NOT}
_OF_TWO = {
    **{"+": Code.ADD, "-": Code.SUBTRACT, "and": Code.AND, "or": Code.OR, "xor": Code.XOR, "&&": Code.BOTH},
    **{"||": Code.EITHER, "==": Code.EQUAL, "!=": Code.UNEQUAL, "<": Code.LESS, "<=": Code.LESS_EQUAL},
    **{">": Code.GREATER, ">=": Code.GREATER_EQUAL},
}


@dataclass(frozen=True)
class Operation:
    """One step: pushes a number or the value of a slot, or pops one or two values and pushes the result."""

    code: Code
    number: int = 0
    slot: Slot | None = None


Postfix = tuple[Operation, ...]


def postfix(expression: Expression, slot_of: Callable[[int], Slot]) -> Postfix:
    """`slot_of` returns the slot of an argument. Raises ValueError, with a message for users, when the expression is
    too long."""
    operations = tuple(_operations(expression, slot_of))
    depth = deepest = 0
    for operation in operations:
        depth += 1 if operation.code <= Code.PUSH_SLOT else -1 if operation.code >= Code.ADD else 0
        deepest = max(deepest, depth)
    if len(operations) > MOST_OPERATIONS or deepest > MOST_DEPTH:
        what = f"{len(operations)} steps, {deepest} values kept"
        raise ValueError(
            f"the expression is too long: {what}; at most {MOST_OPERATIONS} and {MOST_DEPTH} are supported"
        )
    return operations


def encode(operations: Postfix, slots: Sequence[Slot]) -> bytes:
    """The encoded expression, without the set of selectors."""
    steps = (
        _OPERATION.pack(step.code, 0 if step.slot is None else slots.index(step.slot), 0, 0, step.number & _ALL_BITS)
        for step in operations
    )
    return struct.pack("<Q", len(operations)) + b"".join(steps).ljust(_OPERATION.size * MOST_OPERATIONS, b"\0")


def _operations(expression: Expression, slot_of: Callable[[int], Slot]) -> Iterator[Operation]:
    match expression:
        case Number(value):
            yield Operation(Code.PUSH, value)
        case ArgumentValue(position):
            yield Operation(Code.PUSH_SLOT, slot=slot_of(position))
        case _:
            for operand in expression.operands:
                yield from _operations(operand, slot_of)
            codes = _OF_TWO if len(expression.operands) == 2 else _OF_ONE
            yield Operation(codes[expression.operation])


# Translates one filter of a policy into a test of the engine: the slot, how to look at it, and the entries.
#
# The trap: texts are compared as bytes, and `equal` is a prefix comparison that includes the NUL at the end.


_CAPABILITY_PARTS = {"permitted": 8, "effective": 9, "inheritable": 10}
_CHANGE_PARTS = {"permitted": 0, "effective": 1, "inheritable": 2}
_SOCKET_PARTS = {"source_port": 0, "destination_port": 1, "protocol": 2, "family": 3, "state": 4}
_ADDRESS_PARTS = {"source_address": 0, "destination_address": 1}
_HOST = 1 << 32
"""POLICY_HOST_NAMESPACE: a number that no namespace has."""
MOST_FOLLOWED = 1024
"""POLICY_FOLLOWED_WORDS of bpf/include/policy/processes.h, times 64."""
_SIGNED, _UNSIGNED = (-(1 << 63), (1 << 63) - 1), (0, (1 << 64) - 1)


@dataclass(frozen=True)
class FilterTest:
    """One filter in the form of a test."""

    slot: Slot
    look: Look
    entries: tuple[Entry, ...]
    negated: bool
    expressions: tuple[Postfix, ...] = ()

    def placed(self, slots: Sequence[Slot]) -> tuple[Entry, ...]:
        """The entries. Needs the numbers of the slots."""
        return (*self.entries, *(encode(each, slots) for each in self.expressions))


class Followed:
    """The programs whose descendants policies follow, numbered by path."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def number(self, filter: HookFilter, path: bytes) -> int:
        """The number of a path, from 0. Raises UsageError when there are too many paths or this one is too long."""
        if len(path) > LONGEST_TEXT:
            raise UsageError(f"{filter.place}: paths of more than {LONGEST_TEXT} bytes cannot be followed: {path!r}")
        number = self.numbers.setdefault(path, len(self.numbers))
        if number >= MOST_FOLLOWED:
            raise UsageError(f"{filter.place}: at most {MOST_FOLLOWED} programs can be followed")
        return number


def filter_test(
    filter: HookFilter,
    arguments: Sequence[Slot | None],
    result: Slot | None,
    followed: Followed,
    data: Sequence[Slot | None] = (),
) -> FilterTest:
    """The test for a filter. `arguments` and `data` are the slots of the hook's arguments and data, `result` is the
    slot of its return value; programs to follow are added to `followed`. Raises UsageError."""
    if filter.subject.kind == "data":
        filter, arguments = replace(filter, subject=replace(filter.subject, kind="argument")), data
    if filter.follow and filter.subject.kind in ("binary", "parent_binary"):
        look = Look(TestClass.RAN, int(filter.subject.kind == "parent_binary"))
        programs = tuple(followed.number(filter, text) for text in _texts(filter))
        return FilterTest(task_slot(Type.STARTED_BY), look, programs, filter.negated)
    if filter.test == "expression":
        return _expression(filter, arguments)
    slot, part = _subject(filter, arguments, result)
    if filter.test == "capabilities_gained":
        return _gained(filter, slot, arguments[filter.subject.other])
    if filter.follow:
        numbers = tuple(_integer(filter, value) for value in filter.values)
        return FilterTest(slot, Look(TestClass.DESCENDS, part), numbers, filter.negated)
    if HOST_NAMESPACE in filter.values:
        numbers = tuple(_HOST if value == HOST_NAMESPACE else _integer(filter, value) for value in filter.values)
        return FilterTest(slot, Look(TestClass.IN_NAMESPACE, part), numbers, filter.negated)
    if filter.test in _ADDRESS_PARTS:
        if slot.type not in WITH_ADDRESSES:
            raise _wrong(filter, "has no addresses")
        networks = [value for value in filter.values if isinstance(value, IPv4Network | IPv6Network)]
        look = Look(TestClass.NETWORK, _ADDRESS_PARTS[filter.test])
        return FilterTest(slot, look, tuple(map(network_bits, networks)), filter.negated)
    if filter.test in _SOCKET_PARTS:
        if slot.type not in WITH_ADDRESSES:
            raise _wrong(filter, "is not a socket")
        return _number(filter, slot, _SOCKET_PARTS[filter.test])
    if filter.test in ("file_type", "same_file"):
        if slot.type not in (Type.FILE, Type.PATH, Type.FD, Type.DENTRY, Type.BINPRM, Type.KIOCB):
            raise _wrong(filter, "is not a file")
        if filter.test == "same_file":
            return FilterTest(slot, Look(TestClass.SAME_FILE), tuple(_texts(filter)), filter.negated)
        return _number(filter, slot, 0, FILE_TYPE)
    is_text = slot.type in WITH_TEXT or (slot.type is Type.AUTO and any(isinstance(one, str) for one in filter.values))
    if is_text and filter.test not in ("less", "greater", "range", "mask"):
        return _text(filter, slot)
    return _number(filter, slot, part)


def _subject(filter: HookFilter, arguments: Sequence[Slot | None], result: Slot | None) -> tuple[Slot, int]:
    """The slot, and the part of it that is meant when the test does not say."""
    subject = filter.subject
    match subject.kind:
        case "argument":
            slot = arguments[subject.position]
            if slot is None:
                raise _wrong(filter, "is of the type nop, whose values are never read")
            if slot.type in (Type.CRED, Type.USER_NAMESPACE) and filter.test == "equal":
                raise _unsupported(filter, f"comparing a {slot.type.name.lower()} as a whole")
            return slot, 0
        case "return":
            if result is None:
                raise _wrong(filter, "cannot be compared: the hook does not give its type (returnArg)")
            return result, 0
        case "pid":
            return task_slot(Type.PID), 1 if subject.in_namespace else 0
        case "binary":
            return task_slot(Type.BINARY), 0
        case "parent_binary":
            return task_slot(Type.PARENT_BINARY), 0
        case "namespace":
            return task_slot(Type.NAMESPACES), NAMESPACES.index(subject.name)
        case "namespace_change":
            return task_slot(Type.NAMESPACE_CHANGES), 0
        case "capability":
            assert set(CAPABILITY_SETS) == set(_CAPABILITY_PARTS) == set(_CHANGE_PARTS)
            return task_slot(Type.CAPABILITIES, subject.in_namespace), _CAPABILITY_PARTS[subject.name]
        case "capability_change":
            return task_slot(Type.CAPABILITY_CHANGES, subject.in_namespace), _CHANGE_PARTS[subject.name]
    raise _unsupported(filter, f"{subject.kind.replace('_', ' ')} filters")


def _expression(filter: HookFilter, arguments: Sequence[Slot | None]) -> FilterTest:
    def slot_of(position: int) -> Slot:
        slot = arguments[position]
        if slot is None or slot.type is not Type.NUMBER:
            raise UsageError(f"{filter.place}: arg{position} is not a number in the kernel")
        return slot

    if filter.subject.kind != "argument":
        raise _unsupported(filter, "an expression over data or the returned value")
    try:
        found = tuple(postfix(parse_expression(str(text)), slot_of) for text in filter.values)
    except ValueError as error:
        raise UsageError(f"{filter.place}: {error}") from None
    return FilterTest(task_slot(Type.EXPRESSION), Look(TestClass.COMPUTED), (), filter.negated, found)


def _gained(filter: HookFilter, new: Slot, old: Slot | None) -> FilterTest:
    if old is None or not new.type == old.type == Type.CAPABILITY_SET:
        raise _wrong(filter, "or the other argument is not a set of capabilities")
    if (new.source, new.steps, new.resolve) != (old.source, old.steps, old.resolve):
        raise _unsupported(filter, "comparing two sets from different structures")
    slot = replace(new, type=Type.CAPABILITIES_GAINED, size_index=old.index)
    return FilterTest(slot, Look(TestClass.MASK), (_UNSIGNED[1],), filter.negated)


def _number(filter: HookFilter, slot: Slot, part: int, flags: int = 0) -> FilterTest:
    signed = slot.type is Type.NUMBER and bool(slot.flags & SlotFlag.SIGNED)
    if filter.test == "mask":
        numbers = [_integer(filter, value) for value in filter.values]
        return FilterTest(slot, Look(TestClass.MASK, part), tuple(numbers), filter.negated)
    calls = tuple(value for value in filter.values if isinstance(value, SystemCall))
    spans = tuple(_span(filter, value, signed) for value in filter.values if not isinstance(value, SystemCall))
    if all(first == last for first, last in spans):
        look = Look(TestClass.IN_SET, part, flags)
        return FilterTest(slot, look, (*(first & _UNSIGNED[1] for first, _ in spans), *calls), filter.negated)
    look = Look(TestClass.IN_INTERVAL, part, flags | (BIASED if signed else 0))
    lowest, highest = _SIGNED if signed else _UNSIGNED
    cut = ((max(first, lowest), min(last, highest)) for first, last in spans)
    return FilterTest(slot, look, tuple(span for span in cut if span[0] <= span[1]), filter.negated)


def _span(filter: HookFilter, value: Value, signed: bool) -> tuple[int, int]:
    """The range of matching numbers, both ends included."""
    lowest, highest = _SIGNED if signed else _UNSIGNED
    if isinstance(value, Range):
        return value.first, value.last
    number = _integer(filter, value)
    if filter.test == "less":
        return lowest, number - 1
    if filter.test == "greater":
        return number + 1, highest
    return number, number


def _integer(filter: HookFilter, value: Value) -> int:
    if not isinstance(value, int):
        raise _unsupported(filter, f"the value {value!r} here")
    return value


def _texts(filter: HookFilter) -> list[bytes]:
    texts = [value.encode("utf-8", "surrogateescape") for value in filter.values if isinstance(value, str)]
    if len(texts) < len(filter.values):
        raise _wrong(filter, "is a text, and cannot be compared with other values")
    return texts


def _text(filter: HookFilter, slot: Slot) -> FilterTest:
    texts = _texts(filter)
    longest = LONGEST_TEXT if filter.test in ("equal", "prefix", "postfix") else PATTERN_BYTES
    for text in texts:
        if filter.test == "glob":
            if not fits(text.decode("utf-8", "surrogateescape")):
                raise UsageError(f"{filter.place}: patterns of more than {BITS - 1} bytes cannot be matched: {text!r}")
        elif len(text) > longest:
            raise UsageError(f"{filter.place}: texts of more than {longest} bytes cannot be compared: {text!r}")
        if not text and filter.test.startswith("substring"):
            raise _wrong(filter, "cannot be searched for an empty text")
    flags, entries = 0, texts
    match filter.test:
        case "equal":
            kind, entries = TestClass.PREFIX, [text + b"\0" for text in texts]
        case "prefix":
            kind = TestClass.PREFIX
        case "postfix":
            kind, entries = TestClass.POSTFIX, [text[::-1] for text in texts]
        case "substring":
            kind = TestClass.SUBSTRING
        case "glob":
            kind = TestClass.GLOB
        case "substring_ignore_case":
            kind, flags, entries = TestClass.SUBSTRING, 1, [text.lower() for text in texts]
        case _:
            raise _unsupported(filter, f"the operator {filter.operator or filter.test}")
    return FilterTest(slot, Look(kind, 0, flags), tuple(entries), filter.negated)


def _wrong(filter: HookFilter, what: str) -> UsageError:
    subject = filter.subject
    name = f"argument {subject.position}" if subject.kind == "argument" else subject.kind
    return UsageError(f"{filter.place}: {filter.operator or filter.test}: {name} {what}")


def _unsupported(filter: HookFilter, what: str) -> UsageError:
    return UsageError(f"{filter.place}: {what} is not supported yet")
