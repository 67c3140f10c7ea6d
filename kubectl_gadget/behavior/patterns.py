"""How a general fact covers a special one: `read /usr/lib/python3/*` covers every file below that directory.

The one place that compares facts other than by equality; `diff` and `check` both use it. The trap: only opens have
patterns. A program is known by its whole path, so that no pattern hides a new one in /tmp; but what started it is not
known if it ran before.
"""

import re
from collections.abc import Collection, Iterable

from kubectl_gadget.behavior.facts import ALREADY_RUNNING, RUNTIME, Fact, FactKind, Unit

_NOT_UTF8 = re.compile("[\ud800-\udfff]")
"""what stands for such a byte in a text (PEP 383)"""
ANYTHING = "/*"
"""The end of a pattern: everything below this directory."""
_Key = tuple[Unit, FactKind, str]


def encodable(text: str) -> str:
    """A text in which bytes that are not UTF-8 stand as \\xNN, as in baselines: expressions of RE2 take no others."""
    if text.isascii():
        return text
    return _NOT_UTF8.sub(lambda found: f"\\x{ord(found.group()) & 0xFF:02x}", text)


def literal(path: str) -> str:
    """A path from a container, in which nothing counts as a pattern or as a placeholder of a rule."""
    if "*" in path or "<" in path or "\\" in path:
        for character in "\\*<":
            path = path.replace(character, f"\\{character}")
    return encodable(path)


def is_pattern(fact: Fact) -> bool:
    """Whether it stands for everything below a directory."""
    return fact.kind is FactKind.OPEN and fact.value.endswith(ANYTHING)


def covering(value: str) -> Iterable[str]:
    """The patterns that cover this value of an open, from the narrowest on."""
    path = value.removesuffix(ANYTHING)
    end = path.rfind("/")
    while end > 0:
        yield path[:end] + ANYTHING
        end = path.rfind("/", 0, end)


class KnownFacts:
    """Says whether a fact is one of these, or is covered by one."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._values: dict[_Key, set[str]] = {}
        self._with_pattern: set[_Key] = set()
        for fact in facts:
            self._values.setdefault(_key(fact), set()).add(fact.value)
            if is_pattern(fact):
                self._with_pattern.add(_key(fact))

    def has(self, fact: Fact) -> bool:
        """Whether the fact is known."""
        key = _key(fact)
        values = self._values.get(key, ())
        if fact.value in values or (fact.kind is FactKind.PROGRAM and _may_be(fact.value, values)):
            return True
        return key in self._with_pattern and any(pattern in values for pattern in covering(fact.value))

    def ran_before(self, fact: Fact) -> bool:
        """Whether the program of a fact was already running, so that nothing tells what started it."""
        return fact.kind is FactKind.PROGRAM and ALREADY_RUNNING in self._values.get(_key(fact), ())

    def below(self, pattern: Fact) -> int:
        """How many of these facts the pattern covers."""
        start = pattern.value.removesuffix("*")
        return sum(value.startswith(start) for value in self._values.get(_key(pattern), ()))


def _may_be(starter: str, known: Collection[str]) -> bool:
    """Whether a known program may have been started as before. A shell that was already running says nothing about one
    that a web server starts; it may be the first program of the container."""
    return bool(known) and (starter == ALREADY_RUNNING or (starter == RUNTIME and ALREADY_RUNNING in known))


def _key(fact: Fact) -> _Key:
    return fact.unit, fact.kind, fact.program
