"""How much a change matters: the rules of risks.yaml, of which the first that fits is the one that counts.

The trap: the order is that of the file, so a general rule hides all special ones after it.
"""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import re2

from kubectl_gadget.behavior.facts import Fact, FactKind, Unit
from kubectl_gadget.yaml_reader import Part, one_of, read_mapping
from kubectl_gadget.yaml_schema import SchemaField

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
_FILE = "risks.yaml"
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""what stands for such a byte in a text (PEP 383)"""
_RULE = (
    SchemaField("name", "text", required=True),
    SchemaField("kinds", "list of text", required=True, choices=tuple(FactKind)),
    SchemaField("program", "text"),
    SchemaField("value", "text"),
    SchemaField("known", "flag"),
    SchemaField("alone", "flag"),
    SchemaField("level", "text", required=True, choices=LEVELS),
    SchemaField("attack", "list of text"),
)
_RULES = SchemaField("", "object", fields=(SchemaField("risks", "list of object", fields=_RULE, required=True),))


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
    text = (resources.files("kubectl_gadget.behavior") / _FILE).read_text("utf-8")
    parts = read_mapping(_FILE, text, _RULES).parts("risks")
    return tuple(_risk(rank, part) for rank, part in enumerate(parts))


def _risk(rank: int, part: Part) -> Risk:
    return Risk(
        rank,
        part.text("name"),
        one_of(part.text("level"), LEVELS, "warning"),
        part.texts("attack"),
        frozenset(part.texts("kinds")),
        part.flag("known") if "known" in part else None,
        part.flag("alone"),
        *(re2.compile(part.text(key)) if key in part else None for key in ("program", "value")),
    )


def risk_of(fact: Fact, known_programs: Set[tuple[Unit, str]]) -> Risk:
    """The first rule that fits. The last rules fit every fact of their kind, so there is one."""
    is_known = (fact.unit, fact.program) in known_programs
    return next(risk for risk in risks() if risk.fits(fact, is_known))


def programs(facts: Iterable[Fact]) -> frozenset[tuple[Unit, str]]:
    """The programs that containers run, by unit and path: those started, and those that did something."""
    return frozenset((fact.unit, fact.program) for fact in facts)
