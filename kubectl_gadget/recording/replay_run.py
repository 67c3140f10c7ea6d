"""A run whose frames come from recordings: with the same preparation, pipeline and summary as a live run.

Nothing here may access a cluster or this machine's kernel; what the recordings do not hold is unknown.
"""

import asyncio
import math
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from operator import itemgetter
from queue import SimpleQueue
from typing import TextIO

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import FrameError, GadgetError, UsageError
from kubectl_gadget.output.terminal import require_writable
from kubectl_gadget.recording.layout import STEP_MARK
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import NoSegmentError, RecordingReader
from kubectl_gadget.recording.recorded_frames import RecordedFrames, Span, from_frame
from kubectl_gadget.recording.recorded_objects import ReplayedObjects
from kubectl_gadget.recording.recorded_run import RecordedEnd, RecordedGadget, RecordedRun, applied, recorded_end
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.containers import ContainerFilter
from kubectl_gadget.run import coverage, summary
from kubectl_gadget.run.backlog import Events, StepMark
from kubectl_gadget.run.coverage import Cause, Coverage, Gap, MissingSpan, NodeCoverage, doubts, joined, texts
from kubectl_gadget.run.node import NodeState
from kubectl_gadget.run.pipeline import Pipeline, PipelineEvents
from kubectl_gadget.run.preparation import prepare
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import local_filter
from kubectl_gadget.run.run_options import RunOptions
from kubectl_gadget.run.services import Service, Surroundings, heeded, how_to_end
from kubectl_gadget.wire.agent_messages import ContainerChanges
from kubectl_gadget.wire.frames import Frame, split_events
from kubectl_gadget.wire.policy_events import rfc3339
from kubectl_gadget.wording import did_you_mean

_MOST_GAPS = 1_000
_MOST_MARKS = 10_000
"""of steps in a recording that are read"""


@dataclass
class Replayed:
    """The replayed recordings, after their last row."""

    frames: RecordedFrames
    readers: Sequence[RecordingReader]
    pipeline: Pipeline
    code: int = 0
    """the exit code; known once the summary has been written"""

    def lost(self, with_unnamed: bool = True) -> int:
        """Return the number of missing events; events of cgroups without a name count only `with_unnamed`."""
        found = self.pipeline.attribution
        return summary.missing(self.frames.states, found.unattributed) - (0 if with_unnamed else found.unnamed)

    @cached_property
    def ends(self) -> Sequence[RecordedEnd]:
        """Return when each recorded run traced, and whom."""
        return [recorded_end(reader) for reader in self.readers]

    def covered(self) -> Coverage:
        """Return who was traced, from when, to when: as the runs recorded it. Of a recording without that record, it is
        what its frames show, and `without_coverage` says so."""
        runs = [end.coverage or self._shown(end) for end in self.ends]
        found, chosen = joined(runs), self.frames.nodes
        nodes = tuple(node for node in found.nodes if not chosen or node.name in chosen)
        return found.replace(nodes=nodes, unattributed=self.pipeline.attribution.unattributed)

    def without_coverage(self) -> list[str]:
        """Return which recordings do not say who was traced when, and why."""
        return [
            f"{reader.path}: it does not say who was traced when: {end.why_none}"
            for reader, end in zip(self.readers, self.ends, strict=True)
            if end.coverage is None and reader.end is not None  # else it is among the damages
        ]

    def _shown(self, end: RecordedEnd) -> Coverage:
        nodes = (
            NodeCoverage(
                name=name,
                attached_ns=end.began_ns,
                gaps=_gaps(state),
                cause="" if state.error is None else Cause.FAILED,
                why="" if state.error is None else str(state.error),
                lost={cause: number for cause, number in summary.lost(state).items() if number},
            )
            for name, state in self.frames.states.items()
        )
        ended_ns = end.began_ns + round(end.seconds * 1e9)
        return Coverage(complete_ns=end.began_ns, ended_ns=ended_ns, nodes=tuple(nodes))

    def damages(self) -> list[str]:
        """Return what could not be read, one line each."""
        unreadable = (f"{count} frames cannot be read: {why}" for why, count in self.frames.unreadable.items())
        return [*(text for reader in self.readers for text in _damages(reader)), *unreadable]


