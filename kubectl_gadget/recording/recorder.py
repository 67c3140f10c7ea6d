"""Records what a run's pipeline works on: each step, with the label selector's answers about pods during the step.

It stands between the frames and the pipeline. A step is written after the pipeline is done with it, since
only then it is known which pods were looked up; within a step an answer does not change.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kubectl_gadget import __version__
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.recorded_frames import to_frame
from kubectl_gadget.recording.recorded_objects import ObjectsRecorder
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.recording.selected_parts import MetObjects, SelectedFrames, of_processes, selects_all
from kubectl_gadget.recording.writer import RecordingWriter, Ring, Rotation
from kubectl_gadget.run.backlog import FrameSource, Intake, Selected
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.node import NodeState
from kubectl_gadget.run.run_options import RunOptions, RunRecorder
from kubectl_gadget.wire.agent_messages import Stats
from kubectl_gadget.wire.client_messages import FilterSpec, PodNames
from kubectl_gadget.wire.frames import FrameType

Wants = Callable[[str, str], bool | None]


def meta_of(options: RunOptions) -> dict[str, object]:
    """Returns the description of the run for the file (docs/recording.md)."""
    commands = [run.gadget.command for run in options.gadgets]
    return {
        "version": __version__,
        "began_ns": time.time_ns(),
        "command": [*(options.command or (*commands[0][:-1], "+".join(command[-1] for command in commands)))],
        "typed": [*options.typed] or None,
        "gadgets": [
            {"name": run.gadget.name, "parameters": run.parameters, "description": run.gadget.to_json()}
            for run in options.gadgets
        ],
        "policies": next((run.policies.origin for run in options.gadgets if run.policies), None),
        "interval": options.arrangement.interval,
        "filter": options.filter,
        "selection": options.selection.described(options.local),
        "by_labels": bool(options.selection.selector or options.selection.workloads)
        or any("*" in name for name in options.selection.pods),
        "run": uuid.uuid4().hex,
        "local": options.local,
        "host": options.selection.host,
        "objects": not options.local,
    }


@dataclass
class Trigger:
    """Passes the reason on to the recording, if there is one. May be called from any thread."""

    listener: Callable[[str], object] = lambda why: None

    def __call__(self, why: str) -> None:
        self.listener(why)


@dataclass(frozen=True)
class RecordingOptions:
    """The recording that a run writes."""

    path: PathOrUrl
    rotation: Rotation | None = None
    ring: Ring | None = None
    """kept in memory until something happens; None: written as they come"""
    trigger: Trigger | None = None
    """what makes the ring be written"""
    is_all: bool = False
    """the run shows nothing, so it has failed if the recording has"""
    is_kept: bool = True
    """False: another part of the run reads the file at the end, and the user need not know of it"""


class Recorder(RunRecorder):
    """The recording of one run."""

    writer: RecordingWriter
    _source: FrameSource

    def __init__(self, recording: RecordingOptions, options: RunOptions) -> None:
        self._recording = recording
        self.has_ring = recording.ring is not None
        self.has_failed = False
        self.problem = ""
        self._filters: dict[str, FilterSpec] = {}
        self._selector: Wants = lambda *_: None
        ends = BadEnds(self._is_selected, self.keep) if recording.ring else None
        self._objects = None if options.local else ObjectsRecorder(options.followers, ends.take if ends else None)
        self.options = options
        if self._objects is not None:
            self.options = replace(options, followers=self._objects.followers())
        self._answers: dict[str, bool | None] = {}
        self._known: dict[str, bool | None] = {}
        self._written: dict[str, bool | None] = {}
        """answers in the file"""
        self._pending: Intake | None = None
        self._is_over = False
        self._stop: Callable[[], object] = lambda: None
        self._taken_ns = 0
        self._changes: Sequence[Mapping[str, object]] = ()
        self._selected: SelectedFrames | None = None
        """what is left of frames and answers; None: all of it, as are objects"""
        self._met = MetObjects(self._is_selected)
        if not selects_all(options):
            gadgets = [run.gadget for run in options.gadgets]
            self._selected = SelectedFrames(gadgets, self._asked_selector, of_processes(options))

    def create(self, failed: Callable[[str], object]) -> None:
        chosen = self._recording

        def broke(why: str) -> None:
            failed(why)
            self._end()

        def wrote(path: PathOrUrl, why: str) -> None:
            failed(f"wrote {path}: {why}")
            if chosen.ring is not None and self.writer.files >= chosen.ring.files:
                failed(f"{self.writer.files} of {chosen.ring.files} files are written (--files), so the run ends")
                self._end()

        self.writer = RecordingWriter(
            chosen.path,
            meta_of(self.options),
            broke,
            chosen.rotation,
            chosen.ring,
            wrote,
            "The run ends" if chosen.is_all else "The run continues",
            failed,
        )
        if chosen.trigger is not None:
            chosen.trigger.listener = self.keep

    def stop_with(self, stop: Callable[[], object]) -> None:
        self._stop = stop
        if self._is_over:
            stop()

    def _end(self) -> None:
        if self._recording.is_all:
            self._is_over = True
            self._stop()

    def keep(self, why: str) -> None:
        self.writer.keep(why)

    def _is_selected(self, pod: Mapping[str, Any]) -> bool:
        """True if the run is known to trace this pod."""
        metadata, spec = pod["metadata"], self._filters.get((pod.get("spec") or {}).get("nodeName") or "")
        if spec is None:
            return False
        name = f"{metadata['namespace']}/{metadata['name']}"
        return (
            (spec.namespaces is None or metadata["namespace"] in spec.namespaces)
            and (spec.pods is None or metadata["name"] in PodNames(spec.pods))
            and not {name, metadata["uid"]} & {*spec.exclude_pods}
            and self._selector(metadata["uid"], name) is not False
        )

    def frames(self, source: FrameSource) -> FrameSource:
        """Become a source of the same steps; each is recorded when the pipeline takes the next one."""
        self._source = source
        return self

    def take(self, due_ns: int | None) -> Intake | None:
        """See FrameSource."""
        self._end_step()
        step = self._source.take(due_ns)
        if step is not None:
            self._begin_step(step)
        return step

    def drain(self) -> None:
        """See FrameSource. Frames after the pipeline's end are part of no row, and are not recorded."""
        self._end_step()
        self._source.drain()

    def wants(self, wants: Wants) -> Wants:
        """Return a function with the same answers, which keeps each for the step in which it was given."""
        self._selector = wants

        def asked(pod_uid: str, pod_name: str) -> bool | None:
            key = f"{pod_uid}\n{pod_name}"
            if key not in self._answers:
                self._answers[key] = wants(pod_uid, pod_name)
            return self._answers[key]

        return asked

    def _begin_step(self, step: Intake) -> None:
        """The pipeline starts to work on this step."""
        self._pending, self._taken_ns = step, time.time_ns()
        self._filters.update(
            {item.node: item.content.filter for item in step.items if isinstance(item.content, Selected)}
        )
        self._answers.clear()
        self._changes = self._objects.begin_step() if self._objects else ()

    def _end_step(self) -> None:
        """The pipeline is done with the step."""
        if self._pending is None:
            return
        step, self._pending = self._pending, None
        answers = {key: value for key, value in self._answers.items() if self._known.get(key, ...) != value}
        self._known |= answers
        if self._selected is None:
            frames = [RecordedFrame(item.node, *to_frame(item.content)) for item in step.items]
            self.writer.step(step.now_ns, self._taken_ns, frames, answers, self._changes)
            return
        frames = self._selected.frames(step.items, step.now_ns, answers)
        kept = self._selected.answers(answers)
        kept = {key: value for key, value in kept.items() if self._written.get(key, ...) != value}
        self._written |= kept
        events = [frame.payload for frame in frames if frame.type == FrameType.EVENTS]
        has_new_filter = any(isinstance(item.content, Selected) for item in step.items)
        changes = self._met.changes(self._changes, events, has_new_filter) if self._objects else ()
        self.writer.step(step.now_ns, self._taken_ns, frames, kept, changes)

    def _asked_selector(self, pod_uid: str, pod_name: str) -> bool | None:
        return self._selector(pod_uid, pod_name)

    def close(self, states: Mapping[str, NodeState], coverage: Coverage) -> str:
        nodes = {
            name: {
                "stats": [self._stats(name, stats).to_json() for stats in state.connections],
                "gaps": state.gaps,
                "gap_seconds": state.gap_seconds,
                "error": None if state.error is None else str(state.error),
            }
            for name, state in states.items()
        }
        ending = self.options.ending(coverage) if self.options.ending else {}
        whole = self.writer.close({"seconds": coverage.seconds, "nodes": nodes, **ending}, coverage.to_json())
        self.has_failed = self._recording.is_all and not whole
        if self._recording.ring is not None:
            return f"files written: {self.writer.files}{f' ({self._pattern})' if self.writer.files else ''}"
        if whole and not self._recording.is_kept:
            return ""
        if whole and self._recording.rotation is not None:
            return f"recorded in {self._pattern}; kubectl gadget replay {self._pattern} shows it again"
        if whole:
            return f"recorded in {self.writer.path}; kubectl gadget replay {self.writer.path} shows it again"
        self.problem = f"the recording {self.writer.path} is incomplete"
        if self.writer.dropped:
            what = f"{self.writer.dropped:,} bytes of events are not in it: the disk or object store was too slow"
            self.problem = f"recorded in {self.writer.path}, with gaps: {what}"
        return self.problem

    def _stats(self, node: str, stats: Stats) -> Stats:
        return stats if self._selected is None else self._selected.stats(node, stats)

    @property
    def _pattern(self) -> str:
        path = self.writer.path
        return str(path.with_name(f"{path.stem}-*{path.suffix or '.kgr'}"))


