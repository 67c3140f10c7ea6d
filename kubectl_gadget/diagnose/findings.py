"""Findings: rules applied to what was seen, one finding per cause, with the findings that it explains below it."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import groupby
from math import isfinite
from typing import Any

from kubectl_gadget.diagnose.cluster import Cluster, Name, Places
from kubectl_gadget.diagnose.observations import EVIDENCE, Evidence, Observation, Observations, Owner
from kubectl_gadget.diagnose.rules import PLACEHOLDER, Confidence, Relation, Rule, Scope, SeenSet, Words
from kubectl_gadget.output.columns import choose_columns, headings
from kubectl_gadget.output.escape import printable
from kubectl_gadget.output.row_texts import cells
from kubectl_gadget.reports.model import EvidenceTable, Explanation, Finding, Severity, Where
from kubectl_gadget.wire.policy_events import rfc3339

KIND = "diagnosis"
"""of the checks that rules are, in reports"""
_SCOPE = re.compile(r" -n (?= |$) *")
"""A command's scope without a namespace"""
_LONGEST = 160
"""Characters of a value in a finding's words."""
_MOST_LISTED = 5
_MOST_EACH = 50
"""Observations of a set that `when` can go through."""


@dataclass(frozen=True)
class RunFacts:
    """Facts about the run that rules can use."""

    seconds: float = 0.0
    """traced so far"""
    began_ns: int = 0
    """when everything was attached (wall time)"""
    is_whole: bool = True
    """nothing was lost, and each selected node was traced"""


@dataclass
class Found:
    """One cause, or a symptom whose cause is not known, while pods and rows are added to it."""

    rule: Rule
    about: str
    """the workload: shop/deploy/web"""
    namespace: str
    """empty: it is about a node"""
    key: tuple[str, ...]
    words: Words
    """with all placeholders filled in"""
    containers: set[Owner] = field(default_factory=set)
    """whose rows are the evidence"""
    pods: set[Name] = field(default_factory=set)
    """whom it is about"""
    others: set[Name] = field(default_factory=set)
    """at the other end: those that it affects, or those that they talk to"""
    of: int = 0
    """how many pods the workload has"""
    changed: str = ""
    """what the workload's last rollout changed"""
    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    evidence: list[Evidence] = field(default_factory=list)
    explains: "list[Found]" = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """Return how bad it is: at least as bad as what it explains."""
        order = list(Severity)
        return min((self.rule.severity, *(each.severity for each in self.explains)), key=order.index)

    @property
    def confidence(self) -> Confidence:
        return self.rule.confidence

    @property
    def all_pods(self) -> set[Name]:
        """Return the pods that it is about, and those at the other end."""
        return {name for name in self.pods | self.others if name[1]}

    @property
    def id(self) -> str:
        """Return a text that is the same for the same cause in each run."""
        text = "\0".join((self.rule.name, self.about, *self.key))
        return f"{self.rule.name}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"

    @property
    def rank(self) -> tuple[int, int, int]:
        """Return its place among others: the worst and surest first."""
        return (
            list(Severity).index(self.severity),
            list(Confidence).index(self.confidence),
            -sum(1 + len(each.explains) for each in self.explains),
        )

    def all(self) -> "Iterator[Found]":
        """Yield the finding and all that it explains."""
        yield self
        for each in self.explains:
            yield from each.all()

    def finding(self) -> Finding:
        """Return it as all reports have it."""
        words = self.words
        containers = sorted({each.container for each in self.containers if each.container})
        return Finding(
            rule=f"{KIND}/{self.rule.name}",
            level=self.severity,
            message=words.title,
            where=Where(self.namespace, self.about.removeprefix(f"{self.namespace}/")),
            identity=self.key,
            evidence=tuple(dict(each.record) for each in self.evidence),
            count=self.count,
            first_seen=rfc3339(self.first_ns) if self.first_ns else "",
            last_seen=rfc3339(self.last_ns) if self.last_ns else "",
            id=self.id,
            tables=tuple(tables(self.evidence)),
            explanation=Explanation(
                confidence=str(self.confidence),
                why=words.why,
                cause=words.cause,
                changed=self.changed,
                remedy=words.remedy,
                more=words.more,
                pods=_names(self.pods),
                of_pods=self.of,
                others=_names(self.others),
                nodes=tuple(sorted({each.node for each in self.containers if each.node})),
                containers=tuple(containers),
                explains=tuple(each.finding() for each in self.explains),
            ),
        )


