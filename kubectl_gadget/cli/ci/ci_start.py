"""`kubectl gadget ci start`, `ci step` and `ci stop`: a run around the steps of a pipeline, which are processes."""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kubectl_gadget.ci import report_files
from kubectl_gadget.cli.ci.ci_flags import CiRunFlags, ReportFlags, prepared, require_posix
from kubectl_gadget.cli.ci.ci_run import conclude
from kubectl_gadget.cli.commands.gadgets import Pods
from kubectl_gadget.cli.flags.flag_declaration import SHOW, WHERE, Count, Text, flag
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.ci.background import Started

State = Annotated[
    Text, flag(SHOW, "--state FOLDER", "State of ci start (default: .kubectl-gadget-ci in the current folder)")
]
Names = Annotated[tuple[str, ...], typer.Argument(metavar="NAME")]
Pid = Annotated[Count, flag(WHERE, "--pid PID", "With --local: only this process and its descendants")]


def start(pods: Pods, flags: CiRunFlags, pid: Pid = None, state: State = None) -> int:
    """Starts the process of the run."""
    require_posix()
    from kubectl_gadget.ci import background
    from kubectl_gadget.ci.findings import Check, RunReport
    from kubectl_gadget.ci.job_run import CiRun

    options, order = prepared(pods, flags, pid)
    if pid is not None and not options.local:
        raise UsageError("--pid is only for --local: pods are selected by name, -n or -l")
    where = folder(state)
    order = replace(order, users=frozenset({0, os.geteuid(), _caller()}))
    died = f"the run died before kubectl gadget ci stop; its log is {where / 'log'}"
    checks = order.checks
    named = [*(("fail-on", each) for each in checks.fail_on), *(("expect", each) for each in checks.expect)]
    named += [("assertion", each.name) for each in checks.assertions]
    named += [("policy", each.name) for each in (checks.policies.policies if checks.policies else ())]
    named += [("baseline", flags.checks.baseline)] if flags.checks.baseline else []
    first = RunReport(
        version="",
        where=options.selection.described(options.local),
        began="",
        seconds=0,
        checks=tuple(Check(kind, name, undecided=died) for kind, name in named),
        incomplete=(died,),
    )

    def run(log: TextIO, own: Path, attached: "Started") -> RunReport:
        return asyncio.run(CiRun(options, replace(order, folder=own, attached=attached), log).main())

    background.start(where, run, first)
    sys.stderr.write(f"kubectl gadget: tracing {first.where} until kubectl gadget ci stop; the state is in {where}\n")
    return 0


def step(names: Names, state: State = None) -> int:
    """Marks a step in the run around this command."""
    require_posix()
    from kubectl_gadget.ci.steps import ask

    if len(names) != 1:
        raise UsageError("name exactly one step", "kubectl gadget ci step NAME; in quotes, if it has spaces")
    ask(folder(state), {"step": names[0]})
    return 0


def stop(reports: ReportFlags, state: State = None) -> int:
    """Ends the run, writes the reports, and returns the exit code."""
    require_posix()
    from kubectl_gadget.ci import background
    from kubectl_gadget.ci.command import user

    wanted, subjects = reports.reports or (), reports.subjects or ()
    if any(each.kind == report_files.RECORD for each in wanted):
        raise UsageError("a recording has to be requested when the run starts", "kubectl gadget ci start --record FILE")
    report_files.check(wanted, subjects)
    # Steps of the job run as the user who calls sudo, and can write where the reports are.
    caller = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    # Before the run ends: its result is read once.
    writer = user(caller, "SUDO_USER") if caller else None
    return conclude(background.stop(folder(state)), wanted, subjects, writer)


def folder(state: str | None) -> Path:
    from kubectl_gadget.ci.background import DEFAULT_FOLDER
    from kubectl_gadget.ci.steps import ENVIRONMENT

    return Path(state or os.environ.get(ENVIRONMENT) or DEFAULT_FOLDER).absolute()


def _caller() -> int:
    """The user who calls sudo, as whom steps of the job run."""
    caller = os.environ.get("SUDO_UID", "")
    return int(caller) if os.geteuid() == 0 and caller.isdecimal() else os.geteuid()
