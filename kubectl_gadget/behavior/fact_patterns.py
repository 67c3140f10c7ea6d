"""How a general fact covers a special one: `read /usr/lib/python3/*` covers every file below that directory.

The one place that compares facts other than by equality; `diff` and `check` both use it. The trap: only opens have
patterns. A program is known by its whole path, so that no pattern hides a new one in /tmp; but what started it is not
known if it ran before.
"""

from collections.abc import Collection, Iterable
from functools import lru_cache

from kubectl_gadget.behavior.facts import ALREADY_RUNNING, RUNTIME, Fact, FactKind, Unit
from kubectl_gadget.behavior.risk import encodable, risks

ANYTHING = "/*"
"""The end of a pattern: everything below this directory."""
_Key = tuple[Unit, FactKind, str]


def literal(path: str) -> str:
    """A path from a container, escaped so that no part is read as a pattern or placeholder."""
    if "*" in path or "<" in path or "\\" in path:
        for character in "\\*<":
            path = path.replace(character, f"\\{character}")
    return encodable(path)


@lru_cache(65536)
def stands_alone(value: str) -> bool:
    """Whether an open is about files so sensitive that no pattern of a directory above may cover them."""
    return any(risk.alone and risk.fits_value(FactKind.OPEN, value) for risk in risks())


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
    """A set of facts that can say whether it has a fact, or a pattern that covers it."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._values: dict[_Key, set[str]] = {}
        self._with_pattern: set[_Key] = set()
        for fact in facts:
            self._values.setdefault(_key(fact), set()).add(fact.value)
            if is_pattern(fact):
                self._with_pattern.add(_key(fact))

    def has(self, fact: Fact) -> bool:
        key = _key(fact)
        values = self._values.get(key, ())
        if fact.value in values or (fact.kind is FactKind.PROGRAM and _may_be(fact.value, values)):
            return True
        if key not in self._with_pattern:
            return False
        patterns = (pattern for pattern in covering(fact.value) if pattern in values)
        # A pattern of /home/me/.ssh itself says what it is about; one of /home/me does not.
        return any(not stands_alone(fact.value) or stands_alone(pattern) for pattern in patterns)

    def ran_before(self, fact: Fact) -> bool:
        """Whether the program of a fact was already running, so that it is unknown what started it."""
        return fact.kind is FactKind.PROGRAM and ALREADY_RUNNING in self._values.get(_key(fact), ())

    def names_below(self, pattern: Fact) -> int:
        """The number of names that these facts have in the directory of a pattern. Files further below do not count:
        otherwise a program with many files in a deep directory could open anything in all the directories above."""
        start = pattern.value.removesuffix("*")
        values = self._values.get(_key(pattern), ())
        return len({value[len(start) :].partition("/")[0] for value in values if value.startswith(start)})


def _may_be(starter: str, known: Collection[str]) -> bool:
    """Whether a known program may have been started as before. A shell that was already running says nothing about one
    that a web server starts; it may be the first program of the container."""
    return bool(known) and (starter == ALREADY_RUNNING or (starter == RUNTIME and ALREADY_RUNNING in known))


def _key(fact: Fact) -> _Key:
    return fact.unit, fact.kind, fact.program
