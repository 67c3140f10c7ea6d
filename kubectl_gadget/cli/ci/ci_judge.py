"""`kubectl gadget ci judge FILE...`: judges recordings, with checks that their runs did not have."""

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kubectl_gadget.ci import report_files
from kubectl_gadget.cli.ci.ci_flags import CheckFlags, ReportFlags, check_order, read_checks
from kubectl_gadget.cli.ci.ci_run import conclude
from kubectl_gadget.cli.flags.flag_sets import ClusterFlags, OnlyWarnings, ScopeFlags, TargetFlags
from kubectl_gadget.cli.flags.own_namespace import own_namespace
from kubectl_gadget.cli.flags.policy_flags import PolicyFlags, engine_of, labels_of, replayed_policies
from kubectl_gadget.cli.flags.run_flags import recorded_options
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.ci.checks import CheckOrder
    from kubectl_gadget.ci.judge import RecordedJob
    from kubectl_gadget.run.run_options import RunOptions

Files = Annotated[tuple[str, ...], typer.Argument(metavar="FILE"), tuple]


@dataclass(frozen=True)
class JudgeFlags:
    """What is checked, and of which pods."""

    checks: CheckFlags
    policies: PolicyFlags
    scope: ScopeFlags
    target: TargetFlags
    cluster: ClusterFlags


def judge(recordings: Files, flags: JudgeFlags, reports: ReportFlags, quiet: OnlyWarnings = None) -> int:
    """Replays the recordings to the checks, writes the reports, and returns the exit code."""
    from kubectl_gadget.ci.judge import judge as judge_recordings

    wanted = reports.reports or ()
    if not recordings:
        raise UsageError("no recording was given", "kubectl gadget ci judge FILE")
    if any(each.kind == report_files.RECORD for each in wanted):
        raise UsageError("--report record cannot be used here: the recording already exists")
    report_files.check(wanted, reports.subjects or ())
    options, order, job = _prepared(recordings, flags, any(each.kind == report_files.BASELINE for each in wanted))
    report = judge_recordings(replace(options, quiet=True), order, job, sys.stderr)
    return conclude(report, wanted, reports.subjects or ())


def _prepared(
    recordings: tuple[str, ...], flags: JudgeFlags, facts: bool
) -> "tuple[RunOptions, CheckOrder, RecordedJob]":
    """The options of the replay, what it checks, and what its run was. Raises UsageError."""
    from kubectl_gadget.ci.judge import recorded_job, require
    from kubectl_gadget.recording.recording_places import places_of
    from kubectl_gadget.run.run_options import GadgetRun, Replay

    assertions, baseline = read_checks(flags.checks)
    asked = Replay(tuple(places_of(recordings)))
    job = recorded_job(asked.files)
    require(job, assertions)
    options = replace(recorded_options((), flags.scope, flags.target), gadgets=job.gadgets, local=True, replay=asked)
    order = check_order(flags.checks, assertions, baseline, facts, job.subject)
    if not flags.policies.named:
        return options, order, job
    compiled = engine_of(flags.policies, partial(own_namespace, flags.scope, flags.cluster, True))
    policies = replayed_policies(asked, compiled)
    assert policies is not None
    labels = labels_of(policies, options, flags.policies.objects)
    from kubectl_gadget.observe.decoders import GADGET

    options = replace(options, gadgets=(*options.gadgets, GadgetRun(GADGET, policies=policies)))
    if labels is not None and not flags.policies.objects:
        from kubectl_gadget.policies.run.labels import followed

        options = replace(options, followers=(followed(labels),))
    return options, replace(order, policies=policies, labels=labels), job