def replay(options: RunOptions, stdout: TextIO, stderr: TextIO) -> int:
    """Shows recordings and returns the exit code. Raises GadgetError."""
    with replayed(options, stdout, stderr) as run:
        pass
    return run.code


@contextmanager
def replayed(
    options: RunOptions, stdout: TextIO, stderr: TextIO, marked: Callable[[StepMark], object] | None = None
) -> Iterator[Replayed]:
    """Shows recordings. The block runs after the last row, while the files are open; the summary is written after it.
    `marked` is called at each step of a CI job. Raises GadgetError."""
    assert options.replay is not None
    require_writable(stdout)
    progress = Progress(stderr, options.quiet, options.verbose)
    with ExitStack() as stack:
        readers = open_recordings(stack, options.replay.files)
        runs = [RecordedRun.from_meta(reader.meta, str(reader.path)) for reader in readers]
        _check_alike(runs, [reader.path for reader in readers])
        shown, notes = applied(options, replace(runs[0], gadgets=gadgets_of(runs)))
        if options.replay.step is not None:
            within = step_filter(readers, options.replay.step)
            shown = replace(shown, filter=within if shown.filter is None else f"({within}) && ({shown.filter})")
        for note in notes:
            progress.warn(note)
        frames = RecordedFrames(
            [(reader, run.places(shown.gadgets)) for reader, run in zip(readers, runs, strict=True)],
            _span(options, readers),
            frozenset(options.selection.nodes),
            unknown=None if any(run.by_labels for run in runs) else True,
            objects=ReplayedObjects(shown.followers, sum(reader.total_bytes for reader in readers)),
        )
        preparation = prepare(shown, stdout)
        pipeline = preparation.pipeline(frames, frames.wants, _events(frames, progress, marked), _narrowed(options))
        with _stopping(frames) as (signals, interrupted):
            if options.services:
                asyncio.run(_serve(pipeline, options.services, progress, interrupted))
                signals.clear()  # the way to end it
            else:
                pipeline.run()
        frames.take_ends()
        run = Replayed(frames, readers, pipeline)
        yield run
        run.code = _conclude(options, run, progress, signals)


async def _serve(
    pipeline: Pipeline, services: Sequence[Service], progress: Progress, interrupted: SimpleQueue[None]
) -> None:
    """Shows the recordings while services run, which then go on until a signal comes. Raises GadgetError."""
    failures: list[GadgetError] = []

    def failed(error: GadgetError) -> None:
        failures.append(error)
        interrupted.put(None)

    async with Tasks(failed) as tasks, AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service(Surroundings(tasks, None)))
        await asyncio.to_thread(pipeline.run)
        progress.say(f"replay finished; {how_to_end('exit')}")
        await asyncio.to_thread(interrupted.get)
    if failures:
        raise failures[0]


def open_recordings(stack: ExitStack, files: Sequence[PathOrUrl]) -> list[RecordingReader]:
    """Opens recordings; files of one run (`record --rotate-size`) are one of them. Empty ones are left out, unless all
    are. Raises UsageError."""
    parts: dict[str, list[tuple[int, RecordingReader]]] = {}
    empty: NoSegmentError | None = None
    for path in dict.fromkeys(files):
        try:
            reader = stack.enter_context(RecordingReader(path))
        except NoSegmentError as error:
            empty = empty or error
            continue
        first = next((header.number for header in reader.segments()), 0)
        parts.setdefault(str(reader.meta.get("run") or path), []).append((first, reader))
    if empty is not None and not parts:
        raise empty
    ordered = [[reader for _, reader in sorted(found, key=itemgetter(0))] for found in parts.values()]
    for first_part, *others in ordered:
        for other in others:
            first_part.extend(other)
    return [found[0] for found in ordered]


