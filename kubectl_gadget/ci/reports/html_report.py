"""The report as one HTML file without scripts and without network, for an artefact of a job or a ticket.

The trap: texts come from programs. So all of them enter the page through `_text`, and the page's own policy forbids
scripts, in case one gets through.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from kubectl_gadget.ci.activity import Activity
from kubectl_gadget.ci.finding import Finding, RunReport
from kubectl_gadget.ci.reports.markdown import process_line
from kubectl_gadget.counts import count
from kubectl_gadget.output.escape import for_html as _text

_MOST_PROCESSES = 5000
_MOST_ROWS = 1000
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1f2328;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.passed{border-left:.5rem solid #1a7f37}.findings{border-left:.5rem solid #cf222e}
.inconclusive{border-left:.5rem solid #bf8700}header{padding-left:1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;
border-bottom:1px solid #d1d9e0;overflow-wrap:anywhere}pre,code{font:13px/1.45 ui-monospace,monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f8fa;padding:.6rem}.error{color:#cf222e}.warning{color:#9a6700}
@media(prefers-color-scheme:dark){body{color:#f0f6fc;background:#0d1117}pre{background:#151b23}th,td{border-color:#3d444d}}
"""


def render(report: RunReport) -> str:
    """The whole page."""
    return "\n".join(_page(report)) + "\n"


def _page(report: RunReport) -> Iterator[str]:
    title = f"kubectl gadget: {_text(report.verdict())}"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f'<header class="{report.status}"><h1>{title}</h1>'
    command = f" while <code>{_text(' '.join(report.command))}</code> ran" if report.command else ""
    code = "" if report.command_code is None else f"; its exit code: {report.command_code}"
    when = f"for {report.seconds:.1f} s from {_text(report.began)}"
    yield f"<p>Traced {_text(report.where)} {when}{command}{code}.</p></header>"
    for title, texts in (("What is missing", report.undecided), ("What is not covered", report.warnings)):
        if texts:
            yield f"<h2>{title}</h2><ul>"
            yield from (f"<li>{_text(text)}</li>" for text in texts)
            yield "</ul>"
    if report.findings:
        yield "<h2>Findings</h2>"
        yield from map(_finding, report.findings)
        if report.left_out:
            yield f"<p>and {report.left_out:,} more</p>"
    if report.checks:
        yield "<h2>Checks</h2>"
        found = [(each, count(len(each.findings) + each.left_out, "finding")) for each in report.checks]
        rows = ([each.status, each.kind, each.name, each.undecided or number] for each, number in found)
        yield from _table(["Result", "Kind", "Check", ""], rows)
    if report.steps:
        yield "<h2>Steps</h2>"
        yield from _table(["Time", "Step"], ([step.time, step.name] for step in report.steps))
    yield from _activity(report.activity)
    lost = ", ".join(f"{cause} {number:,}" for cause, number in report.lost.items()) or "0"
    seen = f"{count(report.events, 'event')} of {_text(', '.join(report.gadgets))}"
    yield f"<footer><p>{seen} on {_text(', '.join(report.nodes))}; "
    yield f"lost: {_text(lost)}; kubectl gadget {_text(report.version)}</p></footer>\n</body>\n</html>"


def _finding(finding: Finding) -> str:
    step = f" in step <code>{_text(finding.step)}</code>" if finding.step else ""
    seen = f", first at {_text(finding.first_seen)}" if finding.first_seen else ""
    rows = "\n".join(_text(json.dumps(dict(row), ensure_ascii=False)) for row in finding.evidence)
    return (
        f'<details><summary><span class="{finding.level}">{finding.level}</span> '
        f"<code>{_text(str(finding.where))}</code> {_text(finding.message)} ({finding.count:,}×)</summary>"
        f"<p><code>{_text(finding.rule)}</code> {_text(str(finding.source or ''))}{step}{seen}; "
        f"fingerprint <code>{finding.fingerprint}</code></p><pre>{rows}</pre></details>"
    )


def _activity(activity: Activity) -> Iterator[str]:
    if activity.processes:
        yield f"<h2>Processes</h2><details><summary>{count(len(activity.processes), 'program')} started</summary><pre>"
        for number, (depth, process) in enumerate(activity.tree()):
            if number == _MOST_PROCESSES:
                yield f"and {len(activity.processes) - number:,} more"
                break
            yield _text(f"{'  ' * min(depth, 40)}- {process_line(process)}")
        yield "</pre></details>"
    peers = (
        [peer.operation, peer.program, peer.protocol, peer.address, str(peer.port), peer.name, f"{number:,}"]
        for peer, number in activity.peers.most_common(_MOST_ROWS)
    )
    if activity.peers:
        yield f"<h2>Network</h2><details><summary>{count(len(activity.peers), 'peer')}</summary>"
        yield from _table(["", "Program", "Protocol", "Address", "Port", "Name", "Times"], peers)
        yield "</details>"
    if activity.files:
        files = Counter({use: n for use, n in activity.files.items() if not use.is_probe})
        uses = ([use.access, use.path, use.error, f"{n:,}"] for use, n in files.most_common(_MOST_ROWS))
        yield f"<h2>Files</h2><details><summary>{count(len(files), 'file')}</summary>"
        yield from _table(["", "Path", "Error", "Times"], uses)
        others = count(len(activity.files) - len(files), "path")
        yield f"<p>Not found: {others}; the JSON report has them.</p></details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>"
    yield "</table>"
