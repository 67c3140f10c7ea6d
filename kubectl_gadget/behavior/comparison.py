"""Compares two behaviors: finds facts that are new, gone or more frequent, the most serious first.

Absent facts prove nothing where something was not watched. So "gone" is said only where both sides were watched
completely, and "new" has a doubt where the old side was not; `doubts` says what makes a whole comparison inconclusive,
which callers must not take for "nothing changed".
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from kubectl_gadget.behavior.facts import (
    ALREADY_RUNNING,
    CONTENT,
    PATHS,
    READ,
    RUNTIME,
    Behavior,
    Coverage,
    Fact,
    FactKind,
    LearnedName,
    Unit,
    is_of_removed,
    merged,
    path_parts,
)
from kubectl_gadget.behavior.risk import Risk, encodable, programs, risk_of, risks
from kubectl_gadget.output.escape import for_html, for_markdown, markdown_table
from kubectl_gadget.wording import count, some

# Patterns: how a general fact covers a special one. `read /usr/lib/python3/*` covers every file below that directory.
# `diff` and `check` both use it. Only opens and changes of files have patterns. A program is known by its whole path,
# so that no pattern hides a new one in /tmp; but what started it is not known if it ran before.

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
def stands_alone(kind: FactKind, value: str) -> bool:
    """True if an open or a change is about files so sensitive that no pattern of a directory above may cover them."""
    return any(risk.alone and risk.fits_value(kind, value) for risk in risks())


def is_pattern(fact: Fact) -> bool:
    """True if it stands for everything below a directory."""
    return fact.kind in PATHS and fact.value.endswith(ANYTHING)


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
        if fact.kind is FactKind.DEPENDENCY:
            return self._lacks_contents(fact)
        if key not in self._with_pattern:
            return False
        patterns = (pattern for pattern in covering(fact.value) if pattern in values)
        # A pattern of /home/me/.ssh itself says what it is about; one of /home/me does not. What is changed where each
        # name counts, such as /usr/bin, no pattern covers.
        if not stands_alone(fact.kind, fact.value):
            return any(True for _ in patterns)
        return fact.value.startswith(f"{READ} ") and any(stands_alone(fact.kind, pattern) for pattern in patterns)

    def _lacks_contents(self, fact: Fact) -> bool:
        """True if these facts do not say what a library contains, which is not always known. That the library is used
        at all is a fact of its file."""
        library, _, version = fact.value.rpartition(" ")
        start = f"{library} {CONTENT}"
        known = self._values.get(_key(fact), ())
        return version.startswith(CONTENT) and not any(value.startswith(start) for value in known)

    def versions_before(self, fact: Fact) -> tuple[str, ...]:
        """The other versions of a dependency."""
        if fact.kind is not FactKind.DEPENDENCY:
            return ()
        name, _, version = fact.value.rpartition(" ")
        known = (value.rpartition(" ") for value in self._values.get(_key(fact), ()))
        found = sorted(other for of, _, other in known if of == name and other != version)
        return tuple(found) if is_version(version) else ()

    def ran_before(self, fact: Fact) -> bool:
        """True if the program of a fact was already running, so that it is unknown what started it."""
        return fact.kind is FactKind.PROGRAM and ALREADY_RUNNING in self._values.get(_key(fact), ())

    def names_below(self, pattern: Fact) -> int:
        """The number of names that these facts have in the directory of a pattern. Files further below do not count:
        otherwise a program with many files in a deep directory could open anything in all the directories above."""
        start = pattern.value.removesuffix("*")
        values = self._values.get(_key(pattern), ())
        return len({value[len(start) :].partition("/")[0] for value in values if value.startswith(start)})


def _may_be(starter: str, known: Collection[str]) -> bool:
    """True if a known program may have been started as before. A shell that was already running says nothing about one
    that a web server starts; it may be the first program of the container."""
    return bool(known) and (starter == ALREADY_RUNNING or (starter == RUNTIME and ALREADY_RUNNING in known))


def is_version(text: str) -> bool:
    """True if the last word of a dependency is its version. A name that no version follows is only a name."""
    return text.startswith(CONTENT) or text[:1].isdigit() or (text[:1] == "v" and text[1:2].isdigit())


def _key(fact: Fact) -> _Key:
    return fact.unit, fact.kind, fact.program


# Changes

_NAMED = 3
"""how many containers a doubt names"""
_NEARLY = 5
"""A pattern is known if the old side has as many names in its directory: it only just stayed below the threshold."""


class ChangeKind(StrEnum):
    """The ways in which a fact can change."""

    NEW = "new"
    COUNT = "count"
    GONE = "gone"


_ORDER = {kind: number for number, kind in enumerate(ChangeKind)}


def without_chance(fact: Fact, learned: Iterable[LearnedName]) -> Fact:
    """The fact without names that differ by chance."""
    if (fact.kind not in PATHS and fact.kind is not FactKind.RESOLVE) or stands_alone(fact.kind, fact.value):
        return fact
    how, text = path_parts(fact.kind, fact.value) if fact.kind in PATHS else ("", fact.value)
    for rule in learned:
        if (rule.of == "path") is bool(how):
            text = rule.applied(text)
    return replace(fact, value=f"{how} {text}" if how else text)


def all_without_chance(behavior: Behavior, learned: Sequence[LearnedName]) -> Behavior:
    """The behavior without names that differ by chance."""
    if not learned:
        return behavior
    found: dict[Fact, Fact] = {}
    for each in behavior.facts:
        fact = without_chance(each, learned)
        known = found.get(fact, fact)
        pods, runs = max(known.pods, fact.pods), max(known.runs, fact.runs)
        found[fact] = replace(known, pods=pods, runs=runs, count=known.count + (fact.count if fact in found else 0))
    return replace(behavior, facts=merged(found.values()), learned=tuple(dict.fromkeys((*behavior.learned, *learned))))


@dataclass(frozen=True)
class Change:
    """One difference."""

    kind: ChangeKind
    fact: Fact
    """as in the new behavior; for a fact that is gone, as in the old one"""
    risk: Risk
    other_image: bool = False
    """the container runs an image that the old side has not seen, or the other way round for what is gone"""
    new_unit: bool = False
    """the old side does not have the container at all"""
    doubt: str = ""
    """why a new fact may not be new: the old side is incomplete"""
    before: int = 0
    """the old count for each pod; `after` is the new one"""
    after: int = 0
    versions: tuple[str, ...] = ()
    """of a new version of a dependency: those that the old side has"""

    @property
    def says(self) -> str:
        """The fact in words; of a dependency, from which version to which."""
        if not self.versions:
            return self.fact.says
        name, _, version = self.fact.says.rpartition(" ")
        return f"{name} {', '.join(self.versions)} → {version}"

    @property
    def techniques(self) -> tuple[str, ...]:
        """The techniques of MITRE ATT&CK; none for a fact that is gone."""
        return () if self.kind is ChangeKind.GONE else self.risk.techniques

    @property
    def order(self) -> tuple[object, ...]:
        """The key by which changes are sorted."""
        return _ORDER[self.kind], self.risk.rank, *self.fact.order


def compare(old: Behavior, new: Behavior, count_factor: float | None = None) -> tuple[Change, ...]:
    """Return the changes from old to new. `count_factor`: also facts that are more, or less, frequent per pod by this
    factor."""
    old, new = all_without_chance(old, new.learned), all_without_chance(new, old.learned)
    known, after = KnownFacts(old.facts), KnownFacts(new.facts)
    ran_before, counts = programs(old.facts), {fact: fact for fact in old.facts}
    found = list[Change]()
    for fact in new.facts:
        before = old.coverage.get(fact.unit)
        if before is not None and fact.kind not in before.kinds:
            continue  # the old side was not watched for it
        if is_of_removed(fact):
            continue
        if known.has(fact) or (is_pattern(fact) and known.names_below(fact) >= _NEARLY):
            if count_factor is not None and fact in counts:
                found += _count(counts[fact], fact, old, new, count_factor, risk_of(fact, ran_before))
            continue
        found.append(new_change(fact, before, ran_before, known.versions_before(fact)))
    replaced = {
        (change.fact.unit, f"{change.fact.value.rpartition(' ')[0]} {version}")
        for change in found
        for version in change.versions
    }
    for fact in old.facts:
        if fact.kind is FactKind.DEPENDENCY and (fact.unit, fact.value) in replaced:
            continue
        before, now = old.coverage.get(fact.unit), new.coverage.get(fact.unit)
        if before is None or now is None or not before.complete_runs or now.has_gaps or fact.kind not in now.kinds:
            continue  # that it was not seen proves nothing
        if fact.runs < before.runs or is_of_removed(fact):
            continue  # not each run of the old side has it, or needs to
        if not (after.has(fact) or after.ran_before(fact) or (is_pattern(fact) and after.names_below(fact))):
            other = not set(now.images) <= set(before.images)
            found.append(Change(ChangeKind.GONE, fact, risk_of(fact, ran_before), other))
    return tuple(sorted(found, key=lambda change: change.order))


def new_change(
    fact: Fact, before: Coverage | None, ran_before: Set[tuple[Unit, str]], versions: tuple[str, ...] = ()
) -> Change:
    """The change for a new fact. `before`: how much of its container the old side has; `ran_before`: programs;
    `versions`: the old side's versions of the same dependency."""
    risk = risk_of(fact, ran_before)
    if before is None:
        return Change(ChangeKind.NEW, fact, risk, other_image=False, new_unit=True)
    doubt = "" if before.complete_runs else "; ".join(before.incomplete) or "the old side is incomplete"
    other = not set(fact.images) <= set(before.images)
    return Change(ChangeKind.NEW, fact, risk, other, doubt=doubt, versions=versions)


