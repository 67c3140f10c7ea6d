"""Makes the view model of recordings: one replay, whose rows become findings, a map of flows, and all that is counted.

What is said about the run (verdict, findings, coverage) is what `diagnose` and the summary of a run say: the same
rules, and the same sentences.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kubectl_gadget import __version__
from kubectl_gadget.diagnose import report as diagnose_report
from kubectl_gadget.diagnose import rules
from kubectl_gadget.diagnose.run import Beside, DiagnoseRun
from kubectl_gadget.diagnose.search import Report
from kubectl_gadget.flows.ends import GADGETS as CONNECTIONS
from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.flows.page import LivePage
from kubectl_gadget.flows.rows import events_of
from kubectl_gadget.flows.run import FlowTransform
from kubectl_gadget.kube.addresses import followed
from kubectl_gadget.output.sink import WholeSink
from kubectl_gadget.page.model import RunModel, safe
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_run import RecordedRun, recorded_end
from kubectl_gadget.recording.replay_run import Replayed, gadgets_of, replayed
from kubectl_gadget.reports.model import Finding, RunReport, Severity, Status, explained, folded
from kubectl_gadget.rows.amounts import nanoseconds
from kubectl_gadget.rows.batch import Batch, Mask
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run import coverage
from kubectl_gadget.run.backlog import StepMark
from kubectl_gadget.run.coverage import Coverage, joined
from kubectl_gadget.run.run_options import GadgetRun, Moment, Replay, RunOptions, with_peer_names
from kubectl_gadget.wire.policy_events import rfc3339
from kubectl_gadget.wording import count

SCHEMA = "kubectl-gadget-report/v1"
"""Changes when a member changes its meaning or is removed."""
_FLOWS = CONNECTIONS | {"trace_dns", "trace_http", "trace_tcpdrop", "trace_process"}
_MOST_FLOW_ROWS = 200_000
_ROWS_OF_FLOWS = 16_384
_MOST_EDGES, _MOST_EVENTS, _MOST_TREES, _IN_TREE = 600, 200, 40, 20
_MOST_FINDINGS, _EVIDENCE = 300, 3
_MOST_LINES = 100
_PARTY = ("name", "comm", "pid", "port")

Said = Report | RunReport
"""A feature's finding in the run of the page"""


