"""The report of `diagnose`: as text, as JSON, and as the run's report that all other formats are made of."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from kubectl_gadget import __version__
from kubectl_gadget.diagnose.cluster import Name
from kubectl_gadget.diagnose.findings import KIND
from kubectl_gadget.diagnose.search import Report
from kubectl_gadget.output.escape import printable
from kubectl_gadget.output.tables import text_width
from kubectl_gadget.reports.model import Check, EvidenceTable, Explanation, Finding, RunReport, Severity, explained
from kubectl_gadget.run.coverage import CAUSES, where
from kubectl_gadget.wire.policy_events import rfc3339
from kubectl_gadget.wording import count, some

SCHEMA_VERSION = 1
_COLORS = {Severity.CRITICAL: "1;31", Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}
_INDENT = 12
_WIDEST_CELL = 40
_MOST_NAMED = 10


def text(report: Report, color: bool, width: int) -> Iterator[str]:
    """Yield the lines for a terminal of this width."""
    for finding in report.findings:
        yield from _lines(finding, color, width)
        yield ""
    for line in summary(report):
        yield textwrap.fill(line, width, subsequent_indent="  ")


def summary(report: Report) -> Iterator[str]:
    """Yield what was looked at, and what could not be seen."""
    numbers = Counter(finding.level for finding in report.findings)
    counts = [f"{numbers[severity]} {severity}" for severity in Severity if numbers[severity]]
    found = f"{count(len(report.findings), 'cause')} ({', '.join(counts)})" if counts else "nothing wrong was seen"
    pods = f"{count(len(report.looked_at), 'pod')}" if report.looked_at else ""
    if report.without_agents:
        yield f"{found}; looked at: {pods or 'no pod'}, only in the API, because no container runs"
    else:
        looked = [pods, where(report.coverage), f"{report.seconds:.0f} s", f"{report.events:,} events"]
        looked += [count(len(report.gadgets), "gadget"), count(report.rules, "rule")]
        yield f"{found}; looked at: {', '.join(filter(None, looked))}"
    if report.peers:
        yield f"also looked at, at the other end: {_named(report.peers)}"
    for reason in report.unseen:
        yield f"not seen: {reason}"
    for what in report.aside:
        yield f"not looked at: {what}"
    if report.findings or report.without_agents:
        return
    if report.looked_at:
        yield f"pods: {_named(report.looked_at)}"
    if nodes := [node.name for node in report.coverage.traced]:
        yield f"nodes: {some(nodes, _MOST_NAMED)}"
    if report.seconds:
        events = sorted(report.events_of.items(), key=lambda each: (-each[1], each[0]))
        counted = [f"{name} {number:,}" for name, number in events]
        if silent := sorted(set(report.gadgets) - set(report.events_of)):
            counted.append(f"none of {', '.join(silent)}" if counted else "none")
        yield f"events: {', '.join(counted or ['none'])}"
    if report.without_cluster:
        yield "no API server was asked: the status of pods, their events and their services were not seen"
    if not report.unseen:
        yield "only what happened in this time was seen. try: --timeout 5m, and use the program while this runs"


def _named(pods: Sequence[Name]) -> str:
    return some(["/".join(name) for name in pods], _MOST_NAMED)


def _lines(finding: Finding, color: bool, width: int) -> Iterator[str]:
    severity, of = str(finding.level).upper(), _explanation(finding)
    first, *rest = textwrap.wrap(finding.message, max(20, width - len(severity) - 2)) or [""]
    yield (f"\x1b[{_COLORS[finding.level]}m{severity}\x1b[0m" if color else severity) + f"  {first}"
    yield from (" " * (len(severity) + 2) + line for line in rest)

    def field(name: str, value: str) -> Iterator[str]:
        if value:
            head = f"  {name + ':':<{_INDENT - 2}}"
            yield from textwrap.wrap(value, width, initial_indent=head, subsequent_indent=" " * _INDENT)

    yield from field("who", who(finding.where, of))
    yield from field("seen", seen(finding))
    for table in finding.tables:
        yield from (" " * _INDENT + line for line in evidence(table, width - _INDENT))
    for name, value in explained(finding):
        yield from field(name, value)


def _explanation(finding: Finding) -> Explanation:
    assert finding.explanation is not None
    return finding.explanation


def who(about: object, of: Explanation) -> str:
    """Return whom a finding is about: the workload, and which of its pods."""
    pods = of.pods
    share = f", {len(pods)} of {of.of_pods} pods" if of.of_pods > 1 else ""
    more = f" and {len(pods) - 3} more" if len(pods) > 3 else ""
    names = f": {', '.join(pods[:3])}{more}" if pods and pods != (str(about).replace("/pod/", "/"),) else ""
    return printable(f"{about}{share}{names}", 300)


def seen(finding: Finding) -> str:
    """Return how often and when it was seen."""
    times = "once" if finding.count == 1 else f"{finding.count:,} times"
    first, last = finding.first_seen[11:19], finding.last_seen[11:19]
    return times + (f" at {first}" if first == last and first else f" from {first} to {last}" if first else "")


def evidence(table: EvidenceTable, width: int) -> Iterator[str]:
    """Yield the lines of a table, cut to the width."""
    titles, *rows = table
    shown = [[printable(text or "-", _WIDEST_CELL) for text in row] for row in rows]
    for line in tabulate(shown, titles, tablefmt="plain", disable_numparse=True).splitlines():
        cut = line.rstrip()
        while text_width(cut) > width:
            cut = cut[: max(1, len(cut) - max(2, text_width(cut) - width + 1))] + "…"
        yield cut


def document(report: Report) -> dict[str, object]:
    """Return the report as JSON (docs/diagnose.md)."""
    return {
        "version": SCHEMA_VERSION,
        "findings": [_json(each) for each in report.findings],
        "looked_at": {
            "pods": ["/".join(name) for name in report.looked_at],
            "peers": ["/".join(name) for name in report.peers],
            "nodes": [node.name for node in report.coverage.traced],
            "seconds": round(report.seconds, 3),
            "events": report.events,
            "gadgets": list(report.gadgets),
            "events_of": dict(report.events_of),
            "rules": report.rules,
            "agents": not report.without_agents,
            "api": not report.without_cluster,
        },
        "not_seen": list(report.unseen),
        "not_looked_at": list(report.aside),
    }


def _json(finding: Finding) -> dict[str, object]:
    of = _explanation(finding)
    return {
        "id": finding.id,
        "rule": finding.rule.removeprefix(f"{KIND}/"),
        "severity": str(finding.level),
        "confidence": of.confidence,
        "why": of.why,
        "about": str(finding.where),
        "pods": list(of.pods),
        "of_pods": of.of_pods,
        "others": list(of.others),
        "nodes": list(of.nodes),
        "containers": list(of.containers),
        "title": finding.message,
        "count": finding.count,
        "first_seen": finding.first_seen,
        "last_seen": finding.last_seen,
        "evidence": [dict(row) for row in finding.evidence],
        "cause": of.cause,
        "changed": of.changed,
        "remedy": of.remedy,
        "more": of.more,
        "explains": [_json(each) for each in of.explains],
    }


def checks(report: Report, fails_at: Severity, known: Sequence[str] = ()) -> tuple[Check, ...]:
    """Return the checks that the rules are: one for each rule that found something, and one for all others. `known`:
    why the whole run is inconclusive."""
    unseen = "; ".join(why for why in report.unseen if why not in known) if report.is_inconclusive else ""
    by_rule: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    others = f"{count(report.rules - len(by_rule), 'further rule' if by_rule else 'rule')}"
    return (
        *(
            Check(KIND, rule.removeprefix(f"{KIND}/"), found[0].message, tuple(found), fails_at=fails_at)
            for rule, found in by_rule.items()
        ),
        Check(KIND, others, "nothing wrong was seen by these", undecided=unseen, fails_at=fails_at),
    )


def run_report(report: Report, fails_at: Severity) -> RunReport:
    """Return the run as the reports of all kinds of runs are made of it."""
    coverage, lost = report.coverage, Counter[str]()
    for node in coverage.nodes:
        lost.update({CAUSES.get(cause, cause): number for cause, number in node.lost.items() if number})
    selected = count(len(report.looked_at), "pod") if report.looked_at else coverage.selected
    return RunReport(
        version=__version__,
        where=f"{selected} on {where(coverage)}" if coverage.traced else f"{selected}, in the API only",
        began=rfc3339(report.began_ns),
        seconds=round(report.seconds, 3),
        checks=checks(report, fails_at),
        incomplete=report.unseen if report.is_inconclusive else (),
        lost=dict(lost),
        events=report.events,
        nodes=tuple(node.name for node in coverage.traced),
        gadgets=report.gadgets,
    )
