"""Parses an argument list as kubectl does.

kubectl accepts forms that click does not, and its users are used to them: `-n=prod`, `-o=json`, `--wait=false`, `-An
prod`. A switch never takes the following word (`-A xwing` names a pod), and a flag with a value always does,
even if that word begins with a dash. A flag whose value may be missing takes it only if it is one of the flag's values.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kubectl_gadget.errors import UsageError
from kubectl_gadget.wording import nearest

_TRUE = frozenset({"true", "True", "TRUE", "t", "T", "1"})
_FALSE = frozenset({"false", "False", "FALSE", "f", "F", "0"})


class Spelling(NamedTuple):
    """The meaning of one spelling of a flag (`--no-wait`, `-n`)."""

    name: str
    """the name of the parameter that it sets"""
    switch: bool | None = None
    """the value that a switch sets; None: the flag takes a value"""
    optional: tuple[str, ...] = ()
    """the values of a flag whose value may be missing; the first is the one that it has then"""


class Given(NamedTuple):
    """One flag as it was given."""

    name: str
    value: str | bool
    spelling: str
    """as typed, or the place of a preset, for messages"""
    preset: bool = False
    """it was not typed but comes from the environment or the configuration file"""


class Parsed:
    """A parsed argument list. Not a dataclass, since it is imported at every TAB key."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        """in the order of the command line: the last one wins"""
        self.positionals: list[str] = []
        """all words that are not flags; with `subcommands`, the first of them and everything after it"""
        self.dashes_at: int | None = None
        """how many of these came before `--`; None: there was none"""
        self.pending: str | None = None
        """the spelling of a final flag whose value is missing"""


class UnknownFlag(UsageError):
    """A flag that the command does not have."""

    def __init__(self, spelling: str, known: Iterable[str]) -> None:
        self.flag = spelling.partition(" ")[0]
        super().__init__(f"unknown flag {spelling}", nearest(self.flag, known, 0.7))  # all begin with dashes


def parse(spellings: Mapping[str, Spelling], words: Iterable[str], *, subcommands: bool = False) -> Parsed:
    """Parses `words`. With `subcommands`, stops at the first word that is not a flag.

    Raises UnknownFlag, and UsageError if a switch gets a value that is not a boolean. A final flag without its value is
    not an error here: see Parsed.pending.
    """
    result = Parsed()
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if word == "--":
            result.dashes_at = len(result.positionals)
            result.positionals += rest
            rest.clear()
        elif not word.startswith("-") or word == "-":
            result.positionals.append(word)
            if subcommands:
                result.positionals += rest
                rest.clear()
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            _flag(spellings, result, name, value if equals else None, rest)
        else:
            _short_flags(spellings, result, word, rest)
    return result


def _short_flags(spellings: Mapping[str, Spelling], result: Parsed, word: str, rest: deque[str]) -> None:
    """`-n prod`, `-nprod`, `-n=prod`, `-A`, `-A=true`, `-An prod`."""
    letters = word[1:]
    while letters:
        short, letters = f"-{letters[0]}", letters[1:]
        if letters.startswith("="):
            return _flag(spellings, result, short, letters[1:], rest)
        if short in spellings and spellings[short].switch is None:
            return _flag(spellings, result, short, letters or None, rest)
        _flag(spellings, result, short, None, rest, typed=word)
    return None


def _flag(
    spellings: Mapping[str, Spelling],
    result: Parsed,
    name: str,
    value: str | None,
    rest: deque[str],
    typed: str | None = None,
) -> None:
    spelling = spellings.get(name)
    if spelling is None:
        # -foo is read as -f -o -o; naming the whole word helps more than naming its first letter
        known = [text for text, known in spellings.items() if known.switch is not False]
        raise UnknownFlag(f"{name} in {typed}" if typed and typed != name else name, known)
    if spelling.switch is not None:
        result.given.append(Given(spelling.name, _boolean(name, value) == spelling.switch, name))
        return
    if value is None and spelling.optional:
        value = rest.popleft() if rest and rest[0] in spelling.optional else spelling.optional[0]
    if value is None and rest:
        value = rest.popleft()
    if value is None:
        result.pending = name
    else:
        result.given.append(Given(spelling.name, value, name))


def _boolean(name: str, value: str | None) -> bool:
    if value is None or value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise UsageError(f"{name}={value}: must be true or false", f"{name}, or {name}=false")
