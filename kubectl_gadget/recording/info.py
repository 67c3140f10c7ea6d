"""Describes a recording without showing its rows: when, where, which gadgets, how much, and what is missing.

It reads the whole file, one segment at a time, because damage is found in no other way.
"""

from collections import Counter
from dataclasses import dataclass, field

from kubectl_gadget.errors import FrameError, GadgetError
from kubectl_gadget.recording.layout import STEP_MARK
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_frames import from_frame
from kubectl_gadget.recording.recorded_run import RecordedEnd, RecordedRun, recorded_end
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.run.backlog import Events, StepMark
from kubectl_gadget.run.coverage import Gap, doubts, texts
from kubectl_gadget.wire.agent_messages import ContainerChanges
from kubectl_gadget.wire.frames import Frame, split_events
from kubectl_gadget.wire.policy_events import rfc3339

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
    """those of a CI job, in their order"""
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
