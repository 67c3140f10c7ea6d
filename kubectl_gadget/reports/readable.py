"""Reports for people: lines for the log of a job, Markdown for its summary, and one page of HTML.

Texts may come from programs, so all of them are escaped (lines by the caller). Every part has a limit, and says what it
left out: a step summary has a limit of 1 MiB and is shown whole.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from kubectl_gadget.output.escape import for_html, for_markdown, markdown_code, markdown_table
from kubectl_gadget.reports.activity import Activity, RemoteEnd, SeenProcess
from kubectl_gadget.reports.model import Finding, RunReport, Severity, Status, explained, folded
from kubectl_gadget.wording import count

# Lines

_MOST_LINES = 20


def log_lines(report: RunReport) -> Iterator[str]:
    """The lines, not escaped."""
    lines = folded([finding for finding in report.findings if finding.level is not Severity.NOTE])[:_MOST_LINES]
    for finding, similar in lines:
        where = f"{finding.where}: " if str(finding.where) else ""
        times = f" ({finding.count:,}×{' or more' if finding.lost else ''})" if finding.count > 1 else ""
        step = f", in the step {finding.step!r}" if finding.step else ""
        like = f" and {similar:,} more like it" if similar else ""
        yield f"{finding.level}: {where}{finding.message}{times}{like}{step} [{finding.source or finding.rule}]"
    if (more := len(report.findings) - sum(1 + similar for _, similar in lines) + report.left_out) > 0:
        yield f"and {count(more, 'further observation')}"
    yield from (f"warning: {text}" for text in report.warnings)
    for why in report.undecided[:_MOST_LINES]:
        yield f"inconclusive: {why}"
    lost = ", ".join(f"{number:,} {cause}" for cause, number in report.lost.items()) or "0"
    yield f"{report.verdict()} ({count(report.events, 'event')}; lost: {lost})"


# Markdown: the verdict, the checks, at most 20 findings, what was seen, and the process tree.

_Key = TypeVar("_Key")
_MOST_FINDINGS = 20
_MOST_CHECKS = 50
_MOST_SEEN = 8
_MOST_PROCESSES = 200
_LONGEST_LINE = 160
_SIGNS = {Status.PASSED: "✅", Status.FINDINGS: "❌", Status.INCONCLUSIVE: "⚠️"}
_LEVELS = {
    Severity.CRITICAL: "❌ critical",
    Severity.ERROR: "❌ error",
    Severity.WARNING: "⚠️ warning",
    Severity.NOTE: "note",
}


def render_markdown(report: RunReport) -> str:
    return "\n".join(_markdown(report)) + "\n"


def _markdown(report: RunReport) -> Iterator[str]:
    sign = _SIGNS[Status.FINDINGS if report.command_code else report.status]
    yield f"## {sign} kubectl gadget: {report.verdict()}"
    yield ""
    traced = f"Traced {for_markdown(report.where)} for {report.seconds:.1f} s"
    if report.command:
        code = report.command_code
        ended = "succeeded" if code == 0 else f"failed with exit code **{code}**"
        yield f"{traced} while {markdown_code(' '.join(report.command), 200)} ran, which {ended}."
    else:
        yield f"{traced}."
    yield ""
    if report.undecided:
        yield "**What is missing** (so finding nothing proves nothing):"
        yield ""
        yield from (f"- {for_markdown(why, 500)}" for why in report.undecided[:_MOST_FINDINGS])
        yield from _more(len(report.undecided) - _MOST_FINDINGS, "reason")
        yield ""
    for text in report.warnings:
        yield f"**Not covered**: {for_markdown(text, 500)}"
        yield ""
    yield from _findings(report)
    yield from _checks(report)
    yield from _seen(report.activity, bool(report.command_code))
    yield from _tree(report.activity)
    lost = ", ".join(f"{number:,} ({for_markdown(cause)})" for cause, number in report.lost.items()) or "0"
    seen = f"{count(report.events, 'event')} of {for_markdown(', '.join(report.gadgets))}"
    yield f"<sub>{seen}; lost: {lost}; kubectl gadget {for_markdown(report.version)}</sub>"


def _findings(report: RunReport) -> Iterator[str]:
    found = report.findings
    if not found:
        return
    steps, lines = bool(report.steps), folded(found)[:_MOST_FINDINGS]
    yield from markdown_table(
        ["", "Finding", "Where", *(["Step"] if steps else []), "Times", "First seen", "Check"],
        [
            [
                _LEVELS[finding.level],
                for_markdown(finding.message, 300) + (f" and {similar:,} more like it" if similar else ""),
                markdown_code(str(finding.where), 120),
                *([markdown_code(finding.step, 60)] if steps else []),
                _times(finding),
                for_markdown(finding.first_seen[11:19]),
                markdown_code(str(finding.source or finding.rule), 120),
            ]
            for finding, similar in lines
        ],
    )
    yield from _more(len(found) - sum(1 + similar for _, similar in lines) + report.left_out, "finding")
    yield ""
    for finding, _ in lines:
        yield from _explained(finding)


def _explained(finding: Finding) -> Iterator[str]:
    """Yield the cause, what to do, and the evidence of a finding that knows them."""
    if finding.explanation is None:
        return
    yield f"### {_LEVELS[finding.level]}: {for_markdown(finding.message, 300)}"
    yield ""
    for name, text in explained(finding):
        yield f"- **{name}**: {markdown_code(text, 300) if name == 'more' else for_markdown(text, 500)}"
    yield ""
    for titles, *rows in finding.tables:
        yield from markdown_table(
            map(for_markdown, titles), ([markdown_code(cell, 80) if cell else "" for cell in row] for row in rows)
        )
        yield ""


def _times(finding: Finding) -> str:
    return f"{finding.count:,}{' or more' if finding.lost else ''}"


def _checks(report: RunReport) -> Iterator[str]:
    if not report.checks:
        return
    yield from markdown_table(
        ["", "Check", "Result"],
        [
            [
                _SIGNS[check.status],
                f"{check.kind} {markdown_code(check.name, 120)}",
                for_markdown(check.undecided or (count(len(check.findings) + check.left_out, "finding")), 300),
            ]
            for check in report.checks[:_MOST_CHECKS]
        ],
    )
    yield from _more(len(report.checks) - _MOST_CHECKS, "check")
    yield ""


def _seen(activity: Activity, failed_command: bool) -> Iterator[str]:
    """Yield what was done, most often first. Missing files matter only when the command failed."""
    failed = [process for process in activity.processes.values() if process.ended]
    programs = Counter(process.program for process in activity.processes.values())
    written, refused = Counter[str](), Counter[str]()
    for use, number in activity.files.items():
        if use.error and not use.is_probe:
            refused[f"{use.path} ({use.error})"] += number
        elif use.access == "write" and not use.error and not use.is_terminal:
            written[use.path] += number
    missing = _not_found(activity) if failed_command else Counter()
    listening = Counter({peer: number for peer, number in activity.peers.items() if peer.operation == "listen"})
    peers = Counter[RemoteEnd]()
    for peer, number in activity.peers.items():
        if peer.operation != "listen":  # one service has many addresses
            peers[replace(peer, address="") if peer.name else peer] += number
    parts: list[tuple[str, Sequence[tuple[str, int]], int]] = [
        ("Programs", *_most(programs, str)),
        ("Ended with an error", *_most(Counter(f"{each.program}: {each.ended}" for each in failed), str)),
        ("Connections", *_most(peers, _peer)),
        ("Listening", *_most(listening, _peer)),
        ("Names resolved", *_most(activity.names, str)),
        ("Files written", *_most(written, str)),
        ("Files that could not be opened", *_most(refused, str)),
        ("Files that were not found anywhere", *_most(missing, str)),
    ]
    rows = []
    for title, most, others in parts:
        if most:
            texts = [markdown_code(text, 100) + (f" ×{number:,}" if number > 1 else "") for text, number in most]
            rows.append([title, ", ".join(texts) + (f" and {others:,} more" if others else "")])
    if rows:
        yield from markdown_table(["Seen", ""], rows)
        yield ""


def _not_found(activity: Activity) -> Counter[str]:
    """Files that were looked for, and found in no other place."""
    found = {_name(use.path) for use in activity.files if not use.error}
    return Counter(
        {
            use.path: number
            for use, number in activity.files.items()
            if use.is_probe and _name(use.path) not in found and "/locale/" not in use.path
        }
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _most(table: Counter[_Key], text: Callable[[_Key], str]) -> tuple[list[tuple[str, int]], int]:
    most = [(text(key), number) for key, number in table.most_common(_MOST_SEEN)]
    return most, len(table) - len(most)


def _peer(peer: RemoteEnd) -> str:
    address = peer.name or (f"[{peer.address}]" if ":" in peer.address else peer.address)
    arrow = {"connect": "→ ", "accept": "← "}.get(peer.operation, "")
    port = f":{peer.port}" if peer.port else ""  # the other end's own port says nothing
    return f"{peer.program} {arrow}{peer.protocol} {address}{port}"


def _tree(activity: Activity) -> Iterator[str]:
    if not activity.processes:
        return
    total = len(activity.processes) + activity.not_listed["processes"]
    yield f"<details><summary>{count(total, 'program')} started</summary>"
    yield ""
    yield "<pre>"
    for number, (depth, process) in enumerate(activity.tree()):
        if number == _MOST_PROCESSES:
            break
        yield for_html(f"{'  ' * min(depth, 20)}- {process_line(process)}", _LONGEST_LINE)
    yield "</pre>"
    yield from _more(total - _MOST_PROCESSES, "program")
    yield "</details>"
    yield ""


def process_line(process: SeenProcess) -> str:
    """The command line of a process, and how it ended."""
    where = f"{process.container}: " if process.container else ""
    line = " ".join((process.program, *process.arguments[1:]))
    return f"{where}{line[:_LONGEST_LINE]}{f' → {process.ended}' if process.ended else ''}"


def _more(number: int, noun: str) -> Iterator[str]:
    if number > 0:
        yield ""
        yield f"and {count(number, f'more {noun}')}"


# HTML: one file without network, for an artefact of a job or a ticket. Its own policy forbids scripts, in case a text
# gets through unescaped.

_MOST_PROCESSES_HTML = 5000
_MOST_ROWS = 1000
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1f2328;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.passed{border-left:.5rem solid #1a7f37}.findings{border-left:.5rem solid #cf222e}
.inconclusive{border-left:.5rem solid #bf8700}header{padding-left:1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;
border-bottom:1px solid #d1d9e0;overflow-wrap:anywhere}pre,code{font:13px/1.45 ui-monospace,monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f8fa;padding:.6rem}.error,.critical{color:#cf222e}.warning{color:#9a6700}
@media(prefers-color-scheme:dark){body{color:#f0f6fc;background:#0d1117}pre{background:#151b23}th,td{border-color:#3d444d}}
"""


