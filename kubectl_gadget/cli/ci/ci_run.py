"""`kubectl gadget ci run -- COMMAND`: traces while a command runs, and judges what was seen."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_gadget.ci import readable_reports, report_files
from kubectl_gadget.cli.ci.ci_flags import CiRunFlags, ReportFlags, prepared, require_posix, with_record
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags.flag_declaration import SHOW, Seconds, Text, TypedOnly, flag
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.ci.command import User
    from kubectl_gadget.ci.findings import RunReport


Words = Annotated[tuple[str, ...], typer.Argument(metavar="COMMAND")]
RunAs = Annotated[
    Text,
    flag(SHOW, "--run-as USER", "Run COMMAND as this user: sudo kubectl gadget ci run --run-as $USER"),
    TypedOnly.RIGHTS,
]
Linger = Annotated[
    Seconds, flag(SHOW, "--linger TIME", "Continue tracing for this time after COMMAND: 30s"), TypedOnly.END
]


def run(pods: Pods, command: Words, flags: CiRunFlags, reports: ReportFlags, run_as: RunAs, linger: Linger) -> int:
    """Attaches, runs COMMAND, writes the reports, and returns the exit code."""
    require_posix()
    from kubectl_gadget.ci import command as child
    from kubectl_gadget.ci.steps import ENVIRONMENT

    if not command:
        raise UsageError("no command was given after --", "kubectl gadget ci run [flags] -- COMMAND")
    wanted, subjects = reports.reports or (), reports.subjects or ()
    report_files.check(wanted, subjects)
    flags = replace(flags, shown=with_record(flags.shown, wanted))
    user = child.user(run_as) if run_as else None
    if user is None:  # else it may be where only that user can look
        child.require(command[0])
    with _folder() as folder:
        process = child.Command(command, {ENVIRONMENT: str(folder)}, user)
        try:
            from kubectl_gadget.ci.job_run import CiRun

            options, order = prepared(
                pods, flags, process.pid, any(each.kind == report_files.BASELINE for each in wanted)
            )
            order = replace(order, folder=folder, command=process, linger=linger or 0)
            report = asyncio.run(CiRun(options, order, sys.stderr).main())
        finally:
            process.abandon()
    return conclude(report, wanted, subjects, user)


@contextmanager
def _folder() -> Iterator[Path]:
    """The folder of the socket; COMMAND may run as another user, and has to get in."""
    folder = Path(tempfile.mkdtemp(prefix="kubectl-gadget-ci-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def conclude(
    report: "RunReport", wanted: Sequence[report_files.Wanted], subjects: Sequence[str], user: "User | None" = None
) -> int:
    """Writes the reports, as this user, prints the verdict, and returns the exit code."""
    from kubectl_gadget.ci.command import writing_as
    from kubectl_gadget.output.escape import for_log

    for line in readable_reports.log_lines(report):
        sys.stderr.write(f"kubectl gadget: {for_log(line)}\n")
    with writing_as(user):
        failures = [*report.failures, *report_files.write(report, wanted, subjects)]
    for failure in failures:
        sys.stderr.write(f"kubectl gadget: error: {for_log(failure)}\n")
    sys.stderr.flush()
    return report.exit_code or (1 if failures else 0)
