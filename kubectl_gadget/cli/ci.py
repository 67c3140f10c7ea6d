"""Commands of `ci`: `run` around a command, `start`, `step` and `stop` around the steps of a pipeline, and `judge` of
recordings.

Everything that the user wrote is checked before COMMAND exists and before anything is attached.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kubectl_gadget.cli import values
from kubectl_gadget.cli.cluster import own_namespace, wait_for
from kubectl_gadget.cli.flags import (
    SHOW,
    WHERE,
    ClusterFlags,
    Count,
    FlagSet,
    Names,
    OnlyWarnings,
    OutputFlags,
    RecordFile,
    ScopeFlags,
    Seconds,
    Switch,
    TargetFlags,
    Text,
    Texts,
    TypedOnly,
    Verbose,
    flag,
)
from kubectl_gadget.cli.gadgets import Pods
from kubectl_gadget.cli.policy_flags import PolicyFlags, engine_of, labels_of, replayed_policies
from kubectl_gadget.cli.run import page_model, recorded_for_page
from kubectl_gadget.cli.run_flags import SilentRunFlags, recorded_options, run_options
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.output.escape import for_log
from kubectl_gadget.reports import files as report_files
from kubectl_gadget.reports.model import Check, RunReport
from kubectl_gadget.reports.readable import log_lines
from kubectl_gadget.run.run_options import GadgetRun, Replay, with_peer_names
from kubectl_gadget.wording import count, did_you_mean

if TYPE_CHECKING:
    from kubectl_gadget.behavior.baseline import Baseline
    from kubectl_gadget.behavior.run import Subject
    from kubectl_gadget.ci.assertions import Assertion
    from kubectl_gadget.ci.background import Started
    from kubectl_gadget.ci.checks import CheckOrder, DiagnosisOrder
    from kubectl_gadget.ci.command import User
    from kubectl_gadget.ci.job_run import CiOrder
    from kubectl_gadget.ci.judge import RecordedJob
    from kubectl_gadget.reports.model import RunReport
    from kubectl_gadget.run.run_options import RunOptions


# Flags

CHECKS = "What is checked"


def _reports(texts: Sequence[str]) -> tuple[report_files.Wanted, ...]:
    return tuple(map(report_files.parse_wanted, texts))


def _fact_kinds(texts: Sequence[str]) -> tuple[str, ...]:
    from kubectl_gadget.behavior.facts import FactKind

    names = values.commas(texts)
    if names == ("all",):
        return tuple(FactKind)
    return values.each(values.one_of(*FactKind), names)


@dataclass(frozen=True)
class CheckFlags(FlagSet):
    """Flags for what must be seen, and what must not."""

    baseline: Annotated[
        Text, flag(CHECKS, "--baseline FILE", "Compare with a file of --report baseline; new behavior is a warning")
    ] = None
    fail_on_new: Annotated[
        Texts,
        flag(CHECKS, "--fail-on-new KINDS", "New behavior of these kinds is a failure: program,connect,…, or all"),
        _fact_kinds,
        TypedOnly.END,
    ] = None
    rules: Annotated[
        Text, flag(CHECKS, "--rules FILE", "Rules for facts, before the built-in ones: behavior rules shows them")
    ] = None
    fail_on: Annotated[
        Texts, flag(CHECKS, "--fail-on EXPR", "A row that matches (CEL) is a finding; COMMAND continues"), TypedOnly.END
    ] = None
    expect: Annotated[Texts, flag(CHECKS, "--expect EXPR", "It is a finding if no row matches"), TypedOnly.END] = None
    assertions: Annotated[
        Texts, flag(CHECKS, "--assert FILE", "Assertions: what must be seen, how often (docs/ci)")
    ] = None

    def validate(self) -> None:
        """Raises UsageError if there is no baseline to compare with."""
        if self.fail_on_new and not self.baseline:
            raise UsageError("--fail-on-new needs a baseline", "--baseline FILE, which --report baseline=FILE writes")
        if self.baseline is not None and not Path(self.baseline).exists():
            remedy = (
                f"--report baseline={self.baseline} instead, in a run that behaves as it should; then review the file"
            )
            raise UsageError(f"--baseline {self.baseline}: there is no such file", remedy)


@dataclass(frozen=True)
class DiagnosisFlags(FlagSet):
    """Flags for the search for causes."""

    diagnose: Annotated[
        Switch,
        flag(CHECKS, "--diagnose", "Also look for causes of failures, as kubectl gadget diagnose does"),
        TypedOnly.ACTION,
    ] = None
    fail_on_finding: Annotated[
        Text,
        flag(
            CHECKS,
            f"--fail-on-finding [{'|'.join(values.SEVERITIES)}]",
            "With --diagnose: findings of at least this level are failures (default: error)",
            choices=values.SEVERITIES,
        ),
        TypedOnly.END,
    ] = None

    def validate(self) -> None:
        """Raises UsageError if nothing makes the findings that would be failures."""
        if self.fail_on_finding and not self.diagnose:
            raise UsageError("--fail-on-finding needs --diagnose", "--diagnose")


@dataclass(frozen=True)
class MoreFlags(FlagSet):
    """Flags for what is traced besides."""

    facts: Annotated[
        Switch, flag(CHECKS, "--facts", "Collect facts in any case, as for --report baseline=FILE"), TypedOnly.ACTION
    ] = None
    further: Annotated[
        Names, flag(CHECKS, "--trace GADGETS", "Also these gadgets: privilege,capabilities"), TypedOnly.ACTION
    ] = None


@dataclass(frozen=True)
class ReportFlags(FlagSet):
    """Flags for reports."""

    reports: Annotated[
        tuple[report_files.Wanted, ...] | None,
        flag(
            SHOW,
            "--report KIND=FILE",
            f"{', '.join(report_files.KINDS)}; - is standard output",
            choices=report_files.KINDS,
        ),
        _reports,
    ] = None
    subjects: Annotated[Texts, flag(SHOW, "--subject FILE", "What the attestation is about; or NAME@sha256:DIGEST")] = (
        None
    )

    @property
    def wanted(self) -> tuple[report_files.Wanted, ...]:
        return self.reports or ()

    def asks_for(self, kind: str) -> bool:
        return any(each.kind == kind for each in self.wanted)

    def validate(self) -> None:
        """Raises UsageError for reports that cannot be written. Call it before anything runs."""
        report_files.check(self.wanted, self.subjects or ())

    def validate_ended(self, what: str, remedy: str | None = None) -> None:
        """The same where nothing can be recorded any more, which `what` says."""
        if self.asks_for(report_files.RECORD):
            raise UsageError(what, remedy)
        self.validate()


@dataclass(frozen=True)
class CiOutputFlags(FlagSet):
    """Flags for the recording and for progress."""

    record: RecordFile = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None


@dataclass(frozen=True)
class CiRunFlags(SilentRunFlags):
    """All flags of a run that do not belong to COMMAND."""

    checks: CheckFlags
    more: MoreFlags
    diagnosis: DiagnosisFlags
    policies: PolicyFlags
    shown: CiOutputFlags


# What the flags ask for


def require_posix() -> None:
    """Raises UsageError where a command cannot be started as `ci` does it."""
    if not hasattr(os, "fork"):
        raise UsageError(f"ci needs Linux or macOS, and this is {sys.platform}", "run it in a Linux container")


def prepared(
    pods: tuple[str, ...], flags: CiRunFlags, pid: int | None, facts: bool = False
) -> "tuple[RunOptions, CiOrder]":
    """The options of the run and what it checks. `pid`: without a cluster, and if nothing was selected, only this
    process and its descendants. `facts`: a report needs them. Raises UsageError."""
    from kubectl_gadget.behavior.facts import FactKind
    from kubectl_gadget.behavior.run import SYSCALLS, Subject, ci_gadgets
    from kubectl_gadget.ci.job_run import CiOrder, of_process_tree

    checks = flags.checks
    assertions, baseline = read_checks(checks)
    further = _gadgets(flags.more.further or ())
    kinds = {each.kind for each in assertions if each.kind is not None}
    facts = bool(facts or flags.more.facts or baseline or kinds)
    if (baseline and baseline.behavior.has_syscalls) or FactKind.SYSCALL in kinds:
        further += SYSCALLS
    runs = ci_gadgets([*further, *(each.gadget.name for each in assertions if each.gadget)], facts)
    runs, diagnosis = _diagnosed(runs, flags.diagnosis)
    compiled = None
    if flags.policies.named:
        from kubectl_gadget.observe.decoders import GADGET

        compiled = engine_of(flags.policies, partial(own_namespace, flags.scope, flags.cluster, flags.target.local))
        runs = (*runs, GadgetRun(GADGET, policies=compiled))
    shown = flags.shown
    output = OutputFlags(record=shown.record, quiet=shown.quiet, verbose=shown.verbose)
    options = run_options(runs, pods, flags.with_output(output))
    selection = replace(options.selection, every_node=not options.local)
    if options.local and not _selects(pods, flags):
        selection = replace(selection, host=True, all_namespaces=True)
    else:
        pid = None
    options = replace(options, command=("observe",), selection=selection)
    if pid is not None:
        options = replace(options, gadgets=of_process_tree(options.gadgets, pid))
    labels = labels_of(compiled, options, flags.policies.objects) if compiled is not None else None
    if labels is not None:
        from kubectl_gadget.policies.labels import followed

        followers = () if flags.policies.objects else (followed(labels),)
        options = replace(options, gadgets=labels.attached_to(options.gadgets), followers=followers)
    options = with_peer_names(options)
    of_command = any("pid" in run.parameters for run in options.gadgets)
    subject = Subject(of_command, options.selection.host and not of_command)
    order = replace(check_order(checks, assertions, baseline, facts, subject), diagnosis=diagnosis)
    return options, CiOrder(folder=Path(), checks=replace(order, pid=pid, policies=compiled, labels=labels))


def _diagnosed(
    found: "tuple[GadgetRun, ...]", flags: DiagnosisFlags
) -> "tuple[tuple[GadgetRun, ...], DiagnosisOrder | None]":
    """Return the gadgets with those that rules need, and how causes are looked for. Raises UsageError."""
    flags.validate()
    if not flags.diagnose:
        return found, None
    from kubectl_gadget.diagnose import rules, search

    known = {run.gadget.name for run in found}
    # What a gadget of the job sees, it also sees for the rules, whose conditions say again what parameters leave out.
    more = tuple(run for run in search.runs(rules.load(rules.own_files())) if run.gadget.name not in known)
    return (*found[:-1], *more, found[-1]), _diagnosis(flags, [run.gadget.name for run in more])


def _parameters_of_rules(assertions: "Sequence[Assertion]") -> dict[str, dict[str, object]]:
    """Return the parameters of gadgets that see less with them, as rules need it, if no assertion is about them."""
    from kubectl_gadget.diagnose import rules, search

    asserted = {each.gadget.name for each in assertions if each.gadget}
    found = search.runs(rules.load(rules.own_files()))
    return {
        run.gadget.name: dict(run.parameters) for run in found if run.parameters and run.gadget.name not in asserted
    }


def _diagnosis(flags: DiagnosisFlags, aside: Sequence[str]) -> "DiagnosisOrder":
    """Return how causes are looked for. `aside`: the gadgets that only rules need."""
    from kubectl_gadget.ci.checks import DiagnosisOrder
    from kubectl_gadget.diagnose import rules
    from kubectl_gadget.reports.model import Severity

    own = tuple(rules.load(rules.own_files()))
    return DiagnosisOrder(own, frozenset(aside), Severity(flags.fail_on_finding or Severity.ERROR))


def read_checks(checks: CheckFlags) -> "tuple[tuple[Assertion, ...], Baseline | None]":
    """The assertions, and the baseline. Raises UsageError."""
    from kubectl_gadget.behavior.baseline import read_baseline

    checks.validate()
    assertions, file = _assertions(checks.assertions or ()), checks.baseline
    return assertions, None if file is None else read_baseline(Path(file))


def _assertions(files: Sequence[str]) -> "tuple[Assertion, ...]":
    from kubectl_gadget.ci.assertions import read_assertions

    found = tuple(each for file in files for each in read_assertions(Path(file)))
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--assert: two files have an assertion with the name {twice!r}")
    return found


def _gadgets(names: Sequence[str]) -> list[str]:
    """The full names of gadgets that are named as after `trace`."""
    from kubectl_gadget.ci.assertions import stream_gadgets

    known = stream_gadgets()
    for name in names:
        if name not in known:
            raise UsageError(
                f"--trace: no gadget is named trace {name}{did_you_mean(name, known)}", "kubectl gadget list"
            )
    return [known[name] for name in names]


def check_order(
    checks: CheckFlags,
    assertions: "tuple[Assertion, ...]",
    baseline: "Baseline | None",
    facts: bool,
    subject: "Subject",
) -> "CheckOrder":
    """Return what is checked, apart from policies. `facts`: they are collected in any case."""
    from kubectl_gadget.behavior.facts import FactKind
    from kubectl_gadget.behavior.generalization import read_rules
    from kubectl_gadget.ci.checks import CheckOrder
    from kubectl_gadget.ci.fact_checks import BehaviorOrder

    of_facts = tuple(each for each in assertions if each.kind is not None)
    order = CheckOrder(fail_on=checks.fail_on or (), expect=checks.expect or (), assertions=assertions)
    if not (facts or baseline or of_facts):
        return order
    errors = tuple(map(FactKind, checks.fail_on_new or ()))
    rules = None if checks.rules is None else Path(checks.rules)
    return replace(order, behavior=BehaviorOrder(baseline, errors, of_facts, subject, read_rules(rules)))


def _selects(pods: tuple[str, ...], flags: CiRunFlags) -> bool:
    scope, target = flags.scope, flags.target
    return bool(pods or scope.namespace or scope.all_namespaces or target.containers or target.host)


def with_record(shown: CiOutputFlags, reports: Sequence[report_files.Wanted]) -> CiOutputFlags:
    """--report record=FILE is --record FILE. Raises UsageError when there are two."""
    recordings = [each.file for each in reports if each.kind == report_files.RECORD]
    if len(recordings) + bool(shown.record) > 1:
        raise UsageError("a run writes one recording, but --record and --report record name several")
    return replace(shown, record=recordings[0]) if recordings else shown


def conclude(
    report: "RunReport",
    wanted: Sequence[report_files.Wanted],
    subjects: Sequence[str],
    user: "User | None" = None,
    recorded: Replay | None = None,
) -> int:
    """Writes the reports, as this user, prints the verdict, and returns the exit code. `recorded`: what a page is made
    of; None: a page has what the report says."""
    from kubectl_gadget.ci.command import writing_as

    page = ""
    if _wants_page(wanted):
        from kubectl_gadget.page import html
        from kubectl_gadget.page.run import bare
        from kubectl_gadget.recording.places import places_of

        if recorded is None and report.recording:
            recorded = Replay(tuple(places_of([report.recording])))
        try:
            page = html.render(page_model(recorded, None, report) if recorded else bare(report))
        except GadgetError as error:
            report = replace(report, failures=(*report.failures, f"the page was not made: {error}"))
            wanted = [each for each in wanted if each.kind != report_files.HTML]

    for line in log_lines(report):
        sys.stderr.write(f"kubectl gadget: {for_log(line)}\n")
    with writing_as(user):
        failures = [*report.failures, *report_files.write(report, wanted, subjects, page)]
    for failure in failures:
        sys.stderr.write(f"kubectl gadget: error: {for_log(failure)}\n")
    sys.stderr.flush()
    return report.exit_code or (1 if failures else 0)


def _wants_page(wanted: Sequence[report_files.Wanted]) -> bool:
    return any(each.kind == report_files.HTML for each in wanted)


# `run -- COMMAND` traces while a command runs, and judges what was seen

Words = Annotated[tuple[str, ...], typer.Argument(metavar="COMMAND")]


@dataclass(frozen=True)
class CommandFlags:
    """Options for running COMMAND."""

    run_as: Annotated[
        Text,
        flag(SHOW, "--run-as USER", "Run COMMAND as this user: sudo kubectl gadget ci run --run-as $USER"),
        TypedOnly.RIGHTS,
    ] = None
    linger: Annotated[
        Seconds, flag(SHOW, "--linger TIME", "Continue tracing for this time after COMMAND: 30s"), TypedOnly.END
    ] = None
    runs: Annotated[
        Count,
        flag(SHOW, "--runs N", "Run COMMAND this many times; --report baseline=FILE is of all of them"),
        TypedOnly.END,
    ] = None

    def validate(self, command: Sequence[str], record: str | None) -> None:
        """Raises UsageError if there is no command, or if several runs would write one recording."""
        if not command:
            raise UsageError("no command was given after --", "kubectl gadget ci run [flags] -- COMMAND")
        if (self.runs or 1) > 1 and record:
            raise UsageError("--runs and --record cannot be used together: a recording is of one run")


def run(
    pods: Pods,
    command: Words,
    flags: CiRunFlags,
    reports: ReportFlags,
    how: CommandFlags,
) -> int:
    """Attaches, runs COMMAND, writes the reports, and returns the exit code. A run that is not green is the last."""
    require_posix()
    from kubectl_gadget.ci import command as child
    from kubectl_gadget.ci.steps import ENVIRONMENT

    wanted, subjects = reports.wanted, reports.subjects or ()
    flags = replace(flags, shown=with_record(flags.shown, wanted))
    how.validate(command, flags.shown.record)
    reports.validate()
    user = child.user(how.run_as) if how.run_as else None
    if user is None:  # else it may be where only that user can look
        child.require(command[0])
    number, facts = how.runs or 1, reports.asks_for(report_files.BASELINE)
    with ExitStack() as stack:
        folders = [stack.enter_context(_folder()) for _ in range(number)]
        # All of them are forked now, while this process has one thread.
        processes = [child.Command(command, {ENVIRONMENT: str(folder)}, user) for folder in folders]
        for process in processes:
            stack.callback(process.abandon)
        from kubectl_gadget.ci.job_run import CiRun

        baselines, recorded = list[str](), None
        for process, folder in zip(processes, folders, strict=True):
            options, order = prepared(pods, flags, process.pid, facts)
            order = replace(order, folder=folder, command=process, linger=how.linger or 0)
            if _wants_page(wanted):
                options, recorded = stack.enter_context(recorded_for_page(options, child.writing_as(user)))
            report = wait_for(CiRun(options, order, sys.stderr).main())
            baselines.append(report.baseline)
            if report.exit_code:
                break
            if number > 1:
                sys.stderr.write(f"kubectl gadget: run {len(baselines)} of {number} is over\n")
        if len(baselines) > 1 and report.baseline:
            report = replace(report, baseline=_merged(baselines, flags.checks.rules))
        return conclude(report, wanted, subjects, user, recorded)


def _merged(baselines: Sequence[str], rules: str | None) -> str:
    """The baseline of several runs. Says what was not the same in each of them."""
    from kubectl_gadget.behavior.baseline import baseline_text, parse_baseline
    from kubectl_gadget.behavior.generalization import Generalizer, read_rules
    from kubectl_gadget.behavior.learning import of_one_job

    generalizer = Generalizer(read_rules(None if rules is None else Path(rules)))
    found = of_one_job([parse_baseline("the baseline of a run", text).behavior for text in baselines], generalizer)
    if found.learned:
        what = count(len(found.learned), "kind of name", "kinds of names")
        sys.stderr.write(f"kubectl gadget: {what} that differ by chance: see `learned` in the baseline\n")
    if some := sum(fact.runs < len(baselines) for fact in found.facts):
        remedy = "a baseline of more runs may have them all"
        sys.stderr.write(f"kubectl gadget: {count(some, 'fact')} not seen in each run; {remedy}\n")
    return baseline_text(found)


@contextmanager
def _folder() -> Iterator[Path]:
    """The folder of the socket; COMMAND may run as another user, and has to get in."""
    folder = Path(tempfile.mkdtemp(prefix="kubectl-gadget-ci-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# `start`, `step` and `stop`: a run around the steps of a pipeline, which are processes

State = Annotated[
    Text, flag(SHOW, "--state FOLDER", "State of ci start (default: .kubectl-gadget-ci in the current folder)")
]
StepName = Annotated[tuple[str, ...], typer.Argument(metavar="NAME")]
Pid = Annotated[Count, flag(WHERE, "--pid PID", "With --local: only this process and its descendants")]


def start(pods: Pods, flags: CiRunFlags, pid: Pid = None, state: State = None) -> int:
    """Starts the process of the run."""
    require_posix()
    from kubectl_gadget.ci import background
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
    named += [("diagnosis", "rules")] if checks.diagnosis else []
    first = RunReport(
        version="",
        where=options.selection.described(options.local),
        began="",
        seconds=0,
        checks=tuple(Check(kind, name, undecided=died) for kind, name in named),
        incomplete=(died,),
    )

    def run(log: TextIO, own: Path, attached: "Started") -> RunReport:
        return wait_for(CiRun(options, replace(order, folder=own, attached=attached), log).main())

    background.start(where, run, first)
    sys.stderr.write(f"kubectl gadget: tracing {first.where} until kubectl gadget ci stop; the state is in {where}\n")
    return 0


def step(names: StepName, state: State = None) -> int:
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

    what = "a recording has to be requested when the run starts"
    reports.validate_ended(what, "kubectl gadget ci start --record FILE")
    # Steps of the job run as the user who calls sudo, and can write where the reports are.
    caller = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    # Before the run ends: its result is read once.
    writer = user(caller, "SUDO_USER") if caller else None
    return conclude(background.stop(folder(state)), reports.wanted, reports.subjects or (), writer)


def folder(state: str | None) -> Path:
    from kubectl_gadget.ci.background import DEFAULT_FOLDER
    from kubectl_gadget.ci.steps import ENVIRONMENT

    return Path(state or os.environ.get(ENVIRONMENT) or DEFAULT_FOLDER).absolute()


def _caller() -> int:
    """The user who calls sudo, as whom steps of the job run."""
    caller = os.environ.get("SUDO_UID", "")
    return int(caller) if os.geteuid() == 0 and caller.isdecimal() else os.geteuid()


# `judge FILE...`: recordings, with checks that their runs did not have

Files = Annotated[tuple[str, ...], typer.Argument(metavar="FILE"), tuple]


@dataclass(frozen=True)
class JudgeFlags:
    """The checks, and the pods that they are for."""

    checks: CheckFlags
    diagnosis: DiagnosisFlags
    policies: PolicyFlags
    scope: ScopeFlags
    target: TargetFlags
    cluster: ClusterFlags


def judge(recordings: Files, flags: JudgeFlags, reports: ReportFlags, quiet: OnlyWarnings = None) -> int:
    """Replays the recordings to the checks, writes the reports, and returns the exit code."""
    from kubectl_gadget.ci.judge import judge as judge_recordings

    if not recordings:
        raise UsageError("no recording was given", "kubectl gadget ci judge FILE")
    reports.validate_ended("--report record cannot be used here: the recording already exists")
    options, order, job = _prepared(recordings, flags, reports.asks_for(report_files.BASELINE))
    report = judge_recordings(replace(options, quiet=True), order, job, sys.stderr)
    return conclude(report, reports.wanted, reports.subjects or (), recorded=options.replay)


def _prepared(
    recordings: tuple[str, ...], flags: JudgeFlags, facts: bool
) -> "tuple[RunOptions, CheckOrder, RecordedJob]":
    """The options of the replay, what it checks, and what its run was. Raises UsageError."""
    from kubectl_gadget.ci.judge import recorded_job, require
    from kubectl_gadget.recording.places import places_of

    assertions, baseline = read_checks(flags.checks)
    asked = Replay(tuple(places_of(recordings)))
    flags.diagnosis.validate()
    of_rules = _parameters_of_rules(assertions) if flags.diagnosis.diagnose else {}
    job = recorded_job(asked.files, of_rules)
    require(job, assertions)
    options = replace(recorded_options((), flags.scope, flags.target), gadgets=job.gadgets, local=True, replay=asked)
    order = check_order(flags.checks, assertions, baseline, facts, job.subject)
    if flags.diagnosis.diagnose:
        aside = [run.gadget.name for run in job.gadgets if run.parameters == of_rules.get(run.gadget.name)]
        options = replace(options, gadgets=(*job.gadgets, *job.snapshots))
        aside += (run.gadget.name for run in job.snapshots)
        order = replace(order, diagnosis=_diagnosis(flags.diagnosis, aside))
    if not flags.policies.named:
        return options, order, job
    compiled = engine_of(flags.policies, partial(own_namespace, flags.scope, flags.cluster, True))
    policies = replayed_policies(asked, compiled)
    assert policies is not None
    labels = labels_of(policies, options, flags.policies.objects)
    from kubectl_gadget.observe.decoders import GADGET

    options = replace(options, gadgets=(*options.gadgets, GadgetRun(GADGET, policies=policies)))
    if labels is not None and not flags.policies.objects:
        from kubectl_gadget.policies.labels import followed

        options = replace(options, followers=(followed(labels),))
    return options, replace(order, policies=policies, labels=labels), job