def render_html(report: RunReport) -> str:
    """The whole page."""
    return "\n".join(_html(report)) + "\n"


def _html(report: RunReport) -> Iterator[str]:
    title = f"kubectl gadget: {for_html(report.verdict())}"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f'<header class="{report.status}"><h1>{title}</h1>'
    command = f" while <code>{for_html(' '.join(report.command))}</code> ran" if report.command else ""
    code = "" if report.command_code is None else f"; its exit code: {report.command_code}"
    when = f"for {report.seconds:.1f} s from {for_html(report.began)}"
    yield f"<p>Traced {for_html(report.where)} {when}{command}{code}.</p></header>"
    for title, texts in (("What is missing", report.undecided), ("What is not covered", report.warnings)):
        if texts:
            yield f"<h2>{title}</h2><ul>"
            yield from (f"<li>{for_html(text)}</li>" for text in texts)
            yield "</ul>"
    if report.findings:
        yield "<h2>Findings</h2>"
        yield from map(_finding_html, report.findings[:_MOST_ROWS])
        if (more := max(0, len(report.findings) - _MOST_ROWS) + report.left_out) > 0:
            yield f"<p>and {more:,} more</p>"
    if report.checks:
        yield "<h2>Checks</h2>"
        found = [(each, count(len(each.findings) + each.left_out, "finding")) for each in report.checks]
        rows = ([each.status, each.kind, each.name, each.undecided or number] for each, number in found)
        yield from _table_html(["Result", "Kind", "Check", ""], rows)
    if report.steps:
        yield "<h2>Steps</h2>"
        yield from _table_html(["Time", "Step"], ([step.time, step.name] for step in report.steps))
    yield from _activity_html(report.activity)
    lost = ", ".join(f"{cause} {number:,}" for cause, number in report.lost.items()) or "0"
    seen = f"{count(report.events, 'event')} of {for_html(', '.join(report.gadgets))}"
    yield f"<footer><p>{seen} on {for_html(', '.join(report.nodes))}; "
    yield f"lost: {for_html(lost)}; kubectl gadget {for_html(report.version)}</p></footer>\n</body>\n</html>"


