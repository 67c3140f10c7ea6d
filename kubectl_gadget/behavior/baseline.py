"""Baseline files: a behavior as YAML for a review, sorted, with one fact on a line (docs/behavior.md has the schema).

Values that change with every run (times, counts, rows) are at the end, under `evidence`, so that the lines above it
change only when the behavior does. A fact may hold any text that a container chose, so values are quoted unless they
are plain in every reader of YAML.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from kubectl_gadget.behavior.facts import (
    USUAL_KINDS,
    Behavior,
    Coverage,
    Fact,
    FactKind,
    LearnedName,
    Unit,
    WatchedRun,
    merged,
)
from kubectl_gadget.behavior.risk import re2_expression
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.yaml_files import SchemaField, read_yaml
from kubectl_gadget.yaml_reader import Part, WrongYaml, read_mapping

VERSION = 2
_LEARNED_GROUPS = 3
LARGEST = 64 << 20
_BY, _FROM = "by", "from"
_HEAD = (
    "# What these containers do: a baseline of kubectl gadget behavior. Review and change the facts;\n"
    "# a fact without `pods` or `runs` was seen in all of them. docs/behavior.md explains the fields.\n"
)
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.@+=*<>-]*( [A-Za-z0-9/_.@+=*<>()-]+)*")
_RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_ESCAPED = re.compile(r'["\\]|[^ -~\u00a1-\u01ff\u0370-\u03ff\u0400-\u04ff\u4e00-\u9fff]')
_COUNTS = ("pods", "runs")
_Order = tuple[str, str, int, str, str]
_FACT = (
    *(SchemaField(kind, "text", f"a fact of the kind {kind}") for kind in FactKind),
    SchemaField(_BY, "text", "the program that does it"),
    SchemaField(_FROM, "text", "of a program: the one that starts it"),
    *(SchemaField(name, "integer", f"the number of {name} that it was seen in; default: all") for name in _COUNTS),
)
_CONTAINER = (
    SchemaField("namespace", "text", default=""),
    SchemaField("workload", "text", "KIND/NAME", required=True),
    SchemaField("container", "text", required=True),
    *(SchemaField(name, "integer", f"the number of {name} that were watched", default="1") for name in _COUNTS),
    SchemaField("complete_runs", "integer", "the number of runs without a gap", default="as runs"),
    SchemaField("incomplete", "list of text", "why other runs are not complete"),
    SchemaField("looked_at", "list of text", "the kinds of facts", default="all but syscall", choices=tuple(FactKind)),
    SchemaField("images", "list of text", "the images that the container ran"),
    SchemaField("facts", "list of object", "what it does", fields=_FACT),
)
_RUN = (
    SchemaField("began", "text", "RFC 3339", required=True),
    SchemaField("seconds", "value"),
    SchemaField("lost", "integer", "the number of events that are missing"),
    SchemaField("nodes", "integer"),
)
_LEARNED = tuple(
    SchemaField(name, "text", f"expression of RE2 for a {about}: what differs is between the first two groups")
    for name, about in (("path", "path"), ("name", "name of DNS"))
)
SCHEMA = SchemaField(
    "",
    "object",
    fields=(
        SchemaField("version", "integer", "2", required=True),
        SchemaField("runs", "list of object", "when it was watched", fields=_RUN),
        SchemaField("missing", "list of text", "what could not be watched"),
        SchemaField("learned", "list of object", "names that differ by chance", fields=_LEARNED),
        SchemaField("containers", "list of object", "sorted by their names", fields=_CONTAINER, required=True),
        SchemaField("evidence", "anything", "by a fact's identifier: when it was first seen, how often, a row"),
    ),
)


@dataclass(frozen=True)
class Baseline:
    """A file that was read."""

    file: str
    behavior: Behavior
    lines: Mapping[Fact, int]
    """the line of each fact, from 1"""
    units: Mapping[Unit, int]
    """the line with which each container begins"""
    length: int
    """lines of the file"""

    def line_of(self, fact: Fact) -> int:
        """The line of a fact; of one that is not in the file, the line that it would have there."""
        if fact in self.lines:
            return self.lines[fact]
        if fact.unit in self.units:
            own = self._ordered.get(fact.unit, [])
            place = bisect_left(own, fact.order, key=lambda known: known[0])
            if place:
                return min(own[place - 1][1] + 1, self.length)
            return own[0][1] if own else self.units[fact.unit]
        before = [line for unit, line in self._ends.items() if str(unit) < str(fact.unit)]
        first = min(self.units.values(), default=1)
        return min(max(before, default=first - 1) + 1, self.length)

    @cached_property
    def _ordered(self) -> Mapping[Unit, list[tuple[_Order, int]]]:
        """The lines of each container's facts, in the order of facts."""
        found: dict[Unit, list[tuple[_Order, int]]] = {}
        for fact in sorted(self.lines, key=lambda each: each.order):
            found.setdefault(fact.unit, []).append((fact.order, self.lines[fact]))
        return found

    @cached_property
    def _ends(self) -> Mapping[Unit, int]:
        """The last line of each container."""
        return {
            unit: max((known[1] for known in self._ordered.get(unit, ())), default=line)
            for unit, line in self.units.items()
        }

    def with_workload_of(self, behavior: Behavior) -> "Baseline":
        """The same file with `behavior`, in which the only workload was renamed."""
        # Renaming keeps the order of facts and containers.
        lines = {fact: self.lines[known] for known, fact in zip(self.behavior.facts, behavior.facts, strict=True)}
        units = {unit: self.units[known] for known, unit in zip(self.behavior.coverage, behavior.coverage, strict=True)}
        return replace(self, behavior=behavior, lines=lines, units=units)


