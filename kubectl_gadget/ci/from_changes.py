"""Turns what is new in a behavior into findings: the only place where both meet.

New behavior is a warning, or an error if the user asks for that. What a new program does is a note, since the program
itself is a finding already. The trap: what may only seem new, since the baseline is incomplete, is always a note.
"""

from collections.abc import Callable, Collection, Iterable

from kubectl_gadget.behavior.comparison import Change, ChangeKind
from kubectl_gadget.behavior.facts import Fact, FactKind, Unit
from kubectl_gadget.ci.finding import Finding, Level, SourceLocation, Where, cut

_NO_WORKLOAD = "Container"
_FOLLOWS = (FactKind.OPEN, FactKind.EXIT, FactKind.RESOLVE)
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


def _level(change: Change, errors: Collection[FactKind], programs: Collection[tuple[Unit, str]]) -> Level:
    fact = change.fact
    if change.kind is not ChangeKind.NEW or change.doubt:
        return Level.NOTE
    if fact.kind in errors:
        return Level.ERROR
    follows = fact.kind in _FOLLOWS and (fact.unit, fact.program) in programs
    return Level.NOTE if follows else Level.WARNING


def _message(change: Change) -> str:
    said = cut(change.fact.says)
    if change.kind is ChangeKind.GONE:
        return f"no longer {said}"
    if change.kind is ChangeKind.COUNT:
        return f"{said}: {change.before:,} times before, {change.after:,} now"
    image = ", with another image" if change.other_image else ""
    doubt = f" (it may not be new: {change.doubt})" if change.doubt else ""
    techniques = f" [{', '.join(change.techniques)}]" if change.techniques else ""
    return f"new{image}: {said}{techniques}{doubt}"
