"""The report of `diagnose`: as text, as JSON and as names."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from tabulate import tabulate

from kubectl_gadget.diagnose.findings import Finding, severities
from kubectl_gadget.diagnose.observations import Evidence
from kubectl_gadget.diagnose.rules import Severity
from kubectl_gadget.diagnose.run import Report
from kubectl_gadget.output.columns import choose_columns, headings
from kubectl_gadget.output.escape import printable
from kubectl_gadget.output.row_texts import cells
from kubectl_gadget.output.tables import text_width
from kubectl_gadget.run.coverage import where
from kubectl_gadget.wire.policy_events import rfc3339
from kubectl_gadget.wording import count

SCHEMA_VERSION = 1
_COLORS = {Severity.CRITICAL: "1;31", Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}
_INDENT = 12
_WIDEST_CELL = 40
_HIDDEN = frozenset({"node", "namespace", "container"})
"""Columns of evidence that `who` has already said."""
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


def text(report: Report, color: bool, width: int) -> Iterator[str]:
    """Yield the lines for a terminal of this width."""
    for finding in report.findings:
        yield from _lines(finding, color, width)
        yield ""
    for line in summary(report):
        yield textwrap.fill(line, width, subsequent_indent="  ")


def summary(report: Report) -> Iterator[str]:
    """Yield what was looked at, and what could not be seen."""
    counts = [f"{number} {severity}" for severity, number in severities(report.findings).items() if number]
    found = f"{count(len(report.findings), 'cause')} ({', '.join(counts)})" if counts else "nothing wrong was seen"
    pods = f"{count(len(report.looked_at), 'pod')}" if report.looked_at else ""
    if report.without_agents:
        yield f"{found}; looked at: {pods or 'no pod'}, of which no container runs, so only in the API"
    else:
        looked = [pods, where(report.coverage), f"{report.seconds:.0f} s", f"{report.events:,} events"]
        looked += [count(len(report.gadgets), "gadget"), count(report.rules, "rule")]
        yield f"{found}; looked at: {', '.join(filter(None, looked))}"
    for reason in report.unseen:
        yield f"not seen: {reason}"
    if not report.findings and not report.unseen and not report.without_agents:
        yield "only what happened in this time was seen. try: --timeout 5m, and use the program while this runs"


def _lines(finding: Finding, color: bool, width: int) -> Iterator[str]:
    words, severity = finding.words, str(finding.severity).upper()
    first, *rest = textwrap.wrap(words.title, max(20, width - len(severity) - 2)) or [""]
    yield (f"\x1b[{_COLORS[finding.severity]}m{severity}\x1b[0m" if color else severity) + f"  {first}"
    yield from (" " * (len(severity) + 2) + line for line in rest)

    def field(name: str, value: str) -> Iterator[str]:
        if value:
            head = f"  {name + ':':<{_INDENT - 2}}"
            yield from textwrap.wrap(value, width, initial_indent=head, subsequent_indent=" " * _INDENT)

    yield from field("who", who(finding))
    yield from field("seen", seen(finding))
    yield from (" " * _INDENT + line for line in evidence(finding.evidence, width - _INDENT))
    sure = f" ({finding.confidence}{': ' if words.why else ''}{words.why})"
    yield from field("cause", (words.cause or "not known") + sure)
    yield from field("changed", finding.changed)
    yield from field("do", words.remedy)
    yield from field("more", words.more)
    for each in finding.explains:
        for symptom in each.all():
            yield from field("explains", symptom.words.title)


def who(finding: Finding) -> str:
    """Return whom a finding is about: the workload, and which of its pods."""
    pods = ["/".join(filter(None, name)) for name in sorted(finding.pods) if name[1]]
    of = f", {len(pods)} of {finding.of} pods" if finding.of > 1 else ""
    more = f" and {len(pods) - 3} more" if len(pods) > 3 else ""
    names = f": {', '.join(pods[:3])}{more}" if pods and pods != [finding.about.replace("/pod/", "/")] else ""
    return printable(f"{finding.about}{of}{names}", 300)


def seen(finding: Finding) -> str:
    """Return how often and when it was seen."""
    times = "once" if finding.count == 1 else f"{finding.count:,} times"
    first, last = (rfc3339(ns)[11:19] if ns else "" for ns in (finding.first_ns, finding.last_ns))
    return times + (f" at {first}" if first == last and first else f" from {first} to {last}" if first else "")


def evidence(rows: Sequence[Evidence], width: int) -> Iterator[str]:
    """Yield the lines of a table for the rows of each gadget, as the gadget prints them, cut to the width."""
    for _, group in groupby(rows, key=lambda each: each.row.parts[0].gadget.name if each.row else ""):
        titles, texts = _table(list(group))
        shown = [
            list(row)
            for row in dict.fromkeys(tuple(printable(text or "-", _WIDEST_CELL) for text in row) for row in texts)
        ]
        for line in tabulate(shown, titles, tablefmt="plain", disable_numparse=True).splitlines():
            cut = line.rstrip()
            while text_width(cut) > width:
                cut = cut[: max(1, len(cut) - max(2, text_width(cut) - width + 1))] + "…"
            yield cut


def _table(group: Sequence[Evidence]) -> tuple[list[str], list[list[str]]]:
    if group[0].row is None:
        names = [name for name in _OF_RECORDS if any(each.record.get(name) not in (None, "") for each in group)]
        titles = [name.upper().replace("_", " ") for name in names]
        return titles, [[str(each.record.get(name, "")) for name in names] for each in group]
    gadget = group[0].row.parts[0].gadget
    names = [name for name in choose_columns([gadget], (), "default") if name not in _HIDDEN]
    titles = [heading.title for heading in headings([gadget], names)]
    columns = [[cells(each.row, name)[0] for each in group if each.row] for name in names]
    return titles, [list(row) for row in zip(*columns, strict=True)]


def document(report: Report) -> dict[str, Any]:
    """Return the report as JSON (docs/diagnose.md)."""
    return {
        "version": SCHEMA_VERSION,
        "findings": [_json(each) for each in report.findings],
        "looked_at": {
            "pods": ["/".join(name) for name in report.looked_at],
            "nodes": [node.name for node in report.coverage.traced],
            "seconds": round(report.seconds, 3),
            "events": report.events,
            "gadgets": list(report.gadgets),
            "rules": report.rules,
            "agents": not report.without_agents,
        },
        "not_seen": list(report.unseen),
    }


def _json(finding: Finding) -> dict[str, Any]:
    words = finding.words
    return {
        "id": finding.id,
        "rule": finding.rule.name,
        "severity": str(finding.severity),
        "confidence": str(finding.confidence),
        "why": words.why,
        "about": finding.about,
        "pods": ["/".join(name) for name in sorted(finding.pods) if name[1]],
        "of_pods": finding.of,
        "others": ["/".join(name) for name in sorted(finding.others) if name[1]],
        "nodes": sorted({each.node for each in finding.containers if each.node}),
        "containers": sorted({each.container for each in finding.containers if each.container}),
        "title": words.title,
        "count": finding.count,
        "first_seen": rfc3339(finding.first_ns) if finding.first_ns else "",
        "last_seen": rfc3339(finding.last_ns) if finding.last_ns else "",
        "evidence": [dict(each.record) for each in finding.evidence],
        "cause": words.cause,
        "changed": finding.changed,
        "remedy": words.remedy,
        "more": words.more,
        "explains": [_json(each) for each in finding.explains],
    }
