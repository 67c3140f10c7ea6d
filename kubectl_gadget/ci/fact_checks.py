"""Facts of a CI run: compared with a baseline, counted by assertions, and written as a baseline.

Containers that ran before the job are compared, too, and do not make the run incomplete because their start was not
seen. But a container of the baseline that did not run at all does: it is unknown what it would have done.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from kubectl_gadget.behavior import collection
from kubectl_gadget.behavior.baseline import Baseline
from kubectl_gadget.behavior.comparison import Change, ChangeKind, compare, doubts, paired
from kubectl_gadget.behavior.facts import Behavior, Coverage, Fact, FactKind, Unit, WatchedRun
from kubectl_gadget.behavior.generalization import Destinations, Generalizer, Rules, read_rules
from kubectl_gadget.behavior.row_facts import COLUMNS, Began
from kubectl_gadget.behavior.run import Gaps, Subject
from kubectl_gadget.ci.assertions import Assertion, judged
from kubectl_gadget.filters.filter import RowProgram
from kubectl_gadget.kube.inventory import SeenInventory
from kubectl_gadget.observe.decoders import NAME as POLICIES
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.reports.model import Check, Finding, Severity, SourceLocation, Where, cut, limited
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows

_NAMED = Subject()


@dataclass(frozen=True)
class BehaviorOrder:
    """The uses of facts."""

    baseline: Baseline | None = None
    errors: Collection[FactKind] = ()
    """kinds of facts that must not be new"""
    assertions: tuple[Assertion, ...] = ()
    subject: Subject = _NAMED
    rules: Rules = field(default_factory=read_rules)


class BehaviorCheck:
    """Collects facts, and judges them at the end."""

    def __init__(self, order: BehaviorOrder, events: Iterable[str], began: Began = lambda: "") -> None:
        """`events`: the gadgets that run."""
        self.seen = SeenInventory()
        self._order = order
        self._collection = collection.Collection(Generalizer(order.rules), events, began)
        self._members = MemberRows(COLUMNS, event=True)

    def take(self, rows: Rows) -> None:
        """Takes rows in order of time."""
        records = self._members.records(rows.matching(_is_of_gadget))
        self._order.subject.name(records)
        self._collection.add(records)

    def behavior(self, watched: Sequence[Container], run: WatchedRun, gaps: Gaps) -> Behavior:
        containers = self._order.subject.containers(watched)
        return self._collection.behavior(collection.RunEnd(self.seen.inventory(), containers, run, *gaps))

    def destinations(self) -> Destinations:
        """The names of addresses, as facts have them."""
        return Destinations(self.seen.inventory(), Generalizer(self._order.rules))

    def checks(self, found: Behavior, incomplete: Sequence[str]) -> list[Check]:
        why = "events are missing" if incomplete else "; ".join(_gaps(found.coverage))
        checks = [_assertion(each, found, why) for each in self._order.assertions]
        if self._order.baseline is not None:
            checks.append(_compared(self._order.baseline, found, self._order.errors, bool(incomplete)))
        return checks


def _is_of_gadget(batch: Batch) -> npt.NDArray[np.bool_]:
    """Return all rows, or none: events of policies are no facts."""
    return np.full(len(batch), bool(batch.gadget.record.fields) and batch.gadget.name != POLICIES)


def _compared(baseline: Baseline, found: Behavior, errors: Collection[FactKind], lost: bool) -> Check:
    old = paired(baseline.behavior, found)
    renamed = baseline.with_workload_of(old)
    findings = from_changes(compare(old, found), baseline.file, renamed.line_of, errors, lost)
    reasons = doubts(replace(old, coverage=_judged(old.coverage)), replace(found, coverage=_judged(found.coverage)))
    what, why = f"nothing that is not in {baseline.file}", cut("; ".join(reasons))
    return Check("baseline", baseline.file, what, *limited(findings), why, SourceLocation(baseline.file))


def _gaps(coverage: Mapping[Unit, Coverage]) -> Sequence[str]:
    """Return why there may be more facts, such as a limit that was reached."""
    return tuple(dict.fromkeys(reason for each in _judged(coverage).values() for reason in each.incomplete))


def _judged(coverage: Mapping[Unit, Coverage]) -> dict[Unit, Coverage]:
    """The coverage, where a start that was not seen is no gap."""

    def judged(each: Coverage) -> Coverage:
        reasons = tuple(reason for reason in each.incomplete if reason != collection.ALREADY_RUNNING)
        return each if reasons else replace(each, complete_runs=each.runs, incomplete=())

    return {unit: judged(each) for unit, each in coverage.items()}


def _assertion(assertion: Assertion, found: Behavior, incomplete: str) -> Check:
    program = None if assertion.facts is None else RowProgram(assertion.facts)
    matching = [
        fact
        for fact in found.facts
        if fact.kind is assertion.kind and (program is None or program.matches(_members(fact)))
    ]
    total, lost, rule = len(matching), bool(incomplete), f"assertion/{assertion.name}"
    said = assertion.message or f"expected: {assertion.describes}, but it is {total:,}"
    otherwise = Finding(rule, assertion.level, said, count=total, source=assertion.source, lost=lost)
    found_facts = [_finding(assertion, fact, lost) for fact in matching]
    findings, undecided = judged(assertion, total, found_facts, otherwise, incomplete)
    if program is not None and program.errors:
        undecided = f"the condition could not be evaluated for some facts: {program.first_error}"
    name, what = assertion.name, assertion.describes
    return Check("assertion", name, what, *limited(findings), cut(undecided), assertion.source)


def _members(fact: Fact) -> dict[str, object]:
    return {
        "namespace": fact.workload.namespace or "",
        "workload": f"{fact.workload.kind}/{fact.workload.name}",
        "container": fact.container,
        "program": fact.program,
        "value": fact.value,
        "pods": fact.pods,
        "count": fact.count,
    }


def _finding(assertion: Assertion, fact: Fact, lost: bool) -> Finding:
    members = _members(fact)
    return Finding(
        f"assertion/{assertion.name}",
        assertion.level,
        f"{assertion.message}: {cut(fact.says)}" if assertion.message else cut(fact.says),
        Where(str(members["namespace"]), str(members["workload"]), fact.container),
        (fact.program, fact.value),
        (cut(fact.evidence),) if fact.evidence else (),
        fact.count,
        fact.first_seen,
        "",
        assertion.source,
        lost,
    )


# Findings of changes: new behavior is a warning, or an error if the user asks for that. What a new program does is a
# note, since the program itself is a finding already; so is what may only seem new, since the baseline is incomplete.

_NO_WORKLOAD = "Container"
_FOLLOWS = (FactKind.OPEN, FactKind.CHANGE, FactKind.EXIT, FactKind.RESOLVE)
"""kinds of facts that every program has"""


def from_changes(
    changes: Iterable[Change],
    file: str,
    line_of: Callable[[Fact], int],
    errors: Collection[FactKind] = (),
    lost: bool = False,
) -> list[Finding]:
    """The findings, in the order of the changes. `line_of`: where in the file a fact is, or would be. `errors`: kinds
    of facts that must not be new."""
    changes, found = tuple(changes), []
    programs = {
        (change.fact.unit, change.fact.program)
        for change in changes
        if change.kind is ChangeKind.NEW and change.fact.kind is FactKind.PROGRAM
    }
    for change in changes:
        fact, workload = change.fact, change.fact.workload
        name = "" if workload.kind == _NO_WORKLOAD else f"{workload.kind}/{workload.name}"
        where = Where(workload.namespace or "", name, fact.container)
        found.append(
            Finding(
                f"baseline/{fact.kind}",
                _level(change, errors, programs),
                _message(change),
                where,
                (change.kind, fact.program, fact.value),
                (cut(fact.evidence),) if fact.evidence else (),
                fact.count,
                fact.first_seen,
                "",
                SourceLocation(file, line_of(fact)),
                lost,
            )
        )
    return found


def _level(change: Change, errors: Collection[FactKind], programs: Collection[tuple[Unit, str]]) -> Severity:
    fact = change.fact
    if change.kind is not ChangeKind.NEW or change.doubt:
        return Severity.NOTE
    if fact.kind in errors:
        return Severity.ERROR
    # A library that a new program loads from a writable place is worse than the program.
    follows = fact.kind in _FOLLOWS and (fact.unit, fact.program) in programs and change.risk.level != "error"
    return Severity.NOTE if follows else Severity.WARNING


def _message(change: Change) -> str:
    said = cut(change.says)
    if change.kind is ChangeKind.GONE:
        return f"no longer {said}"
    if change.kind is ChangeKind.COUNT:
        return f"{said}: {change.before:,} times before, {change.after:,} now"
    image = ", with another image" if change.other_image else ""
    doubt = " (it may not be new)" if change.doubt else ""  # why stands with the check
    techniques = f" [{', '.join(change.techniques)}]" if change.techniques else ""
    return f"new{image}: {said}{techniques}{doubt}"
