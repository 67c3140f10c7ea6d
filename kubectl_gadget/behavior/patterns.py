"""How a general fact covers a special one: `read /usr/lib/python3/*` covers every file below that directory.

The one place that compares facts other than by equality; `diff` and `check` both use it. The trap: only opens have
patterns. A program is known by its whole path, so that no pattern hides a new one in /tmp.
"""

from collections.abc import Iterable

from kubectl_gadget.behavior.facts import Fact, FactKind, Unit

ANYTHING = "/*"
"""The end of a pattern: everything below this directory."""
_Key = tuple[Unit, FactKind, str]


def literal(path: str) -> str:
    """A path from a container, in which nothing counts as a pattern or as a placeholder of a rule."""
    if "*" in path or "<" in path or "\\" in path:
        for character in "\\*<":
            path = path.replace(character, f"\\{character}")
    return path


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
        if fact.value in values:
            return True
        return key in self._with_pattern and any(pattern in values for pattern in covering(fact.value))

    def below(self, pattern: Fact) -> int:
        """How many of these facts the pattern covers."""
        start = pattern.value.removesuffix("*")
        return sum(value.startswith(start) for value in self._values.get(_key(pattern), ()))


def _key(fact: Fact) -> _Key:
    return fact.unit, fact.kind, fact.program