# Containers that ended badly, from what the API server says of pods: for a recording that is kept when one does.
# The first list has the bad ends of days ago, so only ends that are new while the run watches count.


class BadEnds:
    """Calls `ended` with a reason for each new bad end in a pod that `is_wanted` (its object)."""

    def __init__(self, is_wanted: Callable[[Object], bool], ended: Callable[[str], object]) -> None:
        self._is_wanted = is_wanted
        self._ended = ended
        self._known: dict[str, set[str]] = {}
        """ends by the pod's uid, in the form of _ends"""
        self._listed = False

    def take(self, pods: list[Object], gone: list[str]) -> None:
        """Takes pods that are new or have changed, and the uids of pods that are gone."""
        for pod in pods:
            uid = pod["metadata"]["uid"]
            ends = dict(_ends(pod))
            # A pod that is new is one that began after the run; its ends are as new.
            fresh = ends.keys() - self._known.get(uid, set()) if self._listed else set()
            self._known[uid] = set(ends)
            if fresh and self._is_wanted(pod):
                self._ended(ends[min(fresh)])
        for uid in gone:
            self._known.pop(uid, None)
        self._listed = True


def _ends(pod: Object) -> Iterator[tuple[str, str]]:
    """Yields the bad ends in the status of a pod: a key that differs for each end, and what happened."""
    metadata, found = pod["metadata"], pod.get("status") or {}
    for status in (*(found.get("initContainerStatuses") or ()), *(found.get("containerStatuses") or ())):
        for state in (status.get("state"), status.get("lastState")):
            end = (state or {}).get("terminated")
            if end and end.get("exitCode"):
                reason = end.get("reason") or "Error"
                name = f"{metadata['namespace']}/{metadata['name']}/{status['name']}"
                yield (
                    f"{status['name']} {end.get('containerID') or end.get('finishedAt')}",
                    f"{name} ended with exit code {end['exitCode']} ({reason})",
                )