def _count(before: Fact, after: Fact, old: Behavior, new: Behavior, factor: float, risk: Risk) -> Iterator[Change]:
    of_pods = [max(1, side.coverage[after.unit].pods) for side in (old, new) if after.unit in side.coverage]
    if len(of_pods) == 2:
        one, other = (max(1, round(fact.count / pods)) for fact, pods in zip((before, after), of_pods, strict=True))
        if max(one, other) >= factor * min(one, other):
            yield Change(ChangeKind.COUNT, after, risk, before=one, after=other)


def doubts(old: Behavior, new: Behavior) -> tuple[str, ...]:
    """Return why changes may have been missed; none: the comparison is conclusive."""
    units: dict[str, list[str]] = {}
    for unit, now in sorted(new.coverage.items(), key=lambda item: str(item[0])):
        before = old.coverage.get(unit)
        reasons = (now.incomplete or ("the new side is incomplete",)) if now.has_gaps else ()
        if before is not None:
            if not before.complete_runs:
                reasons += tuple(f"the old side: {reason}" for reason in before.incomplete or ("it is incomplete",))
            for side, kinds in (("old", now.kinds - before.kinds), ("new", before.kinds - now.kinds)):
                if names := ", ".join(kind for kind in FactKind if kind in kinds):
                    reasons += (f"the {side} side was not watched for: {names}",)
        for reason in reasons:
            units.setdefault(reason, []).append(str(unit))
    for unit in sorted(old.coverage.keys() - new.coverage.keys(), key=str):
        units.setdefault("did not run on the new side", []).append(str(unit))
    found = [*old.missing, *new.missing, *(f"{some(names, _NAMED)}: {reason}" for reason, names in units.items())]
    if not new.coverage:
        found.append("no container ran on the new side")
    return tuple(dict.fromkeys(found))