def _finding_html(finding: Finding) -> str:
    step = f" in step <code>{for_html(finding.step)}</code>" if finding.step else ""
    seen = f", first at {for_html(finding.first_seen)}" if finding.first_seen else ""
    rows = "\n".join(for_html(json.dumps(dict(row), ensure_ascii=False)) for row in finding.evidence)
    terms = "".join(f"<dt>{name}</dt><dd>{for_html(text)}</dd>" for name, text in explained(finding))
    tables = "\n".join(line for titles, *of in finding.tables for line in _table_html(titles, of))
    return (
        f'<details{" open" if terms else ""}><summary><span class="{finding.level}">{finding.level}</span> '
        f"<code>{for_html(str(finding.where))}</code> {for_html(finding.message)} ({finding.count:,}×)</summary>"
        f"<p><code>{for_html(finding.rule)}</code> {for_html(str(finding.source or ''))}{step}{seen}; "
        f"fingerprint <code>{finding.fingerprint}</code></p>{f'<dl>{terms}</dl>' if terms else ''}"
        f"{tables or f'<pre>{rows}</pre>'}</details>"
    )


def _activity_html(activity: Activity) -> Iterator[str]:
    if activity.processes:
        yield f"<h2>Processes</h2><details><summary>{count(len(activity.processes), 'program')} started</summary><pre>"
        for number, (depth, process) in enumerate(activity.tree()):
            if number == _MOST_PROCESSES_HTML:
                yield f"and {len(activity.processes) - number:,} more"
                break
            yield for_html(f"{'  ' * min(depth, 40)}- {process_line(process)}")
        yield "</pre></details>"
    peers = (
        [peer.operation, peer.program, peer.protocol, peer.address, str(peer.port or ""), peer.name, f"{number:,}"]
        for peer, number in activity.peers.most_common(_MOST_ROWS)
    )
    if activity.peers:
        yield f"<h2>Network</h2><details><summary>{count(len(activity.peers), 'peer')}</summary>"
        yield from _table_html(["", "Program", "Protocol", "Address", "Port", "Name", "Times"], peers)
        yield "</details>"
    if activity.files:
        files = Counter({use: n for use, n in activity.files.items() if not use.is_probe})
        uses = ([use.access, use.path, use.error, f"{n:,}"] for use, n in files.most_common(_MOST_ROWS))
        yield f"<h2>Files</h2><details><summary>{count(len(files), 'file')}</summary>"
        yield from _table_html(["", "Path", "Error", "Times"], uses)
        others = count(len(activity.files) - len(files), "path")
        yield f"<p>Not found: {others}; the JSON report has them.</p></details>"


def _table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"<table><tr>{''.join(f'<th>{for_html(name)}</th>' for name in head)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{for_html(cell)}</td>' for cell in row)}</tr>"
    yield "</table>"
