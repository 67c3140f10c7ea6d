"""The report for the log of a job: the verdict, what was found, and why it is inconclusive."""

from collections.abc import Iterator

from kubectl_gadget.ci.finding import Level, RunReport
from kubectl_gadget.counts import count

_MOST = 20


def lines(report: RunReport) -> Iterator[str]:
    """The lines, not escaped."""
    shown = [finding for finding in report.findings if finding.level is not Level.NOTE]
    for finding in shown[:_MOST]:
        where = f"{finding.where}: " if str(finding.where) else ""
        times = f" ({finding.count:,}×{' or more' if finding.lost else ''})" if finding.count > 1 else ""
        step = f", in the step {finding.step!r}" if finding.step else ""
        yield f"{finding.level}: {where}{finding.message}{times}{step} [{finding.source or finding.rule}]"
    if (more := len(report.findings) - len(shown[:_MOST]) + report.left_out) > 0:
        yield f"and {count(more, 'further observation')}"
    yield from (f"warning: {text}" for text in report.warnings)
    for why in report.undecided[:_MOST]:
        yield f"inconclusive: {why}"
    lost = ", ".join(f"{number:,} {cause}" for cause, number in report.lost.items()) or "0"
    yield f"{report.verdict()} ({count(report.events, 'event')}; lost: {lost})"