def paired(old: Behavior, new: Behavior) -> Behavior:
    """The old behavior, with its workload renamed if each side has one workload and the names differ."""
    before, after = ({unit.workload for unit in side.coverage} for side in (old, new))
    if len(before) == len(after) == 1 and before != after:
        return old.renamed(dict(zip(before, after, strict=True)))
    return old


# Changes as text, JSON, Markdown and HTML: the worst first, and what a new program does folded below it.
#
# Every text here may have been chosen by a container, and Markdown and HTML are read by programs with rights of their
# own; so each format escapes everything that it would interpret.


_MOST_ROWS = 20
_HEAD = ("change", "level", "container", "what", "ATT&CK")
_TITLES = {
    ChangeKind.NEW: "new",
    ChangeKind.COUNT: "more or less often",
    ChangeKind.GONE: "gone",
}


def change_json(change: Change) -> dict[str, object]:
    return {
        "change": str(change.kind),
        "level": change.risk.level,
        "risk": change.risk.name,
        "attack": list(change.techniques),
        **change.fact.to_json(
            {
                "text": change.says,
                "versions_before": list(change.versions) or None,
                "other_image": change.other_image,
                "new_container": change.new_unit,
                "doubt": change.doubt or None,
                "before": change.before or None,
                "after": change.after or None,
            }
        ),
    }


def json_report(changes: Sequence[Change], doubts: Sequence[str]) -> str:
    return json.dumps({"changes": list(map(change_json, changes)), "inconclusive": list(doubts)}, indent=2) + "\n"


def verdict(changes: Sequence[Change], doubts: Sequence[str]) -> str:
    if not changes:
        return "no changes were seen, but the comparison is inconclusive" if doubts else "no changes"
    counts = [f"{n} {_TITLES[kind]}" for kind in ChangeKind if (n := sum(c.kind is kind for c in changes))]
    return ", ".join(counts) + (" (inconclusive: there may be more)" if doubts else "")