class Diagnosis:
    """Applies rules. Both `cluster` and what was observed may have grown before the next call of `findings`."""

    def __init__(self, rules: Sequence[Rule], observations: Observations, places: Places) -> None:
        self._rules = rules
        self._seen = observations
        self._places = places
        self.cluster = Cluster({})
        self._peers: dict[tuple[str, int], tuple[dict[str, object], set[Name]]] = {}
        self.unknown: set[str] = set()
        """addresses at the other end that may belong to pods that were not listed"""

    def findings(self, run: RunFacts) -> list[Found]:
        """Return the roots, the worst first."""
        self._peers.clear()
        self.unknown.clear()
        found: dict[tuple[str, ...], Found] = {}
        for rule in self._rules:
            for observation in self._seen.of(rule.seen[0]):
                self._apply(rule, observation, run, found)
        return _roots(list(found.values()))

    def _apply(self, rule: Rule, first: Observation, run: RunFacts, found: dict[tuple[str, ...], Found]) -> None:
        values, others, joined = self._values(rule, first, run)
        if values is None or not rule.when.matches(values):
            return
        for each in (first, *joined):
            each.is_needed = True
        owner = first.owner
        name = (owner.namespace, owner.pod)
        is_peer = rule.about == "peer" and bool(others)
        about = min(others) if is_peer else name
        whom = f"{about[0]}/{self._workload(about, first)}" if about[0] else self._workload(about, first)
        key = (rule.name, whom, *(_text(_value(values, path)) for path in rule.key))
        finding = found.get(key)
        if finding is None:
            words = Words(**{name: filled(text, values) for name, text in vars(rule.words).items()})
            if not owner.namespace:  # a process in no pod
                words = replace(words, more=_SCOPE.sub(" ", words.more).rstrip())
            finding = found[key] = Found(rule, whom, about[0], key[2:], words)
            finding.of = self.cluster.replicas(about)
            finding.changed = printable(self.cluster.change(about[0], self.cluster.workload(about)), _LONGEST)
        finding.containers.add(owner)
        (finding.others if is_peer else finding.pods).add(name)
        (finding.pods if is_peer else finding.others).update(others)
        finding.count += values[rule.seen[0].name]["count"]
        finding.first_ns = min(filter(None, (finding.first_ns, first.first_ns)), default=0)
        finding.last_ns = max(finding.last_ns, first.last_ns)
        finding.evidence = [*finding.evidence, *first.rows][:EVIDENCE]

    def _workload(self, name: Name, first: Observation) -> str:
        if name[1]:
            return self.cluster.workload(name)
        row = first.record
        if service := row.get("service"):
            return f"service/{service}"
        return str(row.get("workload") or "") or f"node/{first.owner.node}"

    def _values(
        self, rule: Rule, first: Observation, run: RunFacts
    ) -> tuple[dict[str, Any] | None, set[Name], list[Observation]]:
        """Return the values for `when` and words (None: unknown), the pods at the other end, what was joined."""
        primary = rule.seen[0]
        if not self._count(primary, first):
            return None, set(), []
        owner, others, joined = first.owner, set[Name](), list[Observation]()
        values: dict[str, Any] = {
            "run": {"seconds": run.seconds, "whole": run.is_whole and self._seen.is_whole},
            "self": self._entity(owner),
            primary.name: self._view(primary, [first], run),
        }
        if rule.peer is not None:
            by = dict(zip(primary.by, first.key, strict=True))
            address, port = _address(by.get(rule.peer[0])), by.get(rule.peer[1])
            values["peer"], others = self._peer(address, port if isinstance(port, int) else 0)
            if (name := by.get(rule.peer[2])) and values["peer"]["kind"] in ("world", "unknown"):
                values["peer"] = values["peer"] | {"name": _text(name)}
        for seen in rule.seen[1:]:
            matching = [
                each
                for each in self._in_scope(seen, owner, others)
                if all(
                    each.key[seen.by.index(column)] == _value(values, path)
                    for column, path in seen.match.items()
                    if column in seen.by
                )
            ]
            if not matching and seen.match and owner in self._seen.of(seen).full:
                return None, set(), []  # it may be among what found no room
            values[seen.name] = self._view(seen, matching, run)
            joined += matching[:_MOST_EACH]
        return values, others, joined

    def _in_scope(self, seen: SeenSet, owner: Owner, others: set[Name]) -> Iterator[Observation]:
        watch = self._seen.of(seen)
        name = (owner.namespace, owner.pod)
        if seen.of is Scope.CONTAINER and seen.gadget is not None:
            yield from watch.found.get(owner, {}).values()
            return
        of = self.cluster.workload(name)
        for each in watch:
            its = (each.owner.namespace, each.owner.pod)
            match seen.of:
                case Scope.CONTAINER:
                    fits = its == name and each.owner.container in ("", owner.container)
                case Scope.POD:
                    fits = its == name
                case Scope.WORKLOAD:
                    row = each.record
                    fits = its[0] == name[0] and of in (self.cluster.workload(its), row.get("workload"))
                case Scope.PEER:
                    fits = its in others
                case Scope.NODE:
                    fits = each.owner.node == owner.node
            if fits:
                yield each

    def _count(self, seen: SeenSet, found: Observation) -> int:
        """Return how often it was seen; of a snapshot, in its latest turn."""
        if seen.gadget is not None and seen.gadget.kind == "snapshot":
            return found.count if found.turn == self._seen.of(seen).latest(found.turns) else 0
        return found.count

    def _view(self, seen: SeenSet, found: Sequence[Observation], run: RunFacts) -> dict[str, object]:
        counts = [self._count(seen, each) for each in found]
        count = sum(counts)
        first = min((each.first_ns for each in found if each.count), default=0)
        last = max((each.last_ns for each in found), default=0)
        rows = [row.record for each in found for row in each.rows]

        def since(wall_ns: int) -> float:
            return (wall_ns - run.began_ns) / 1e9 if wall_ns else 0.0

        view: dict[str, object] = dict(rows[0]) if rows and seen.object else {}
        view |= {
            "count": count,
            "rate": count * 60 / max(run.seconds, 1.0),
            "first": since(first),
            "last": since(last),
            "seconds": (last - first) / 1e9 if first else 0.0,
            "before": sum(each.before for each in found),
            "row": dict(rows[0]) if rows else {},
            "each": [
                {**dict(zip(seen.by, map(_plain, each.key), strict=True)), "count": number, "last": since(each.last_ns)}
                for each, number in zip(found[:_MOST_EACH], counts, strict=False)
            ],
        }
        for place, column in enumerate(seen.by):
            view[column] = _plain(found[0].key[place]) if found else None
        for name in seen.measure:
            view[f"sum_{name}"] = _whole(sum(each.sums.get(name, 0) for each in found))
            view[f"max_{name}"] = _whole(max((each.most.get(name, 0) for each in found), default=0))
            view[f"before_{name}"] = _whole(
                sum((each.sums_before if each.turn else each.sums).get(name, 0) for each in found)
            )
        return view

    def _entity(self, owner: Owner) -> dict[str, object]:
        name = (owner.namespace, owner.pod)
        return {
            "namespace": owner.namespace,
            "pod": owner.pod,
            "container": owner.container,
            "node": owner.node,
            "workload": self.cluster.workload(name) if owner.pod else f"node/{owner.node}",
            "object": self.cluster.workload(name) if owner.pod else f"node/{owner.node}",
            "pods": self.cluster.replicas(name),
            "policies": self.cluster.policies_of(name, "Egress"),
        }

    def _peer(self, address: str, port: int) -> tuple[dict[str, Any], set[Name]]:
        known = self._peers.get((address, port))
        if known is None:
            peer = self.cluster.peer(address, port, self._places)
            known = self._peers[address, port] = peer, set(self.cluster.pods_of(address, self._places))
            if peer["kind"] == "unknown":
                self.unknown.add(address)
        return known


