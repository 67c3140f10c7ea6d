"""The flags of `ci run`, `ci start` and `ci stop`, and what becomes of them.

The trap: everything that the user wrote is checked before COMMAND exists and before anything is attached.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kubectl_gadget.ci import report_files
from kubectl_gadget.cli.flags.flag_declaration import SHOW, FlagSet, Names, Switch, Text, Texts, TypedOnly, flag
from kubectl_gadget.cli.flags.flag_sets import OnlyWarnings, OutputFlags, RecordFile, Verbose
from kubectl_gadget.cli.flags.own_namespace import own_namespace
from kubectl_gadget.cli.flags.policy_flags import PolicyFlags, engine_of, labels_of
from kubectl_gadget.cli.flags.run_flags import SilentRunFlags, run_options
from kubectl_gadget.cli.values import word_lists
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.behavior.baseline import Baseline
    from kubectl_gadget.behavior.run import Subject
    from kubectl_gadget.ci.assertions import Assertion
    from kubectl_gadget.ci.checks import CheckOrder
    from kubectl_gadget.ci.job_run import CiOrder
    from kubectl_gadget.run.run_options import RunOptions

CHECKS = "What is checked"


def _reports(texts: Sequence[str]) -> tuple[report_files.Wanted, ...]:
    return tuple(map(report_files.parse_wanted, texts))


def _fact_kinds(texts: Sequence[str]) -> tuple[str, ...]:
    from kubectl_gadget.behavior.facts import FactKind

    names = word_lists.commas(texts)
    if names == ("all",):
        return tuple(FactKind)
    return word_lists.each(word_lists.one_of(*FactKind), names)


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
    fail_on: Annotated[
        Texts, flag(CHECKS, "--fail-on EXPR", "A row that matches (CEL) is a finding; COMMAND continues"), TypedOnly.END
    ] = None
    expect: Annotated[Texts, flag(CHECKS, "--expect EXPR", "It is a finding if no row matches"), TypedOnly.END] = None
    assertions: Annotated[
        Texts, flag(CHECKS, "--assert FILE", "Assertions: what must be seen, how often (docs/ci)")
    ] = None


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


@dataclass(frozen=True)
class CiOutputFlags(FlagSet):
    """Flags for what is kept and printed meanwhile."""

    record: RecordFile = None
    quiet: OnlyWarnings = None
    verbose: Verbose = None


@dataclass(frozen=True)
class CiRunFlags(SilentRunFlags):
    """All flags of a run that do not belong to COMMAND."""

    checks: CheckFlags
    more: MoreFlags
    policies: PolicyFlags
    shown: CiOutputFlags


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
    from kubectl_gadget.run.run_options import GadgetRun

    checks = flags.checks
    assertions, baseline = read_checks(checks)
    further = _gadgets(flags.more.further or ())
    kinds = {each.kind for each in assertions if each.kind is not None}
    facts = bool(facts or flags.more.facts or baseline or kinds)
    if (baseline and baseline.behavior.has_syscalls) or FactKind.SYSCALL in kinds:
        further += SYSCALLS
    runs = ci_gadgets([*further, *(each.gadget.name for each in assertions if each.gadget)], facts)
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
        from kubectl_gadget.policies.run.labels import followed

        followers = () if flags.policies.objects else (followed(labels),)
        options = replace(options, gadgets=labels.attached_to(options.gadgets), followers=followers)
    of_command = any("pid" in run.parameters for run in options.gadgets)
    subject = Subject(of_command, options.selection.host and not of_command)
    order = check_order(checks, assertions, baseline, facts, subject)
    return options, CiOrder(folder=Path(), checks=replace(order, pid=pid, policies=compiled, labels=labels))


def read_checks(checks: CheckFlags) -> "tuple[tuple[Assertion, ...], Baseline | None]":
    """The assertions, and the baseline. Raises UsageError."""
    from kubectl_gadget.behavior.baseline import read_baseline

    if checks.fail_on_new and not checks.baseline:
        raise UsageError("--fail-on-new needs a baseline", "--baseline FILE, which --report baseline=FILE writes")
    assertions, file = _assertions(checks.assertions or ()), checks.baseline
    if file is not None and not Path(file).exists():
        remedy = f"--report baseline={file} instead, in a run that behaves as it should; then review the file"
        raise UsageError(f"--baseline {file}: there is no such file", remedy)
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
    from kubectl_gadget.similar_names import did_you_mean

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
    from kubectl_gadget.ci.checks import CheckOrder
    from kubectl_gadget.ci.fact_checks import BehaviorOrder

    of_facts = tuple(each for each in assertions if each.kind is not None)
    order = CheckOrder(fail_on=checks.fail_on or (), expect=checks.expect or (), assertions=assertions)
    if not (facts or baseline or of_facts):
        return order
    errors = tuple(map(FactKind, checks.fail_on_new or ()))
    return replace(order, behavior=BehaviorOrder(baseline, errors, of_facts, subject))


def _selects(pods: tuple[str, ...], flags: CiRunFlags) -> bool:
    scope, target = flags.scope, flags.target
    return bool(pods or scope.namespace or scope.all_namespaces or target.containers or target.host)


def with_record(shown: CiOutputFlags, reports: Sequence[report_files.Wanted]) -> CiOutputFlags:
    """--report record=FILE is --record FILE. Raises UsageError when there are two."""
    recordings = [each.file for each in reports if each.kind == report_files.RECORD]
    if len(recordings) + bool(shown.record) > 1:
        raise UsageError("a run writes one recording, but --record and --report record name several")
    return replace(shown, record=recordings[0]) if recordings else shown