def _check_alike(runs: Sequence[RecordedRun], files: Sequence[PathOrUrl]) -> None:
    """Checks that several recordings can be shown as one: records of one gadget must have the same layout."""
    first: dict[str, tuple[RecordedGadget, PathOrUrl]] = {}
    for run, path in zip(runs, files, strict=True):
        for item in run.gadgets:
            known, where = first.setdefault(item.gadget.name, (item, path))
            if known.gadget.record != item.gadget.record or known.parameters != item.parameters:
                command = " ".join(item.gadget.command)
                raise UsageError(
                    f"{path}: {command} was recorded with other settings than in {where}",
                    "replay one file at a time",
                )


def gadgets_of(runs: Sequence[RecordedRun]) -> tuple[RecordedGadget, ...]:
    """Return the gadgets of runs that are shown as one."""
    found = {item.gadget.name: item for run in reversed(runs) for item in run.gadgets}
    order = dict.fromkeys(item.gadget.name for run in runs for item in run.gadgets)
    return tuple(found[name] for name in order)


def _span(options: RunOptions, readers: Sequence[RecordingReader]) -> Span:
    """Converts times relative to the end of the recordings to absolute times."""
    asked = options.replay
    assert asked is not None
    since, until = asked.since, asked.until
    most_ns = None if options.timeout is None else round(options.timeout * 1e9)
    if since is None and until is None:
        return Span(speed=asked.speed, most_ns=most_ns)
    _, last = _bounds(readers)
    since_ns = None if since is None else since.absolute_ns if since.absolute_ns is not None else last - since.ago_ns
    until_ns = None if until is None else until.absolute_ns if until.absolute_ns is not None else last - until.ago_ns
    if since_ns is not None and until_ns is not None and since_ns > until_ns:
        raise UsageError("--since is after --until")
    if since_ns is not None and since_ns > last:
        raise UsageError("--since is after the end of the recording")
    return Span(since_ns, until_ns, asked.speed, most_ns)


def _bounds(readers: Sequence[RecordingReader]) -> tuple[int, int]:
    first, last = math.inf, -math.inf
    for reader in readers:
        for header in reader.segments():
            first, last = min(first, header.first_ns), max(last, header.last_ns)
    return int(first), int(last)


def _narrowed(options: RunOptions) -> ContainerFilter | None:
    """Return the selection of the replay, on top of the run's; None: no selection."""
    wanted = local_filter(options.selection)
    everything = (wanted.namespaces, wanted.pods, wanted.containers) == (None, None, None)
    return None if everything else ContainerFilter(wanted)


def _events(frames: RecordedFrames, progress: Progress, marked: Callable[[StepMark], object] | None) -> PipelineEvents:
    def broke(node: str, error: GadgetError) -> None:
        progress.note(node, f"a frame of the recording cannot be read: {error}")

    def step(mark: StepMark) -> None:
        progress.say(f"step: {mark.name} (from {rfc3339(mark.wall_ns)})")

    return PipelineEvents(stop=lambda _: frames.stop(), node_broke=broke, warn=progress.warn, step=marked or step)


@contextmanager
def _stopping(frames: RecordedFrames) -> Iterator[tuple[list[int], SimpleQueue[None]]]:
    """Inside the block, signals end the replay in order; the list then starts with the first one's number."""
    signals: list[int] = []
    interrupted = SimpleQueue[None]()

    def caught(number: int, _: object) -> None:
        signals.append(number)
        interrupted.put(None)
        frames.stop()

    before = {number: signal.signal(number, caught) for number in heeded("SIGINT", "SIGTERM", "SIGHUP")}
    try:
        yield signals, interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _conclude(options: RunOptions, run: Replayed, progress: Progress, signals: Sequence[int]) -> int:
    frames, readers, pipeline = run.frames, run.readers, run.pipeline
    noun = summary.noun(options.gadgets[0].gadget)
    covered = run.covered()
    for line in summary.lines(
        covered, frames.states, pipeline.ending.shown, pipeline.skew_ns, noun, pipeline.collector.late
    ):
        progress.say(line)
    summary.say_exported(pipeline.export, progress)
    whole = True
    for reader in readers:
        for text in _damages(reader):
            whole = False
            progress.warn(text)
    for reason, count in frames.unreadable.most_common(3):
        whole = False
        progress.warn(f"{count} frames of the recording cannot be read: {reason}")
    for note in options.transform.notes() if options.transform else ():
        progress.warn(note)
    damaged = () if whole else ("the recording is damaged",)
    reasons = (*coverage.texts(coverage.doubts(covered)), *damaged, *run.without_coverage())
    reason, code = pipeline.ending.outcome(reasons)
    if reason:
        progress.warn(reason)
    if code == coverage.EXPECTATION_FAILED:
        return code
    if signals:
        return 128 + signals[0]
    if code:
        return code
    reasons = (*reasons, *(pipeline.export.losses() if pipeline.export else ()))
    if options.strict and reasons:
        progress.warn(f"--strict: the recording is not complete: {coverage.some(reasons)}")
        return 1
    return 0


