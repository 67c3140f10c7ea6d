"""Patterns with wildcards as automata, `struct policy_automaton` of bpf/include/policy/memory.h.

A pattern is a sequence of places. Each place consumes one byte of a set of bytes; before a place, and at the end, other
bytes may be skipped. The kernel keeps the places reached so far as bits, so that several patterns share one automaton.
The trap: patterns are matched byte by byte, so `?` and `[…]` match one byte, not one character.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubectl_gadget.policies.language.path_patterns import glob_bytes, glob_parts

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
    """Whether one automaton can hold the pattern."""
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
