"""Reports for people: lines for the log of a job, Markdown for its summary, and one page of HTML.

Texts may come from programs, so all of them are escaped (lines by the caller). Every part has a limit, and says what it
left out: a step summary has a limit of 1 MiB and is shown whole.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from kubectl_gadget.output.escape import for_html, for_markdown, markdown_code, markdown_table
from kubectl_gadget.reports.model import (
    Activity,
    Finding,
    RemoteEnd,
    RunReport,
    SeenProcess,
    Severity,
    Status,
    explained,
    folded,
    stable,
)
from kubectl_gadget.wording import count

# Lines

_MOST_LINES = 20


def log_lines(report: RunReport) -> Iterator[str]:
    """The lines, not escaped."""
    lines = folded([finding for finding in report.findings if finding.level is not Severity.NOTE])[:_MOST_LINES]
    for finding, similar in lines:
        times = f" ({finding.count:,}×{' or more' if finding.lost else ''})" if finding.count > 1 else ""
        step = f", in the step {finding.step!r}" if finding.step else ""
        like = f" and {similar:,} more like it" if similar else ""
        yield f"{finding.level}: {finding.text}{times}{like}{step} [{finding.source or finding.rule}]"
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
    programs = Counter(process.name for process in activity.processes.values())
    written, refused = Counter[str](), Counter[str]()
    for use, number in activity.files.items():
        if use.error and not use.is_probe:
            refused[f"{use.path} ({use.error})"] += number
        elif use.access == "write" and not use.error and not use.is_terminal:
            written[use.path] += number
    missing = _not_found(activity) if failed_command else Counter()
    listening, peers = Counter[RemoteEnd](), Counter[RemoteEnd]()
    for peer, number in activity.peers.items():
        if peer.operation == "listen":
            listening[_alike(peer)] += number
        else:
            peers[_alike(peer)] += number
    parts: list[tuple[str, Sequence[tuple[str, int]], int]] = [
        ("Programs", *_most(programs, str)),
        ("Ended with an error", *_most(Counter(f"{each.name}: {each.ended}" for each in failed), str)),
        ("Connections", *_most(peers, _peer)),
        ("Listening", *_most(listening, _peer)),
        ("Names resolved", *_most(activity.names, str)),
        ("Files written", *_most(_like_each_other(written), str)),
        ("Files that could not be opened", *_most(_like_each_other(refused), str)),
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


def _alike(peer: RemoteEnd) -> RemoteEnd:
    """The peer without what says nothing: one of the addresses of a name, and a port that the kernel has chosen."""
    return replace(peer, address="" if peer.name else peer.address, port=0 if peer.ephemeral else peer.port)


def _like_each_other(files: Counter[str]) -> Counter[str]:
    """Files, with those as one that differ only in numbers and the like."""
    groups: dict[str, list[str]] = {}
    for text in files:
        groups.setdefault(stable(text), []).append(text)
    found = Counter[str]()
    for first, *others in groups.values():
        more = f" and {len(others):,} more like it" if others else ""
        found[f"{first}{more}"] = sum(files[text] for text in (first, *others))
    return found


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
    port = (
        ":<ephemeral>" if peer.ephemeral else f":{peer.port}" if peer.port else ""
    )  # a client's own port says nothing
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