def _gaps(state: NodeState) -> tuple[MissingSpan, ...]:
    """Return spans with the same number and sum as the run's, up to a number that a run can have."""
    first = (MissingSpan(since_ns=0, until_ns=round(state.gap_seconds * 1e9)),) if state.gaps else ()
    return first + (MissingSpan(since_ns=0, until_ns=0),) * min(state.gaps - 1, _MOST_GAPS)


def _damages(reader: RecordingReader) -> Iterator[str]:
    """Yields what is missing in a recording that was read, one line each."""
    if reader.damage.segments:
        reasons = "; ".join(f"{reason} ({count}x)" for reason, count in reader.damage.reasons.most_common(3))
        yield f"{reader.path}: damaged segments left out: {reader.damage.segments}: {reasons}"
    if reader.damage.missing:
        yield f"{reader.path}: {reader.damage.missing} segments are missing: none of the files has them"
    if reader.damage.is_cut:
        yield f"{reader.path}: the file ends within a segment; its client may have been killed"
    elif reader.was_read and reader.end is None:
        yield f"{reader.path}: its end is missing; its client may have been killed, or the disk was full"
    if reader.dropped:
        why = "the disk or object store was too slow for them"
        yield f"{reader.path}: {reader.dropped:,} bytes of events are missing: {why}"


def step_filter(readers: Sequence[RecordingReader], name: str) -> str:
    """A filter (CEL) for the rows of all steps of a CI job with this name: by their times, since rows of a step may
    come after the mark of the next one. Raises UsageError if there is none."""
    spans, known = list[str](), dict[str, None]()
    for reader in readers:
        marks = sorted(dict.fromkeys(islice(_marks(reader), _MOST_MARKS)), key=lambda mark: mark.wall_ns)
        known |= dict.fromkeys(mark.name for mark in marks)
        for mark, following in zip(marks, [*marks, None][1:], strict=True):
            if mark.name == name:
                ends = f' && timestamp < "{rfc3339(following.wall_ns)}"' if following else ""
                spans.append(f'timestamp >= "{rfc3339(mark.wall_ns)}"{ends}')
    if not spans:
        names = f"its steps: {', '.join(known)}" if known else "kubectl gadget ci step, while a run is recorded"
        raise UsageError(f"--step: there is no step {name!r}{did_you_mean(name, list(known))}", names)
    return " || ".join(f"({span})" for span in spans)


def _marks(reader: RecordingReader) -> Iterator[StepMark]:
    for step in reader.steps():
        for frame in step.frames:
            if frame.type == STEP_MARK:
                try:
                    mark = from_frame(Frame(frame.type, frame.payload))
                except FrameError:
                    continue  # the replay itself reports it
                if isinstance(mark, StepMark):
                    yield mark


# Describes a recording without showing its rows: when, where, which gadgets, how much, and what is missing.
#
# It reads the whole file, one segment at a time, because damage is found in no other way.


_MOST_PODS, _MOST_STEPS = 500_000, 10_000


