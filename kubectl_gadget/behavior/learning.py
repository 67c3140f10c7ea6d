"""Proposes rules from two runs that should be equal: `behavior rules --learn A B`.

A fact of one run and one of the other that differ in some part of a path, or of a name of DNS, are taken for the same
fact. The trap: a rule hides what it covers, so none is proposed for a place where each name counts, nor for the path
of a program; and a rule names the folder, and what stays of the name.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from kubectl_gadget.behavior.comparison import ChangeKind, compare, stands_alone
from kubectl_gadget.behavior.facts import PATHS, Behavior, Fact, FactKind, path_parts
from kubectl_gadget.behavior.generalization import Generalizer

_TOKEN = re.compile(r"<[a-z]+>|\\.|.", re.DOTALL)
_SEVERAL = "<shard>"
_LEAST_FOLDERS = 1
_LEAST_RANDOM = 6
"""characters of a name of which nothing stays"""
_CLASSES = ("[0-9]", "[0-9a-f]", "[A-Za-z0-9]", "[A-Za-z0-9_-]")
_MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class LearnedRule:
    """A rule: what is before the random part, what this is like, and what is after it, as expressions."""

    separator: str
    """of the parts of a text: `/` of a path, `.` of a name"""
    before: str
    random: str
    after: str

    def match(self, random: str = "") -> str:
        """The whole expression."""
        end = f"({re.escape(self.separator)}|$)"
        return f"^({self.before}){random or self.random}({self.after}){end}"

    def applied(self, text: str) -> str:
        """A text that built-in rules have changed already: the random part may be a placeholder by now."""
        return re.sub(self.match(f"(?:{self.random}|[^/]*<[a-z]+>[^/]*?)"), r"\1<random>\2\3", text)


class _Text(NamedTuple):
    """A text of a fact, in parts."""

    head: tuple[object, ...]
    """what has to be equal: the container, the kind, the program, and what is done"""
    parts: tuple[str, ...]
    separator: str


@dataclass(frozen=True)
class Learned:
    """The rules, and what they do not explain."""

    rules: tuple[LearnedRule, ...]
    unexplained: tuple[Fact, ...]


def learned(one: Behavior, other: Behavior, generalizer: Generalizer) -> Learned:
    """The rules with which two runs would be equal, as far as there are some."""
    sides = [
        [change.fact for change in compare(*pair) if change.kind is ChangeKind.NEW]
        for pair in ((other, one), (one, other))
    ]
    texts = {fact: _text(fact, generalizer) for side in sides for fact in side}
    candidates = defaultdict[tuple[object, ...], list[_Text]](list)
    for fact in sides[1]:
        if (text := texts[fact]) is not None:
            candidates[(*text.head, len(text.parts))].append(text)
    rules, pairs = dict[LearnedRule, None](), 0
    for fact in sides[0]:
        if (text := texts[fact]) is None:
            continue
        others = candidates[(*text.head, len(text.parts))]
        pairs += len(others)
        if pairs > _MOST_PAIRS:
            break
        if proposed := [rule for each in others if (rule := _rule(text, each)) is not None]:
            # The one that says most about the name.
            rules[max(proposed, key=lambda rule: len(rule.before) + len(rule.after))] = None
    left = [{_left(fact, texts[fact], rules) for fact in side} for side in sides]
    explained = left[0] & left[1]
    useful = tuple(rule for rule in rules if any(_uses(rule, text) for text in texts.values()))
    return Learned(useful, tuple(fact for fact in texts if _left(fact, texts[fact], rules) not in explained))


def _text(fact: Fact, generalizer: Generalizer) -> _Text | None:
    """What of a fact may differ by chance; None: nothing."""
    if fact.kind is FactKind.RESOLVE:
        return _Text((fact.unit, fact.kind, fact.program), tuple(fact.value.split(".")), ".")
    if fact.kind not in PATHS:
        return None
    how, path = path_parts(fact.kind, fact.value)
    if not path.startswith("/") or generalizer.is_exact(path) or generalizer.is_sensitive(path):
        return None
    if stands_alone(fact.kind, fact.value):
        return None
    return _Text((fact.unit, fact.kind, fact.program, how), tuple(path.split("/")), "/")


def _rule(one: _Text, other: _Text) -> LearnedRule | None:
    """A rule for the first part in which two texts differ; None: they have too little in common."""
    places = [place for place, pair in enumerate(zip(one.parts, other.parts, strict=True)) if len(set(pair)) > 1]
    if not places or len(places) > max(1, len(one.parts) // 3):
        return None
    place = places[0]
    before, after = (_TOKEN.findall(text.parts[place]) for text in (one, other))
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    random = [tokens[start : len(tokens) - end] for tokens in (before, after)]
    plain = ["".join(token for token in tokens if len(token) == 1) for tokens in random]
    kind = next((each for each in _CLASSES if all(re.fullmatch(f"{each}*", text) for text in plain)), "")
    has_placeholder = any(len(token) > 1 for tokens in random for token in tokens)
    stays = before[:start] + before[len(before) - end :]
    if not kind or not all(random) or (not stays and not has_placeholder and min(map(len, random)) < _LEAST_RANDOM):
        return None
    if one.separator == "/" and place <= _LEAST_FOLDERS:
        return None
    folder = "".join(_expression(_TOKEN.findall(part)) + re.escape(one.separator) for part in one.parts[:place])
    if has_placeholder:
        kind, length = _CLASSES[-1], "+"
    else:
        length = f"{{{len(random[0])}}}" if len(random[0]) == len(random[1]) else "+"
    last = _expression(before[len(before) - end :])
    return LearnedRule(one.separator, folder + _expression(before[:start]), kind + length, last)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many tokens are equal at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _expression(tokens: Iterable[str]) -> str:
    """An expression for a text in which placeholders stand for what rules have replaced."""
    return "".join(
        ".+" if token == _SEVERAL else "[^/]*" if token.startswith("<") and len(token) > 1 else re.escape(token[-1])
        for token in tokens
    )


def _left(fact: Fact, text: _Text | None, rules: Iterable[LearnedRule]) -> tuple[object, ...]:
    """What is left of a fact to compare when the rules are applied."""
    if text is None:
        return (fact,)
    whole = text.separator.join(text.parts)
    for rule in rules:
        if rule.separator == text.separator:
            whole = rule.applied(whole)
    return (*text.head, whole)


def _uses(rule: LearnedRule, text: _Text | None) -> bool:
    whole = "" if text is None or text.separator != rule.separator else text.separator.join(text.parts)
    return rule.applied(whole) != whole


def rules_text(found: Learned, files: Sequence[str]) -> str:
    """A file for --rules."""
    lines = [
        f"# Proposed by kubectl gadget behavior rules --learn {' '.join(files)}: review it, since each rule hides",
        "# all that it covers. Use it with --rules for every baseline and comparison of this job.",
    ]
    for key, separator in (("paths", "/"), ("names", ".")):
        rules = [rule for rule in found.rules if rule.separator == separator]
        lines += [f"{key}:"] if rules else []
        for number, rule in enumerate(rules, 1):
            quoted = rule.match().replace("'", "''")
            lines.append(f"  - {{name: learned {number}, match: '{quoted}', to: '\\1<random>\\2\\3'}}")
    return "\n".join(lines if found.rules else [*lines, "paths: []"]) + "\n"