def filled(text: str, values: Mapping[str, object]) -> str:
    """Return a text with its placeholders filled in. Values are made safe for a terminal, and cannot add lines."""
    return PLACEHOLDER.sub(lambda found: _formatted(_value(values, found[1]), found[2] or ""), text)


def _address(value: object) -> str:
    """Return an IP address as it is; empty if it is none: a user's rule may name another column."""
    try:
        ip_address(text := str(value))
    except ValueError:
        return ""
    return text


def _value(values: Mapping[str, object], path: str) -> object:
    found: object = values
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _formatted(value: object, how: str) -> str:
    if how == "pod":
        return f"pod/{printable(_text(value), _LONGEST)}" if value else "the node"
    if isinstance(value, int | float) and not isinstance(value, bool):
        match how:
            case "seconds":
                return f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"
            case "ns":
                if value >= 1e11:
                    return f"{value / 1e9:,.0f} s"
                return f"{value / 1e9:.2g} s" if value >= 1e9 else f"{value / 1e6:.3g} ms"
            case "bytes":
                for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
                    if value >= size:
                        return f"{value / size:.3g} {unit}"
                return f"{value:g} B"
            case "mode":
                return f"{int(value):04o}"
            case "count":
                return f"{value:,.0f}"
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, list | tuple):
        shown = [_text(item) for item in value[:_MOST_LISTED]]
        more = f" and {len(value) - _MOST_LISTED} more" if len(value) > _MOST_LISTED else ""
        return printable(", ".join(shown), _LONGEST) + more
    return printable(_text(value), _LONGEST)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _whole(number: float) -> int:
    """Return a whole number; 0 for what is none, which only a spoilt recording has."""
    return round(number) if isfinite(number) else 0


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# Which finding explains which.