def is_baseline(path: Path) -> bool:
    """True if a file is a baseline, by its first bytes; False if it cannot be read."""
    try:
        with path.open("rb") as stream:
            begins = stream.read(4096)
    except OSError:
        return False
    lines = [line for line in begins.splitlines() if line.strip() and not line.startswith((b"#", b"---"))]
    return bool(lines) and lines[0].startswith(b"version:")


def read_baseline(path: Path) -> Baseline:
    """Reads a file. Raises UsageError with the line and column of each mistake."""
    return read_yaml(path, lambda text: parse_baseline(str(path), text), LARGEST)


def parse_baseline(file: str, text: str) -> Baseline:
    """Reads a text. Raises UsageError."""
    whole = read_mapping(file, text, SCHEMA)
    if whole.text("version") != str(VERSION):
        whole.fail(
            "version",
            f"must be {VERSION}: another version of kubectl gadget wrote this file, whose facts mean something else. "
            "Make it again: kubectl gadget behavior save FILE --force, from recordings with --from, or ci run "
            "--report baseline=FILE",
        )
    evidence = whole.part("evidence")
    coverage: dict[Unit, Coverage] = {}
    lines: dict[Fact, int] = {}
    units: dict[Unit, int] = {}
    for part in whole.parts("containers"):
        unit, found = _unit(part), _coverage(part)
        if unit in coverage:
            raise WrongYaml(part.place, f"{unit} appears twice: join the two")
        coverage[unit], units[unit] = found, part.place.line
        for fact_part in part.parts("facts"):
            fact = _with_evidence(_fact(fact_part, unit, found), evidence, found)
            if fact in lines:
                raise WrongYaml(fact_part.place, f"the same fact is in line {lines[fact]}")
            lines[fact] = fact_part.place.line
    runs = tuple(
        WatchedRun(part.text("began"), _number(part, "seconds"), int(_number(part, "lost")), _whole(part, "nodes", 1))
        for part in whole.parts("runs")
    )
    learned = tuple(_learned(part) for part in whole.parts("learned"))
    found_behavior = Behavior(merged(lines), coverage, runs, whole.texts("missing"), learned)
    return Baseline(file, found_behavior, lines, units, text.count("\n") + (not text.endswith("\n")))


def _learned(part: Part) -> LearnedName:
    of = "path" if "path" in part else "name"
    if ("path" in part) is ("name" in part):
        raise WrongYaml(part.place, "must have one of path, name")
    if re2_expression(part, of, part.text(of)).groups < _LEARNED_GROUPS:
        part.fail(of, "must have three groups: what is before, what is after, and what follows the name")
    return LearnedName(of, part.text(of))


def _unit(part: Part) -> Unit:
    kind, slash, name = part.text("workload").partition("/")
    if not slash or not kind or not name:
        part.fail("workload", f"must be KIND/NAME, such as Deployment/web, not {part.text('workload')!r}")
    return Unit(Workload(part.text("namespace"), kind, name), part.text("container"))


def _coverage(part: Part) -> Coverage:
    runs = _whole(part, "runs", 1)
    kinds = frozenset(FactKind(text) for text in part.texts("looked_at")) if "looked_at" in part else USUAL_KINDS
    return Coverage(
        _whole(part, "pods", 1),
        runs,
        min(runs, _whole(part, "complete_runs", runs, least=0)),
        part.texts("incomplete"),
        kinds,
        tuple(sorted(part.texts("images"))),
    )


def _fact(part: Part, unit: Unit, of: Coverage) -> Fact:
    kinds = [kind for kind in FactKind if kind in part]
    if len(kinds) != 1:
        raise WrongYaml(part.place, f"must have one of {', '.join(FactKind)}, and has {len(kinds) or 'none'}")
    kind = kinds[0]
    other, wrong = (_FROM, _BY) if kind is FactKind.PROGRAM else (_BY, _FROM)
    if wrong in part:
        part.fail(wrong, f"does not belong to a fact of the kind {kind}: write {other}")
    program, value = part.text(kind), part.text(other)
    if kind is not FactKind.PROGRAM:
        program, value = value, program
    pods, runs = _whole(part, "pods", of.pods), _whole(part, "runs", of.runs)
    return Fact(unit.workload, unit.container, kind, program, value, pods, runs, images=of.images)


