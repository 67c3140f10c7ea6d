"""Compiles filters into the engine's lookup tables, which map a value to a set of selectors.

Every selector of a hook is one bit. A set of selectors is an int here and an array of 64-bit words in the kernel. A
*test* looks at one part of one slot in one way and yields the set of selectors whose filter holds. Filters that look at
the same part in the same way share a test, so that one lookup serves a thousand selectors. Two such filters of one
selector need two tests, since both have to hold. The trap: an entry of a prefix table has to include the selectors of
all shorter entries, since the kernel finds only the longest match.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

from kubectl_gadget.policies.compiler.encoding.globs import automata
from kubectl_gadget.policies.language.linux_names import MACHINES, number_on
from kubectl_gadget.policies.model import SystemCall

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
    """What a test looks at, and how. `part` is the index of a number or of an address within the slot's value."""

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
    filters of one slot are added before those of the next. Raises ValueError, with a message for users, when
    there are too many tests."""
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