def text_report(changes: Sequence[Change], doubts: Sequence[str]) -> Iterator[str]:
    """Lines for people, not escaped."""
    yield verdict(changes, doubts)
    for (kind, image), part in _sections(changes):
        yield ""
        yield f"{_TITLES[kind].upper()}{image}"
        for unit, of_unit in _by_unit(part):
            yield f"  {unit}{'  (a new container)' if of_unit[0].new_unit else ''}"
            for change, folded in _folded(of_unit):
                yield f"    {_level(change):<7}  {_what(change)}"
                if folded:
                    yield f"             and {count(folded, 'note')} of this program"
    if doubts:
        yield ""
        yield "INCONCLUSIVE"
        yield from (f"  {text}" for text in doubts)


def markdown_report(changes: Sequence[Change], doubts: Sequence[str]) -> Iterator[str]:
    """A verdict, a table of the worst, and the rest folded."""
    yield f"**Behavior: {for_markdown(verdict(changes, doubts))}**"
    if changes:
        yield ""
        yield from _table(changes[:_MOST_ROWS])
    if changes[_MOST_ROWS:]:
        yield ""
        yield f"<details><summary>{len(changes) - _MOST_ROWS} more</summary>"
        yield ""
        yield from _table(changes[_MOST_ROWS:])
        yield ""
        yield "</details>"
    if doubts:
        yield ""
        yield "Inconclusive:"
        yield ""
        yield from (f"- {for_markdown(text)}" for text in doubts)


def _table(changes: Iterable[Change]) -> Iterator[str]:
    return markdown_table(_HEAD, (map(for_markdown, _cells(change)) for change in changes))


def html_report(changes: Sequence[Change], doubts: Sequence[str]) -> Iterator[str]:
    """One self-contained page without scripts."""
    yield '<!doctype html><html lang="en"><meta charset="utf-8"><title>Behavior</title>'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield (
        "<style>body{font:14px/1.4 system-ui,sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border-bottom:1px solid #ddd;padding:.3em .6em;text-align:left;vertical-align:top}"
        "td{overflow-wrap:anywhere}"
        ".error{color:#b00}.warning{color:#850}</style>"
    )
    yield f"<h1>{for_html(verdict(changes, doubts))}</h1>"
    if changes:
        yield f"<table><tr><th>{'<th>'.join(map(for_html, _HEAD))}</tr>"
        for change in changes:
            yield f'<tr class="{_level(change)}"><td>{"<td>".join(map(for_html, _cells(change)))}</tr>'
        yield "</table>"
    if doubts:
        yield f"<h2>Inconclusive</h2><ul>{''.join(f'<li>{for_html(text)}' for text in doubts)}</ul>"
    yield "</html>"


def _cells(change: Change) -> tuple[str, ...]:
    image = ", other image" if change.other_image else ""
    return f"{change.kind}{image}", _level(change), str(change.fact.unit), _what(change), " ".join(change.techniques)


def _level(change: Change) -> str:
    """The level of the change; empty for a fact that is gone."""
    return "" if change.kind is ChangeKind.GONE else change.risk.level


def _what(change: Change) -> str:
    risk = "" if change.kind is ChangeKind.GONE else f"{change.risk.name}: "
    return f"{risk}{change.fact.says}{_more(change)}"


def _sections(changes: Sequence[Change]) -> Iterator[tuple[tuple[ChangeKind, str], list[Change]]]:
    for kind in ChangeKind:
        for other, words in ((False, " with the same image"), (True, " with another image")):
            found = [change for change in changes if change.kind is kind and change.other_image is other]
            known = any(change.fact.images for change in found)
            if found:
                yield (kind, words if known or other else ""), found


def _by_unit(changes: Iterable[Change]) -> list[tuple[Unit, list[Change]]]:
    found: dict[Unit, list[Change]] = {}
    for change in changes:
        found.setdefault(change.fact.unit, []).append(change)
    return list(found.items())


def _folded(changes: Sequence[Change]) -> Iterator[tuple[Change, int]]:
    """Changes, each with the number of notes that are left out after it, such as a new program's reads of its
    libraries."""
    started = {c.fact.program for c in changes if c.fact.kind is FactKind.PROGRAM and c.kind is ChangeKind.NEW}
    left = Counter(c.fact.program for c in changes if _is_folded(c, started))
    for change in changes:
        if not _is_folded(change, started):
            is_program = change.fact.kind is FactKind.PROGRAM
            yield change, left.pop(change.fact.program, 0) if is_program else 0


def _is_folded(change: Change, started: Set[str]) -> bool:
    return change.risk.level == "note" and change.fact.program in started


def _more(change: Change) -> str:
    parts = []
    if change.kind is ChangeKind.COUNT:
        parts.append(f"{change.before:,} times per pod before, {change.after:,} now")
    if change.techniques:
        parts.append(" ".join(change.techniques))
    if change.doubt:
        parts.append("may not be new")
    return f"  [{'; '.join(parts)}]" if parts else ""
