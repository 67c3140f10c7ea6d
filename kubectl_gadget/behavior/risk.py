"""Decides how serious a change is, by the rules of risks.yaml. The first rule that fits counts.

The trap: the order is that of the file, so a general rule hides all special ones after it.
"""

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import re2

from kubectl_gadget.behavior.facts import Fact, FactKind, Unit
from kubectl_gadget.yaml_files import own_data

Level = Literal["error", "warning", "note"]
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""what stands for such a byte in a text (PEP 383)"""


def encodable(text: str) -> str:
    """A text in which bytes that are not UTF-8 stand as \\xNN, as in baselines: expressions of RE2 take no others."""
    if text.isascii():
        return text
    return _NOT_UTF8.sub(lambda found: f"\\x{ord(found.group()) & 0xFF:02x}", text)


@dataclass(frozen=True)
class Risk:
    """One rule."""

    rank: int
    """0 is the worst"""
    name: str
    level: Level
    techniques: tuple[str, ...]
    """of MITRE ATT&CK"""
    kinds: frozenset[str]
    known: bool | None
    alone: bool
    """files that it fits are never part of a pattern"""
    program: Any
    value: Any

    def fits(self, fact: Fact, is_known_program: bool) -> bool:
        """Whether the rule is about this fact. `is_known_program`: the container ran its program before."""
        return (
            self.known in (None, is_known_program)
            and (self.program is None or self.program.search(encodable(fact.program)) is not None)
            and self.fits_value(fact.kind, fact.value)
        )

    def fits_value(self, kind: FactKind, value: str) -> bool:
        """Whether the rule may be about a fact with this value, as far as its program does not matter."""
        return kind in self.kinds and (self.value is None or self.value.search(encodable(value)) is not None)


@cache
def risks() -> tuple[Risk, ...]:
    """The rules, the worst first."""
    rules = own_data(Path(__file__).with_name("risks.yaml"))["risks"]
    return tuple(_risk(rank, **rule) for rank, rule in enumerate(rules))


def _risk(
    rank: int,
    name: str,
    kinds: Sequence[str],
    level: Level,
    attack: Sequence[str] = (),
    known: bool | None = None,
    alone: bool = False,
    program: str | None = None,
    value: str | None = None,
) -> Risk:
    compiled = (None if text is None else re2.compile(text) for text in (program, value))
    return Risk(rank, name, level, tuple(attack), frozenset(kinds), known, alone, *compiled)


def risk_of(fact: Fact, known_programs: Set[tuple[Unit, str]]) -> Risk:
    """The first rule that fits. The last rules fit every fact of their kind, so there is one."""
    is_known = (fact.unit, fact.program) in known_programs
    return next(risk for risk in risks() if risk.fits(fact, is_known))


def programs(facts: Iterable[Fact]) -> frozenset[tuple[Unit, str]]:
    """The programs that containers run, by unit and path: those started, and those that did something."""
    return frozenset((fact.unit, fact.program) for fact in facts)