def _with_evidence(fact: Fact, evidence: Part | None, of: Coverage) -> Fact:
    """The fact with its evidence from the end of the file. Lines that people added have none."""
    found = None if evidence is None or fact.id not in evidence else evidence.value(fact.id)
    if not isinstance(found, Mapping):
        return fact
    row, count, images = found.get("row"), found.get("count"), found.get("images")
    return replace(
        fact,
        first_seen=str(found.get("first", "")),
        count=count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 1,
        evidence=dict(row) if isinstance(row, Mapping) else {},
        images=tuple(map(str, images)) if isinstance(images, tuple | list) else of.images,
    )


def _whole(part: Part, key: str, default: int, least: int = 1) -> int:
    if key not in part:
        return default
    number = int(part.text(key), 0)
    if not least <= number < 1 << 31:
        part.fail(key, f"must be at least {least}, not {number}")
    return number


def _number(part: Part, key: str) -> float:
    value = part.value(key)
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else 0.0


def baseline_text(behavior: Behavior, with_evidence: bool = True) -> str:
    return _HEAD + "".join(f"{line}\n" for line in _lines(behavior, with_evidence))


def _lines(behavior: Behavior, with_evidence: bool) -> Iterator[str]:
    yield f"version: {VERSION}"
    if behavior.runs:
        yield "runs:"
        for run in behavior.runs:
            lost = f", lost: {run.lost}" if run.lost else ""
            yield f"  - {{began: {_scalar(run.began)}, seconds: {run.seconds:g}, nodes: {run.nodes}{lost}}}"
    if behavior.missing:
        yield "missing:"
        yield from (f"  - {_scalar(text)}" for text in behavior.missing)
    if behavior.learned:
        yield "learned: # names that differ by chance between runs of this job"
        yield from (f"  - {{{rule.of}: {_scalar(rule.match)}}}" for rule in behavior.learned)
    yield "containers:" if behavior.coverage else "containers: []"
    for unit, coverage in sorted(behavior.coverage.items(), key=lambda item: str(item[0])):
        yield from _container_lines(behavior, unit, coverage)
    if with_evidence and behavior.facts:
        yield "evidence: # for each fact, by its identifier: not for reviews"
        for fact in behavior.facts:
            yield f"  {fact.id}: {_evidence(fact, behavior.coverage.get(fact.unit))}"


def _container_lines(behavior: Behavior, unit: Unit, coverage: Coverage) -> Iterator[str]:
    workload = unit.workload
    yield f"  - workload: {_scalar(f'{workload.kind}/{workload.name}')}"
    if workload.namespace:
        yield f"    namespace: {_scalar(workload.namespace)}"
    yield f"    container: {_scalar(unit.container)}"
    if coverage.images:
        yield f"    images: [{', '.join(map(_scalar, coverage.images))}]"
    yield f"    pods: {coverage.pods}"
    yield f"    runs: {coverage.runs}"
    if coverage.has_gaps:
        yield f"    complete_runs: {coverage.complete_runs}"
    if coverage.incomplete:
        yield f"    incomplete: [{', '.join(map(_scalar, coverage.incomplete))}]"
    if coverage.kinds != USUAL_KINDS:
        yield f"    looked_at: [{', '.join(kind for kind in FactKind if kind in coverage.kinds)}]"
    facts = list(behavior.of(unit))
    yield "    facts:" if facts else "    facts: []"
    for fact in facts:
        yield f"      - {fact_line(fact, coverage)}"


def fact_line(fact: Fact, of: Coverage) -> str:
    """The fact as a mapping of YAML on one line."""
    first, second = (fact.program, fact.value) if fact.kind is FactKind.PROGRAM else (fact.value, fact.program)
    parts = [f"{fact.kind}: {_scalar(first)}"]
    if second:
        parts.append(f"{_FROM if fact.kind is FactKind.PROGRAM else _BY}: {_scalar(second)}")
    parts += [f"{name}: {seen}" for name in _COUNTS if (seen := getattr(fact, name)) != getattr(of, name)]
    return f"{{{', '.join(parts)}}}"


def _evidence(fact: Fact, of: Coverage | None) -> str:
    known: dict[str, object] = {"first": fact.first_seen, "count": fact.count}
    if of is not None and fact.images != of.images:
        known["images"] = list(fact.images)
    if fact.evidence:
        known["row"] = dict(fact.evidence)
    return _flow(known)


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_scalar(str(key))}: {_flow(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str) -> str:
    """A text as YAML: without quotes if every reader reads it as this text, else in double quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(found: "re.Match[str]") -> str:
    character = found.group()
    number = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if 0xD800 <= number < 0xE000:  # a byte that is no UTF-8 (PEP 383), or half a character: YAML has neither
        return f"\\\\x{number & 0xFF:02x}"
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