@dataclass
class RecordingInfo:
    """The description of one file."""

    run: RecordedRun
    end: RecordedEnd
    bytes: int
    segments: int = 0
    first_ns: int = 0
    """wall time of its first step"""
    last_ns: int = 0
    events: Counter[str] = field(default_factory=Counter)
    """records, by gadget"""
    nodes: Counter[str] = field(default_factory=Counter)
    """records, by node"""
    pods: set[tuple[str, str]] = field(default_factory=set)
    """namespace and name"""
    steps: dict[StepMark, None] = field(default_factory=dict)
    """the steps of a CI job, in their order"""
    gap_seconds: float = 0.0
    unreadable: int = 0
    damaged_segments: int = 0
    dropped_bytes: int = 0
    is_cut: bool = False
    has_end: bool = False

    @property
    def is_whole(self) -> bool:
        """True if it ends as its run did, and nothing in it is damaged."""
        return self.has_end and not (self.damaged_segments or self.dropped_bytes or self.is_cut or self.unreadable)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Return what the run may not have seen, as clauses."""
        if self.end.coverage is None:
            return (f"it is unknown who was traced when: {self.end.why_none}",)
        return texts(doubts(self.end.coverage, self.end.began_ns))

    def to_json(self) -> dict[str, object]:
        """Returns it for JSON output."""
        return {
            "command": list(self.run.command),
            "version": self.run.version,
            "selection": self.run.selection,
            "filter": self.run.filter,
            "began_ns": self.run.began_ns,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "bytes": self.bytes,
            "segments": self.segments,
            "gadgets": [
                {
                    "name": item.gadget.name,
                    "parameters": dict(item.parameters),
                    "events": self.events[item.gadget.name],
                }
                for item in self.run.gadgets
            ],
            "nodes": dict(self.nodes),
            "pods": [f"{namespace}/{name}" for namespace, name in sorted(self.pods)],
            "steps": [{"name": mark.name, "time": rfc3339(mark.wall_ns)} for mark in self.steps],
            "traced_from_ns": self.end.began_ns,
            "traced_seconds": round(self.end.seconds, 3),
            "coverage": None if self.end.coverage is None else self.end.coverage.to_json(),
            "doubts": list(self.doubts),
            "gap_seconds": round(self.gap_seconds, 3),
            "damaged_segments": self.damaged_segments,
            "unreadable_frames": self.unreadable,
            "dropped_bytes": self.dropped_bytes,
            "cut": self.is_cut,
            "whole": self.is_whole,
        }


def read_info(path: PathOrUrl) -> RecordingInfo:
    """Reads the file. Raises UsageError when it is not a recording."""
    with RecordingReader(path) as reader:
        run = RecordedRun.from_meta(reader.meta, str(path))
        info = RecordingInfo(run, recorded_end(reader), reader.total_bytes)
        info.segments = sum(1 for _ in reader.segments())
        for step in reader.steps():
            info.first_ns, info.last_ns = info.first_ns or step.wall_ns, step.wall_ns
            for frame in step.frames:
                if frame.type != STEP_MARK:
                    info.nodes[frame.node] += 0
                try:
                    _add(info, frame.node, Frame(frame.type, frame.payload))
                except GadgetError:
                    info.unreadable += 1
        info.damaged_segments, info.is_cut = reader.damage.segments, reader.damage.is_cut
        info.dropped_bytes, info.has_end = reader.dropped, reader.end is not None
        return info


def _add(info: RecordingInfo, node: str, frame: Frame) -> None:
    match from_frame(frame):
        case Events(payload):
            head, data = split_events(payload)
            if head.gadget >= len(info.run.gadgets):
                raise FrameError(f"events of a gadget that is not in the recording ({head.gadget})")
            gadget = info.run.gadgets[head.gadget].gadget
            count = len(decode(gadget.as_sent(), node, data))
            info.events[gadget.name] += count
            info.nodes[node] += count
        case ContainerChanges() as changes:
            info.pods |= {(item.namespace, item.pod) for item in changes.containers if item.pod}
            if len(info.pods) > _MOST_PODS:
                info.pods.clear()
                raise FrameError(f"more than {_MOST_PODS:,} pods")
        case StepMark() as mark:
            if len(info.steps) >= _MOST_STEPS and mark not in info.steps:
                raise FrameError(f"more than {_MOST_STEPS:,} steps")
            info.steps[mark] = None
        case Gap() as gap:
            info.gap_seconds += gap.seconds