def _roots(found: list[Found]) -> list[Found]:
    """Put symptoms below what explains them, and return the rest, the worst first."""
    ordered = sorted(found, key=lambda each: each.rank)
    causes: dict[int, Found] = {}
    for symptom in ordered:
        for cause in ordered:
            if cause is not symptom and _explains(cause, symptom) and not _leads_to(causes, cause, symptom):
                causes[id(symptom)] = cause
                break
    for symptom in ordered:
        if (found_cause := causes.get(id(symptom))) is not None:
            found_cause.explains.append(symptom)
    return sorted((each for each in ordered if id(each) not in causes), key=lambda each: each.rank)


def _leads_to(causes: Mapping[int, Found], found: Found, target: Found) -> bool:
    """True if `target` is a cause of `found` already: two findings never explain each other."""
    above = causes.get(id(found))
    return above is not None and (above is target or _leads_to(causes, above, target))


def _explains(cause: Found, symptom: Found) -> bool:
    return any(name == symptom.rule.name and _related(how, cause, symptom) for name, how in cause.rule.explains)


def _related(how: Relation, cause: Found, symptom: Found) -> bool:
    match how:
        case Relation.CONTAINER:
            are_alike = cause.rule.peer and symptom.rule.peer and cause.rule.group == symptom.rule.group
            if are_alike and cause.others and symptom.others and not cause.others & symptom.others:
                return False  # of two connections to different servers
            return any(
                (one.namespace, one.pod) == (other.namespace, other.pod)
                and (one.container == other.container or not one.container or not other.container)
                for one in cause.containers
                for other in symptom.containers
            )
        case Relation.POD:
            return bool(cause.pods & symptom.pods)
        case Relation.WORKLOAD:
            return cause.about == symptom.about
        case Relation.PEER:
            return bool(cause.pods & symptom.others)
        case Relation.BACK:
            return bool(cause.others & symptom.pods)
        case Relation.NODE:
            return bool({each.node for each in cause.containers} & {each.node for each in symptom.containers})


# Evidence as text.

_HIDDEN = frozenset({"node", "namespace", "container"})
"""Columns of evidence that say again whom a finding is about."""
_OF_RECORDS = (
    "pod",
    "container",
    "state",
    "reason",
    "exit_code",
    "last_reason",
    "last_exit_code",
    "restarts",
    "message",
)


def tables(evidence: Sequence[Evidence]) -> Iterator[EvidenceTable]:
    """Yield a table for the rows of each gadget, as the gadget prints them; equal rows are one."""
    for _, group in groupby(evidence, key=lambda each: each.row.parts[0].gadget.name if each.row else ""):
        titles, *rows = _table(list(group))
        yield titles, *dict.fromkeys(rows)


def _table(group: Sequence[Evidence]) -> EvidenceTable:
    if group[0].row is None:
        names = [name for name in _OF_RECORDS if any(each.record.get(name) not in (None, "") for each in group)]
        rows = [tuple(str(each.record.get(name, "")) for name in names) for each in group]
        return tuple(name.upper().replace("_", " ") for name in names), *rows
    gadget = group[0].row.parts[0].gadget
    names = [name for name in choose_columns([gadget], (), "default") if name not in _HIDDEN]
    columns = [[cells(each.row, name)[0] for each in group if each.row] for name in names]
    return tuple(heading.title for heading in headings([gadget], names)), *zip(*columns, strict=True)


def _names(found: Iterable[Name]) -> tuple[str, ...]:
    return tuple("/".join(filter(None, name)) for name in sorted(found) if name[1])