class FlowRows(WholeSink):
    """Gives rows to the model, and the network's rows to the map as well."""

    def __init__(
        self, model: RunModel, has_flows: bool, progress: Callable[[float], object] = lambda done: None
    ) -> None:
        self.model = model
        self._progress = progress
        self.book = AddressBook()
        self.page = LivePage()
        self.flow_rows = 0
        self.flow_rows_left_out = 0
        self.has_flows = has_flows
        self._transform = flow_transform(self.book, self.page)

    def write(self, rows: Rows) -> None:
        self.model.write(rows)
        if self.has_flows:
            self._take_flows(rows)
        self._progress(self.model.done)

    def write_block(self, rows: Rows) -> None:
        self.model.write_block(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self.model.gap(node, seconds, until_ns)

    def _take_flows(self, rows: Rows) -> None:
        own = rows.matching(of_flows)
        if not len(own):
            return
        room = _MOST_FLOW_ROWS - self.flow_rows
        self.flow_rows_left_out += max(0, len(own) - room)
        own = own.head(max(0, room))
        self.flow_rows += len(own)
        for chunk in own.chunks(_ROWS_OF_FLOWS):
            if len(chunk):
                self.page.add_all(self._transform.apply(chunk).collect(events_of))
                self.page.updates()  # the events that it has not shown are what comes next
                for batch in (*chunk.parts, *chunk.joined[0]):
                    batch.forget_columns()

    def flows(self) -> dict[str, Any] | None:
        """Return the map as JSON; None: nothing talked."""
        return map_of(self.page, self.flow_rows, self.flow_rows_left_out)


def flow_transform(book: AddressBook, page: LivePage) -> FlowTransform:
    """Return what makes events of flows, for the map, of rows."""
    return FlowTransform(FlowTable(book, True), FlowFilter([], internal=False), page.add_rows)


def map_of(page: LivePage, rows: int = 0, left_out: int = 0) -> dict[str, Any] | None:
    """Return the map as JSON: the connections that failed or had most flows, and what is at their ends. `rows` of the
    network are in it, and `left_out` later ones are not. None: nothing talked."""
    found = page.all(is_over=True)
    if not found["edges"]:
        return None
    ranked = sorted(
        found["edges"], key=lambda edge: (not edge["dropped"] + edge["failed"], -edge["flows"], edge["from"])
    )
    edges = ranked[:_MOST_EDGES]
    ends = dict.fromkeys(end for edge in edges for end in (edge["from"], edge["to"]))
    trees = {key: _small(found["trees"][key]) for key in ends if key in found["trees"]}
    events = [event for event in found["events"] if event["from"] in ends and event["to"] in ends][-_MOST_EVENTS:]
    return {
        "whole": True,
        "places": {key: found["places"][key] for key in ends},
        "edges": edges,
        "processes": {key: found["processes"][key][-_IN_TREE:] for key in ends if key in found["processes"]},
        "trees": dict(list(trees.items())[:_MOST_TREES]),
        "events": [_slim(event) for event in events],
        "left_out": found["left_out"] + len(ranked) - len(edges),
        "rows": rows,
        "rows_left_out": left_out,
    }


def make(
    recorded: Replay,
    progress: Callable[[float], object] = lambda done: None,
    asked: RunOptions | None = None,
    said: Said | None = None,
) -> dict[str, Any]:
    """Return the view model of recordings. `progress` is told which part of the time is done. `asked`: the run that the
    page is of, whose filter and, in a replay, selection apply. `said`: what a feature found in this run; None: the
    rules of `diagnose` look at the recordings. Raises GadgetError."""
    runs, span = _described(recorded)
    streams, others = _divided(recorded.files, runs)
    gadgets = [item.gadget for item in gadgets_of(runs)]
    model = RunModel(gadgets, *span)
    rows = FlowRows(model, any(gadget.name in CONNECTIONS for gadget in gadgets), progress)
    ends: list[dict[str, Any]] = []
    covered: list[Coverage] = []

    def marked(mark: StepMark) -> None:
        model.mark(mark.wall_ns, "step", mark.name)

    def ended(run: Replayed) -> None:
        covered.append(run.covered())
        for end, reader in zip(run.ends, run.readers, strict=True):
            for node in end.coverage.nodes if end.coverage else ():
                for gap in node.gaps:
                    model.mark_gap(node.name, gap.since_ns, gap.until_ns, gap.cause)
            ends.append({"file": str(reader.path), "seconds": end.seconds, "began": end.began_ns})

    output, found = io.StringIO(), said
    for files in filter(None, (streams, *([file] for file in others))):
        options = _options(replace(recorded, files=tuple(files)), [runs[recorded.files.index(one)] for one in files])
        if files is streams:
            follower = followed(partial(setattr, rows.book, "cluster"), 0.0, "some addresses have no names")
            options = with_peer_names(replace(options, followers=(follower,)))
        if asked is not None:
            options = _asked(options, asked)
        if found is None:
            known = rules.load(rules.own_files())
            found = DiagnoseRun(options, known, output, Beside(rows, marked, ended)).replay(output, output)
        else:
            with replayed(replace(options, make_sink=lambda *_: rows), output, output, marked) as run:
                ended(run)
    assert found is not None
    made = document(found, joined(covered), rows.flows(), model)
    how = _run(recorded.files, runs, model, ends)
    if isinstance(found, RunReport) and found.command:
        how["command"] = ["kubectl", "gadget", "ci", "run", "--", *found.command]
    if asked is not None and asked.replay is None and asked.recorded_in is None:
        how["files"] = []  # the recording goes away with the run
    return made | {"run": how}


def bare(report: RunReport) -> dict[str, Any]:
    """Return the view model of a job that was not recorded: what its report says, without rows."""
    began_ns = nanoseconds(report.began)
    model = RunModel([], began_ns, began_ns + round(report.seconds * 1e9))
    for step in report.steps:
        model.mark(nanoseconds(step.time), "step", step.name)
    made = document(report, Coverage(), None, model)
    lost = f", lost: {sum(report.lost.values()):,}" if report.lost else ""
    seen = f"{report.where}: {count(report.events, 'event')}{lost}"
    made["coverage"]["sentence"] = f"{seen}; the run was not recorded, so there are no rows of it (--record FILE)"
    run = {"files": [], "command": [*report.command], "recorded_by": [report.version], "selection": [report.where]}
    return made | {"run": run | {"filters": [], "rows": 0, "gadgets": [], "recordings": []}}


def document(found: Said, covered: Coverage, flows: Mapping[str, Any] | None, model: RunModel) -> dict[str, Any]:
    """Return all of the model but how it was made."""
    parts = {
        "schema": SCHEMA,
        "made_by": f"kubectl gadget {__version__}",
        "began": rfc3339(model.began_ns),
        "seconds": round(model.step_ns * model.bins / 1e9, 3),
        "verdict": _verdict(found),
        "findings": _findings(found.findings, model),
        "checks": _checks(found) if isinstance(found, RunReport) else [],
        "coverage": _coverage(covered, found.events, model),
        "flows": flows,
        **model.document(),
    }
    made: dict[str, Any] = safe(parts)
    return made


def _described(recorded: Replay) -> tuple[list[RecordedRun], tuple[int, int]]:
    """Return the run of each file, and the time that they are of: from when something was attached."""
    runs, firsts, lasts, attached = [], [], [], []
    for file in recorded.files:
        with RecordingReader(file) as reader:
            runs.append(RecordedRun.from_meta(reader.meta, str(file)))
            headers = list(reader.segments())
            firsts += [header.first_ns for header in headers]
            lasts += [header.last_ns for header in headers]
            covered = recorded_end(reader).coverage
            attached += [node.attached_ns for node in covered.traced if node.attached_ns] if covered else []
    first, last = min(firsts), max(lasts)
    if attached and first < min(attached) < last:
        first = min(attached)
    began, ended = (_absolute(moment, last) for moment in (recorded.since, recorded.until))
    return runs, (max(first, began or first), min(last, ended or last))


def _absolute(moment: Moment | None, last_ns: int) -> int | None:
    return None if moment is None else last_ns - moment.ago_ns if moment.absolute_ns is None else moment.absolute_ns


def _divided(files: Sequence[PathOrUrl], runs: Sequence[RecordedRun]) -> tuple[list[PathOrUrl], list[PathOrUrl]]:
    """Return recordings of events, which are replayed as one, and recordings of tables, profiles and snapshots."""
    streams, others = list[PathOrUrl](), list[PathOrUrl]()
    for file, run in zip(files, runs, strict=True):
        (streams if run.gadgets[0].gadget.kind == "stream" else others).append(file)
    return streams, others


def _options(recorded: Replay, runs: Sequence[RecordedRun]) -> RunOptions:
    found = gadgets_of(runs)
    return RunOptions(tuple(GadgetRun(item.gadget, dict(item.parameters)) for item in found), replay=recorded)


def _asked(options: RunOptions, asked: RunOptions) -> RunOptions:
    """Return the options with what the run shows. The filter of a transform is for rows that the page does not have."""
    if asked.replay is not None:
        options = replace(options, selection=asked.selection)
    return options if asked.transform is not None else replace(options, filter=asked.filter)


def of_flows(batch: Batch) -> Mask:
    """Return which rows the map is made of. A damaged file may have processes without an identity."""
    if batch.gadget.name == "trace_process":
        known: Mask = batch.raw("exec_id") != b""
        return known
    return np.full(len(batch), batch.gadget.name in _FLOWS)


def _small(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = nodes[:_IN_TREE]
    ids = {node["id"] for node in kept}
    return [
        {**node, "parent": node["parent"] if node["parent"] in ids else None, "connections": node["connections"][:6]}
        for node in kept
    ]


def _slim(event: dict[str, Any]) -> dict[str, Any]:
    kept = {name: event.get(name) for name in ("id", "timestamp", "protocol", "verdict", "summary", "from", "to")}
    for name in ("source", "destination", "backend"):
        if party := event.get(name):
            kept[name] = {key: party[key] for key in _PARTY if party.get(key) is not None}
    return kept


# What is said about the run.


def _verdict(found: Said) -> dict[str, object]:
    """Return the answer to "is it bad": `bad`, `warning`, `ok`, or `inconclusive`."""
    if isinstance(found, RunReport):
        return _verdict_of_job(found)
    worst = found.findings[0].level if found.findings else None
    if worst is not None:
        status = "bad" if worst.reaches(Severity.ERROR) else "warning"
    else:
        status = "inconclusive" if found.is_inconclusive else "ok"
    first, *rest = diagnose_report.summary(found)
    not_seen = [line for line in rest if not line.startswith(("pods: ", "nodes: ", "events: "))]
    looked = f"looked at with {count(found.rules, 'rule')}"
    return {
        "status": status,
        "answer": first.partition("; ")[0],
        "looked": looked + (f", and {count(len(found.looked_at), 'pod')} in the API" if found.looked_at else ""),
        "not_seen": not_seen,
    }


def _verdict_of_job(report: RunReport) -> dict[str, object]:
    status = {Status.FINDINGS: "bad", Status.INCONCLUSIVE: "inconclusive", Status.PASSED: "ok"}[report.status]
    if status == "ok" and report.command_code:
        status = "bad"
    elif status == "ok" and any(each.level.reaches(Severity.WARNING) for each in report.findings):
        status = "warning"
    ran = f"{' '.join(report.command)} ended with exit code {report.command_code}; " if report.command else ""
    return {
        "status": status,
        "answer": report.verdict(),
        "looked": f"{ran}{count(len(report.checks), 'check')}",
        "not_seen": [*report.undecided, *report.warnings],
    }


def _checks(report: RunReport) -> list[list[str]]:
    """Return the result, kind, name and numbers of each check."""
    return [
        [str(check.status), check.kind, check.name, check.undecided or count(len(check.findings), "finding")]
        for check in report.checks[:_MOST_LINES]
    ]


def _findings(found: Sequence[Finding], model: RunModel) -> dict[str, object]:
    """Return the list, in which similar ones are one."""
    each = folded(found)
    return {
        "list": [_finding(finding, similar, model) for finding, similar in each[:_MOST_FINDINGS]],
        "left_out": max(0, len(each) - _MOST_FINDINGS),
    }


def _finding(finding: Finding, similar: int, model: RunModel) -> dict[str, object]:
    of = finding.explanation
    alike = [("alike", f"{similar:,} more like this one")] if similar else []
    source = [("source", str(finding.source))] if finding.source else []
    return {
        "level": str(finding.level),
        "rule": finding.rule,
        "fingerprint": finding.fingerprint,
        "message": finding.message,
        "who": diagnose_report.who(finding.where, of) if of else str(finding.where),
        "seen": diagnose_report.seen(finding),
        "count": finding.count,
        "first": _moment(finding.first_seen, model),
        "last": _moment(finding.last_seen or finding.first_seen, model),
        "terms": [list(pair) for pair in (*explained(finding), *alike, *source)],
        "tables": [[list(row) for row in table] for table in finding.tables],
        "evidence": [dict(row) for row in finding.evidence[:_EVIDENCE]] if not finding.tables else [],
        "step": finding.step,
    }


def _moment(text: str, model: RunModel) -> int | None:
    return model.ms(nanoseconds(text)) if text else None


def _coverage(covered: Coverage, events: int, model: RunModel) -> dict[str, object]:
    return {
        "sentence": coverage.first_line(covered, count(events, "event")),
        "lines": [line.strip() for line in coverage.node_lines(covered)][:_MOST_LINES],
        "doubts": list(coverage.texts(coverage.doubts(covered)))[:_MOST_LINES],
        "nodes": [
            {
                "name": node.name,
                "attached": model.ms(node.attached_ns) if node.attached_ns else None,
                "until": model.ms(node.until_ns or covered.ended_ns) if node.attached_ns else None,
                "gap_seconds": round(node.gap_seconds, 3),
                "lost": {coverage.CAUSES.get(cause, cause): n for cause, n in node.lost.items() if n},
                "why": node.why or str(node.cause),
            }
            for node in covered.nodes[:_MOST_LINES]
        ],
        "nodes_left_out": max(0, len(covered.nodes) - _MOST_LINES),
    }


def shown_parameter(value: object) -> str | bool:
    """Return a gadget's parameter as JSON has it: a switch is true or false, and all else a text."""
    return value if isinstance(value, bool) else str(value)


def _run(
    files: Sequence[PathOrUrl], runs: Sequence[RecordedRun], model: RunModel, ends: list[dict[str, Any]]
) -> dict[str, Any]:
    counts = model.counts()
    return {
        "files": [str(file) for file in files],
        "command": ["kubectl", "gadget", *runs[0].typed],
        "recorded_by": sorted({run.version for run in runs}),
        "selection": list(dict.fromkeys(run.selection for run in runs)),
        "filters": [run.filter for run in runs if run.filter is not None],
        "rows": model.rows,
        "gadgets": [
            {
                "command": " ".join(item.gadget.command),
                "kind": item.gadget.event,
                "rows": counts.get(item.gadget.event, 0),
                "parameters": {name: shown_parameter(value) for name, value in item.parameters.items()},
            }
            for item in gadgets_of(runs)
        ],
        "recordings": ends,
    }
