"""Judges recordings with checks that their runs did not have.

Only the run itself knows which of its events were not counted as lost, such as events of a late node. A CI run
writes that at the end of its recording (JobEnd); of another run, it is what a replay can say.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TextIO

from kubectl_gadget.behavior.row_facts import KINDS
from kubectl_gadget.behavior.run import MISSING, OF_COMMAND, PARAMETERS, SYSCALLS, Subject, subject_of
from kubectl_gadget.ci.assertions import Assertion
from kubectl_gadget.ci.checks import CheckOrder, RunChecks, TracedRun
from kubectl_gadget.ci.job_run import search_of, uncounted
from kubectl_gadget.ci.steps import Marks
from kubectl_gadget.errors import UsageError
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_run import JobEnd, RecordedEnd, RecordedGadget, RecordedRun, recorded_end
from kubectl_gadget.recording.replay_run import open_recordings, replayed
from kubectl_gadget.reports.model import RunReport
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, RunOptions


@dataclass(frozen=True)
class RecordedJob:
    """The beginning of a recording."""

    gadgets: tuple[GadgetRun, ...]
    subject: Subject
    unseen: tuple[str, ...]
    """why the run did not see everything that its gadgets can see"""
    began_ns: int
    """wall time from which facts count"""
    snapshots: tuple[GadgetRun, ...] = ()
    """what was recorded besides, which only rules of `diagnose` read"""


def recorded_job(files: Sequence[PathOrUrl], of_rules: Mapping[str, Mapping[str, object]] | None = None) -> RecordedJob:
    """Describes the recordings of one job. `of_rules`: the parameters with which a gadget sees what rules of `diagnose`
    need, and only these need it. Raises UsageError."""
    with ExitStack() as stack:
        readers = open_recordings(stack, files)
        runs = [RecordedRun.from_meta(reader.meta, str(reader.path)) for reader in readers]
        began_ns = min(recorded_end(reader).began_ns for reader in readers)
    shown = {item.gadget.name: item for run in runs for item in run.gadgets if item.is_traced}
    if not shown:
        commands = dict.fromkeys(" ".join(item.gadget.command) for run in runs for item in run.gadgets)
        raise UsageError(
            f"{files[0]}: ci judge needs a recording of trace, and this one is of {', '.join(commands)}",
            "kubectl gadget replay FILE",
        )
    subject = subject_of(runs)
    others = {item.gadget.name: item for run in runs for item in run.gadgets if item.gadget.kind in ("snapshot", "top")}
    return RecordedJob(
        tuple(GadgetRun(item.gadget, dict(item.parameters)) for item in shown.values()),
        subject,
        tuple(dict.fromkeys(text for run in runs for text in _unseen(run, subject.of_command, shown, of_rules or {}))),
        began_ns,
        tuple(GadgetRun(item.gadget, dict(item.parameters)) for item in others.values()),
    )


def _unseen(
    run: RecordedRun,
    of_command: bool,
    shown: Mapping[str, RecordedGadget],
    of_rules: Mapping[str, Mapping[str, object]],
) -> Iterator[str]:
    if run.filter is not None:
        yield f"only rows with --filter {run.filter!r} were recorded"
    for name in sorted(shown.keys() - {item.gadget.name for item in run.gadgets}):
        yield f"one of the recordings has no events of {' '.join(shown[name].gadget.command)}"
    for item in run.gadgets:
        usual = {**PARAMETERS, **SYSCALLS, **of_rules}.get(item.gadget.name, {})
        given = {name for name, value in item.parameters.items() if name not in usual or usual[name] != value}
        if given := given - (OF_COMMAND if of_command else set()):
            flags = ", ".join(f"--{name}" for name in sorted(given))
            yield f"{' '.join(item.gadget.command)} was recorded with {flags}"


def require(job: RecordedJob, assertions: Sequence[Assertion]) -> None:
    """Raises UsageError for an assertion about what was not recorded."""
    known = {run.gadget.name for run in job.gadgets}
    kinds = {kind for run in job.gadgets for kind in KINDS.get(run.gadget.event, ())}
    for each in assertions:
        if each.gadget is not None and each.gadget.name not in known:
            what = f"events of {' '.join(each.gadget.command)}"
            remedy = f"kubectl gadget ci run --trace {each.gadget.command[-1]}, for the next recording"
        elif each.kind is not None and each.kind not in kinds:
            what, remedy = f"facts of the kind {each.kind}", "kubectl gadget ci run --facts, for the next recording"
        else:
            continue
        raise UsageError(f"{each.source}: the recording has no {what}", remedy)


def judge(options: RunOptions, order: CheckOrder, job: RecordedJob, stderr: TextIO) -> RunReport:
    """Return the report on the recordings of `options`, which `job` describes. Raises GadgetError."""
    assert options.replay is not None
    marks = Marks()
    search = None if order.diagnosis is None else search_of(order.diagnosis, options, Progress(stderr, quiet=True))
    checks = RunChecks(order, [run.gadget.event for run in options.gadgets], marks, lambda: job.began_ns, search)
    followers = [checks.behavior.seen.follower(MISSING)] if checks.behavior is not None else []
    asked = replace(
        options,
        make_sink=lambda gadgets, *_: checks.sink(gadgets),
        followers=(*options.followers, *followers),
    )
    said = io.StringIO()
    with replayed(asked, io.StringIO(), said, lambda mark: marks.add(mark.name, mark.wall_ns)) as run:
        ends = [_job_of(end, reader) for end, reader in zip(run.ends, run.readers, strict=True)]
        facts_need_names = order.behavior is not None and order.behavior.subject.needs_names
        named_only = facts_need_names or not all(end.has_unnamed for end in ends)
        covered = run.covered()
        missing = [] if search is None else [*search.take_replayed(run), *search.not_recorded(options.gadgets)]
        incomplete = (
            *(text for end in ends for text in end.incomplete),
            *uncounted(covered, job.began_ns),
            *run.without_coverage(),
            *job.unseen,
            *run.damages(),
            *missing,
        )
        where = "; ".join(f"{end.where}, from {reader.path}" for end, reader in zip(ends, run.readers, strict=True))
        report = checks.report(
            TracedRun(
                where,
                min(end.began_ns for end in ends),
                sum(end.elapsed_ns for end in ends) / 1e9,
                covered,
                run.lost(named_only),
                run.pipeline.watched(),
                incomplete,
                tuple(item.gadget.event for item in options.gadgets),
            )
        )
    if run.code > 128:
        raise KeyboardInterrupt
    stderr.writelines(f"{line}\n" for line in said.getvalue().splitlines() if line not in report.incomplete)
    return report


def _job_of(end: RecordedEnd, reader: RecordingReader) -> JobEnd:
    """Return how a job ended, also of a run that was no CI run."""
    where = RecordedRun.from_meta(reader.meta, str(reader.path)).selection
    return end.job or JobEnd(where=where, began_ns=end.began_ns, elapsed_ns=int(end.seconds * 1e9))
