"""Learns names that differ by chance from runs that should be equal: `ci run --runs N` keeps them in the baseline, and
`behavior rules --learn A B` proposes rules.

A fact of one run and one of the other that differ in some part of a path, or of a name of DNS, are taken for the same
fact. A rule hides what it covers, so none is proposed for a place where each name counts, nor for the path of a
program; and a rule names the folder, and what stays of the name.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

from kubectl_gadget.behavior.comparison import ChangeKind, all_without_chance, compare, stands_alone
from kubectl_gadget.behavior.facts import PATHS, Behavior, Fact, FactKind, LearnedName, merge, path_parts
from kubectl_gadget.behavior.generalization import Generalizer

_TOKEN = re.compile(r"<[a-z]+>|\\.|.", re.DOTALL)
_SEVERAL = "<shard>"
_LEAST_FOLDERS = 1
_LEAST_RANDOM, _LEAST_COMMON = 6, 3
"""characters of a name that is dropped whole, and of the part of a name that stays"""
_FIELDS = re.compile(r"([-._])")
_COUNTED = re.compile(r"(?=[^0-9<]*[0-9<])([0-9a-z]|<n>|<hex>){6,}")
"""a number in base 36, as some programs write the time"""
_ROUNDS = 8
_LOOSE = re.compile(r"\[[^\]]+\](\+|\{\d+\})")
"""a random part in an expression of a rule"""
_CLASSES = ("[0-9]", "[0-9a-f]", "[A-Za-z0-9]", "[A-Za-z0-9_]")
_MOST_PAIRS = 200_000


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

    @cached_property
    def name(self) -> LearnedName:
        """The rule for texts that built-in rules have changed already: the random part may be a placeholder by now."""
        loose = _LOOSE.sub(r"(?:\g<0>|[^/]*<[a-z]+>[^/]*?)", self.random)
        return LearnedName("path" if self.separator == "/" else "name", self.match(loose))


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
    """Return the rules with which two runs would be equal, if there are any."""
    sides = [
        [change.fact for change in compare(*pair) if change.kind is ChangeKind.NEW]
        for pair in ((other, one), (one, other))
    ]
    texts = {fact: _text(fact, generalizer) for side in sides for fact in side}
    stays = {text for fact in (*one.facts, *other.facts) if fact not in texts and (text := _text(fact, generalizer))}
    rules = dict[LearnedRule, None]()
    for _ in range(_ROUNDS):  # of a path with several random parts, one is found each time
        left = [{_left(fact, texts[fact], rules) for fact in side} for side in sides]
        found = list(_round(left[0] - left[1], left[1] - left[0], [text for text in stays if text.parts]))
        if not (new := dict.fromkeys(rule for rule in found if rule not in rules)):
            break
        rules |= new
    left = [{_left(fact, texts[fact], rules) for fact in side} for side in sides]
    explained = left[0] & left[1]
    return Learned(tuple(rules), tuple(fact for fact in texts if _left(fact, texts[fact], rules) not in explained))


def _round(before: set[_Text], after: set[_Text], stays: Sequence[_Text]) -> Iterator[LearnedRule]:
    """Yield for each text the rule that says most about the random part, of those that change no text of both runs."""
    candidates = defaultdict[tuple[object, ...], list[_Text]](list)
    for text in sorted(after, key=lambda text: text.parts):
        candidates[(*text.head, len(text.parts))].append(text)
    pairs, known = 0, dict[LearnedRule, bool]()
    for text in sorted(before, key=lambda text: text.parts):
        others = candidates[(*text.head, len(text.parts))] if text.parts else []
        pairs += len(others)
        if pairs > _MOST_PAIRS:
            return
        proposed = sorted(
            (rule for each in others if (rule := _rule(text, each)) is not None),
            key=lambda rule: (len(rule.before) + len(rule.after), rule.before),
            reverse=True,
        )
        for rule in proposed:
            if rule not in known:
                expression = re.compile(rule.match())
                of_kind = (rule.separator.join(text.parts) for text in stays if text.separator == rule.separator)
                known[rule] = not any(expression.search(whole) for whole in of_kind)
            if known[rule]:
                yield rule
                break


def _text(fact: Fact, generalizer: Generalizer) -> _Text:
    """Return the parts of a fact that may differ by chance."""
    if fact.kind is FactKind.RESOLVE:
        return _Text((fact.unit, fact.kind, fact.program), tuple(fact.value.split(".")), ".")
    nothing = _Text((fact,), (), "")
    if fact.kind not in PATHS:
        return nothing
    how, path = path_parts(fact.kind, fact.value)
    if not path.startswith("/") or generalizer.is_exact(path) or generalizer.is_sensitive(path):
        return nothing
    if stands_alone(fact.kind, fact.value):
        return nothing
    return _Text((fact.unit, fact.kind, fact.program, how), tuple(path.split("/")), "/")


def _rule(one: _Text, other: _Text) -> LearnedRule | None:
    """A rule for the first part in which two texts differ; None: they have too little in common."""
    places = [place for place, pair in enumerate(zip(one.parts, other.parts, strict=True)) if len(set(pair)) > 1]
    if not places or len(places) > max(1, len(one.parts) // 3):
        return None
    place = places[0]
    if one.separator == "/" and place <= _LEAST_FOLDERS:
        return None
    fields = [_FIELDS.split(text.parts[place]) for text in (one, other)]
    if len(fields[0]) != len(fields[1]) or fields[0][1::2] != fields[1][1::2]:
        fields = [[text.parts[place]] for text in (one, other)]
    pieces = list[tuple[str, bool]]()
    for before, after in zip(*fields, strict=True):
        if before == after:
            pieces.append((_expression(_TOKEN.findall(before)), False))
        elif found := _random(before, after, is_whole=len(fields[0]) == 1):
            pieces += found
        else:
            return None
    differing = [number for number, (_, is_random) in enumerate(pieces) if is_random]
    texts = [text for text, _ in pieces]
    folder = "".join(_expression(_TOKEN.findall(part)) + re.escape(one.separator) for part in one.parts[:place])
    first, last = differing[0], differing[-1] + 1
    return LearnedRule(
        one.separator, folder + "".join(texts[:first]), "".join(texts[first:last]), "".join(texts[last:])
    )


def _random(one: str, other: str, is_whole: bool) -> list[tuple[str, bool]]:
    """The expressions for a field of a name that differs, and which of them is the random part; empty: none fits."""
    before, after = _TOKEN.findall(one), _TOKEN.findall(other)
    start = _common(before, after)
    if not is_whole and all(map(_COUNTED.fullmatch, (one, other))):
        start = 0  # a time, whose beginning stays only for a while
    end = _common(before[start:][::-1], after[start:][::-1])
    if start + end < _LEAST_COMMON:
        start = end = 0
    random = [tokens[start : len(tokens) - end] for tokens in (before, after)]
    plain = ["".join(token for token in tokens if len(token) == 1) for tokens in random]
    kind = next((each for each in _CLASSES if all(re.fullmatch(f"{each}*", text) for text in plain)), "")
    has_placeholder = any(len(token) > 1 for tokens in random for token in tokens)
    is_short = not start and not end and not has_placeholder and min(map(len, random)) < _LEAST_RANDOM
    if not kind or not all(random) or (is_whole and is_short):
        return []
    same = len(random[0]) == len(random[1]) and not has_placeholder
    made = f"{_CLASSES[-1] if has_placeholder else kind}{f'{{{len(random[0])}}}' if same else '+'}"
    last = _expression(before[len(before) - end :])
    return [(_expression(before[:start]), False), (made, True), (last, False)]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The number of tokens that are equal at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _expression(tokens: Iterable[str]) -> str:
    """An expression for a text in which placeholders stand for what rules have replaced."""
    return "".join(
        ".+" if token == _SEVERAL else "[^/]*" if token.startswith("<") and len(token) > 1 else re.escape(token[-1])
        for token in tokens
    )


def _left(fact: Fact, text: _Text, rules: Iterable[LearnedRule]) -> _Text:
    """The part of a fact that is compared when the rules are applied."""
    whole = text.separator.join(text.parts)
    for rule in rules:
        if rule.separator == text.separator:
            whole = rule.name.applied(whole)
    return text._replace(parts=tuple(whole.split(text.separator))) if text.parts else text


def of_one_job(runs: Sequence[Behavior], generalizer: Generalizer) -> Behavior:
    """The behavior in runs of one job, without names that differ by chance between the first run and another."""
    known, *others = runs
    for other in others:
        found = learned(known, all_without_chance(other, known.learned), generalizer)
        known = all_without_chance(known, [rule.name for rule in found.rules])
    return merge([known, *(all_without_chance(other, known.learned) for other in others)])


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
