"""Decides how serious a change is, by the rules of risks.yaml. The first rule that fits counts.

The file's order decides, so a general rule hides all special ones after it.
"""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from kubectl_gadget.behavior.facts import Fact, FactKind, Unit
from kubectl_gadget.filters.cel import Pattern, compile_pattern
from kubectl_gadget.yaml_files import SchemaField, read_yaml
from kubectl_gadget.yaml_reader import Part, one_of, read_mapping

Level = Literal["error", "warning", "note"]
_RISK = (
    SchemaField("name", "text", required=True),
    SchemaField("kinds", "list of text", required=True, choices=tuple(FactKind)),
    SchemaField("program", "text"),
    SchemaField("value", "text"),
    SchemaField("known", "flag"),
    SchemaField("alone", "flag"),
    SchemaField("level", "text", required=True, choices=get_args(Level)),
    SchemaField("attack", "list of text"),
)
_RISKS = SchemaField("", "object", fields=(SchemaField("risks", "list of object", required=True, fields=_RISK),))
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""the surrogate that stands for an undecodable byte in a text (PEP 383)"""


def encodable(text: str) -> str:
    """A text in which bytes that are not UTF-8 stand as \\xNN, as in baselines: expressions of RE2 take no others."""
    if text.isascii():
        return text
    return _NOT_UTF8.sub(lambda found: f"\\x{ord(found.group()) & 0xFF:02x}", text)


def re2_expression(part: Part, key: str, text: str) -> Pattern:
    """An expression that a field of a file has, compiled. Raises UsageError with the field's place."""
    try:
        return compile_pattern(text)
    except ValueError as error:
        part.fail(key, f"is not a regular expression of RE2: {error}")


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
    program: Pattern | None
    value: Pattern | None

    def fits(self, fact: Fact, is_known_program: bool) -> bool:
        """True if the rule is about this fact. `is_known_program`: the container ran its program before."""
        return (
            self.known in (None, is_known_program)
            and (self.program is None or self.program.search(encodable(fact.program)) is not None)
            and self.fits_value(fact.kind, fact.value)
        )

    def fits_value(self, kind: FactKind, value: str) -> bool:
        """True if the rule may be about a fact with this value, whatever its program."""
        return kind in self.kinds and (self.value is None or self.value.search(encodable(value)) is not None)


@cache
def risks() -> tuple[Risk, ...]:
    """The rules, the worst first."""
    path = Path(__file__).with_name("risks.yaml")
    return read_yaml(path, lambda text: read_risks(path.name, text))


def read_risks(file: str, text: str) -> tuple[Risk, ...]:
    """The rules of a file like risks.yaml. Raises UsageError."""
    return tuple(_risk(rank, part) for rank, part in enumerate(read_mapping(file, text, _RISKS).parts("risks")))


def _risk(rank: int, part: Part) -> Risk:
    program, value = (
        re2_expression(part, key, part.text(key)) if key in part else None for key in ("program", "value")
    )
    known = part.flag("known") if "known" in part else None
    level: Level = one_of(part.text("level"), get_args(Level), "note")
    kinds, techniques = frozenset(part.texts("kinds")), part.texts("attack")
    return Risk(rank, part.text("name"), level, techniques, kinds, known, part.flag("alone"), program, value)


def risk_of(fact: Fact, known_programs: Set[tuple[Unit, str]]) -> Risk:
    """The first rule that fits. The last rules fit every fact of their kind, so there is one."""
    is_known = (fact.unit, fact.program) in known_programs
    return next(risk for risk in risks() if risk.fits(fact, is_known))


def programs(facts: Iterable[Fact]) -> frozenset[tuple[Unit, str]]:
    """The programs that containers run, by unit and path: those started, and those that did something."""
    return frozenset((fact.unit, fact.program) for fact in facts)
