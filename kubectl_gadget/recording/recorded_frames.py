"""The frames of a recording: the contents of a backlog, converted and back, and the source of a replay.

What agents send keeps the type of its frame (docs/protocol.md). What the client adds has a negative type, which no
agent can send. A recording may come from anybody, so it is read as carefully as frames from a node.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from kubectl_gadget.errors import FrameError, GadgetError
from kubectl_gadget.output.escape import escape
from kubectl_gadget.recording.layout import DETACHED, GAP, ROUND_TRIP, SELECTED, STEP_MARK, to_json
from kubectl_gadget.recording.reader import RecordedIntake, RecordingReader
from kubectl_gadget.recording.recorded_objects import ReplayedObjects
from kubectl_gadget.run.backlog import Content, Detached, Events, Intake, Item, RoundTrip, Selected, StepMark, memory_of
from kubectl_gadget.run.coverage import Gap
from kubectl_gadget.run.node import NodeState
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats, from_agent
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import Frame, FrameType, split_events
from kubectl_gadget.wire.message import parse

_LARGEST = 1 << 62
_LONGEST_NAME = 512
"""of a step"""
_LONGEST_SECONDS = 1e9
"""of a missing span. Thirty years"""
_TYPES = {
    Hello: FrameType.HELLO,
    Started: FrameType.STARTED,
    ContainerChanges: FrameType.CONTAINERS,
    Stats: FrameType.STATS,
    StackNames: FrameType.STACKS,
}


def to_frame(content: Content) -> Frame:
    """Converts an item to a recording's frame."""
    match content:
        case Events(payload):
            return Frame(FrameType.EVENTS, payload)
        case Detached():
            return Frame(DETACHED, b"{}")
        case Gap():
            return Frame(GAP, to_json({"seconds": content.seconds, "until_ns": content.until_ns}))
        case Selected(selection):
            return Frame(SELECTED, selection.to_bytes())
        case RoundTrip():
            return Frame(ROUND_TRIP, to_json(content._asdict()))
        case StepMark():
            return Frame(STEP_MARK, to_json(content._asdict()))
    return Frame(_TYPES[type(content)], content.to_bytes())


def from_frame(frame: Frame) -> Content | None:
    """Converts a frame back; None for a type that is unknown here. Raises FrameError."""
    if frame.type == FrameType.EVENTS:
        return Events(frame.payload)
    if frame.type in _OWN:
        try:
            return _OWN[frame.type](parse(frame.payload))
        except FrameError as error:
            raise FrameError(f"type {frame.type}: {error}") from None
        except (LookupError, OverflowError, TypeError, ValueError) as error:
            raise FrameError(f"type {frame.type}: {error!r}") from None
    message = from_agent(frame)
    return message if isinstance(message, Hello | Started | ContainerChanges | Stats | StackNames) else None


_OWN: Mapping[int, Callable[[Mapping[str, Any]], Content]] = {
    DETACHED: lambda _: Detached(),
    GAP: lambda value: Gap(_seconds(value["seconds"]), _time(value["until_ns"])),
    SELECTED: lambda value: Selected(FilterSpec.from_json(value)),
    ROUND_TRIP: lambda value: RoundTrip(*(_time(value[name]) for name in RoundTrip._fields)),
    STEP_MARK: lambda value: StepMark(escape(str(value["name"]))[:_LONGEST_NAME], _time(value["wall_ns"])),
}


def number(value: object) -> float | None:
    """Returns a number of a recording's JSON; None when it is not one, or is too large to count with."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        return None
    return float(value)


def _seconds(value: object) -> float:
    """Raises ValueError."""
    found = number(value)
    if found is None or not 0 <= found <= _LONGEST_SECONDS:
        raise ValueError(f"{value!r} is not a number of seconds")
    return found


def _time(value: object) -> int:
    """Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise ValueError(f"{value!r} is not a time")
    return value


# A source of frames: the steps of one or more files, for the gadgets that a replay shows. Note: a gadget's number
# in a frame is its index in the recorded run, which may differ from its index here.


_MOST_COST = 64 << 20
"""Bytes of memory that the frames of a piece of a step take; a run takes at most 4 MiB of frames at a time."""
_MOST_ANSWERS = 1 << 19
_MOST_REASONS = 100
_LEAST_NAMES, _STORED_BY_NAME = 1 << 19, 4
"""Names of containers, cgroups and stacks in all frames of a recording: at least, and the bytes of the file that each
more has. The ID of a container alone has 32."""
_LEAST_NAME_BYTES, _EXPANDED = 64 << 20, 16
"""Bytes of the frames with names: at least, and as many times the size of the file"""
_LONGEST_SLEEP = 0.2
"""In seconds. A signal that comes just before a sleep does not end it."""


@dataclass(frozen=True)
class Span:
    """The part of the recordings to show, in wall time, and the speed."""

    since_ns: int | None = None
    until_ns: int | None = None
    speed: float | None = None
    """1: at the original speed; None: as fast as possible"""
    most_ns: int | None = None
    """how much of it, counted from when the first node has started"""


class RecordedFrames:
    """The steps of all files, ordered by wall time."""

    def __init__(
        self,
        files: Sequence[tuple[RecordingReader, Mapping[int, int]]],
        span: Span,
        nodes: frozenset[str] = frozenset(),
        unknown: bool | None = None,
        objects: ReplayedObjects | None = None,
    ) -> None:
        """`files` pairs each file with a map from its gadgets' numbers to those here. `nodes`: only these, unless it is
        empty. `unknown`: the answer of `wants` for pods that were not looked up during the recording. `objects` get
        what the recording has of the cluster's objects."""
        self.states: dict[str, NodeState] = {}
        self.unreadable: Counter[str] = Counter()
        """frames that docs/recording.md does not allow, by the reason"""
        self._files = files
        self._span = span
        self.nodes = nodes
        self._unknown = unknown
        self._objects = objects or ReplayedObjects(())
        self._hellos: dict[str, bytes] = {}
        """by node that is attached, the digest of its HELLO"""
        self._answers: dict[str, bool | None] = {}
        self._is_stopped = False
        self._steps = self._merged()
        self._rest: Iterator[Item] | None = None
        """what is left of the step"""
        stored = sum(reader.total_bytes for reader, _ in files)
        self._most_names = _LEAST_NAMES + stored // _STORED_BY_NAME
        self._most_name_bytes = _LEAST_NAME_BYTES + stored * _EXPANDED
        self._begun: tuple[int, int] | None = None
        self._started_ns: int | None = None
        self._clock = 0

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """Returns what the run's label selector answered for this pod at this time of the recording."""
        return self._answers.get(f"{pod_uid}\n{pod_name}", self._unknown)

    def stop(self) -> None:
        """Ends the replay after this step. May be called from any thread, and from a signal handler."""
        self._is_stopped = True  # not an Event: its lock may be held by the wait that the signal interrupted

    def take(self, due_ns: int | None) -> Intake | None:
        """See FrameSource. A step is taken as late as in the run; `due_ns` is ignored. A step that no run can have made
        is divided, so that its frames are not decoded all together."""
        if self._rest is None:
            found = None if self._is_stopped else next(self._steps, None)
            if found is None or self._is_over(found[0]):
                return None
            self._begin(*found)
        return Intake(self._piece(), self._clock)

    def _begin(self, step: RecordedIntake, places: Mapping[int, int]) -> None:
        self._keep_pace(step)
        self._answers.update(step.answers)
        if len(self._answers) > _MOST_ANSWERS:
            self._answers.clear()
            self._unreadable(f"answers for more than {_MOST_ANSWERS:,} pods")
        try:
            self._objects.apply(step.objects)
        except (GadgetError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self._unreadable(f"objects of the cluster: {error!r}")
        # With several files, each run has its own clock, and these are unrelated.
        self._clock = step.now_ns if len(self._files) == 1 else max(self._clock, step.wall_ns)
        self._rest = self._items(step, places)

    def _piece(self) -> list[Item]:
        """Return the next items of the step."""
        assert self._rest is not None
        items, cost = list[Item](), 0
        for item in self._rest:
            items.append(item)
            cost += item.size
            if cost > _MOST_COST:
                return items
            if self._is_stopped:
                break
        self._rest = None
        return items

    def _unreadable(self, why: str) -> None:
        if len(self.unreadable) < _MOST_REASONS or why in self.unreadable:
            self.unreadable[why] += 1

    def drain(self) -> None:
        """See FrameSource."""
        self.stop()

    def _merged(self) -> Iterator[tuple[RecordedIntake, Mapping[int, int]]]:
        def of(
            reader: RecordingReader, places: Mapping[int, int]
        ) -> Iterable[tuple[RecordedIntake, Mapping[int, int]]]:
            return ((step, places) for step in reader.steps(self._span.since_ns, self._span.until_ns))

        return iter(heapq.merge(*(of(*file) for file in self._files), key=lambda found: found[0].wall_ns))

    def _is_over(self, step: RecordedIntake) -> bool:
        most, since = self._span.most_ns, self._span.since_ns
        if most is None or (since is not None and step.wall_ns < since):
            return False
        if self._started_ns is None and (
            since is not None or any(frame.type == FrameType.STARTED for frame in step.frames)
        ):
            self._started_ns = step.wall_ns
        return self._started_ns is not None and step.wall_ns > self._started_ns + most

    def _keep_pace(self, step: RecordedIntake) -> None:
        """Waits until as much time has passed as had passed in the run."""
        speed, since = self._span.speed, self._span.since_ns
        if not speed or (since is not None and step.wall_ns < since):
            return
        if self._begun is None:
            self._begun = (step.wall_ns, time.monotonic_ns())
        due = self._begun[1] + (step.wall_ns - self._begun[0]) / speed
        while not self._is_stopped and (seconds := (due - time.monotonic_ns()) / 1e9) > 0:
            time.sleep(min(seconds, _LONGEST_SLEEP))

    def _items(self, step: RecordedIntake, places: Mapping[int, int]) -> Iterator[Item]:
        early = self._span.since_ns is not None and step.wall_ns < self._span.since_ns
        known = {node for node, hello in self._hellos.items() if step.is_state and _has(step, node, hello)}
        for node in self._hellos.keys() - known if step.is_state else ():
            yield Item(node, Detached())
        for recorded in step.frames:
            if recorded.node in known and recorded.type in (FrameType.HELLO, FrameType.STARTED):
                continue
            if self.nodes and recorded.node not in self.nodes and recorded.type != STEP_MARK:
                continue
            if recorded.type == GAP and early:
                continue
            try:
                content = from_frame(Frame(recorded.type, recorded.payload))
                content = None if content is None else _placed(content, places)
                self._announce(content, len(recorded.payload))
            except FrameError as error:
                self._unreadable(str(error))
                continue
            if isinstance(content, StepMark):
                yield Item("", content)
            elif content is not None:
                if isinstance(content, Hello):
                    self._hellos[recorded.node] = _digest(recorded.payload)
                elif isinstance(content, Detached):
                    self._hellos.pop(recorded.node, None)
                self._note(recorded.node, content)
                yield Item(recorded.node, content, memory_of(recorded.type, recorded.payload))

    def _announce(self, content: Content | None, size: int) -> None:
        """Raise FrameError for more names than a recording of this size can have."""
        match content:
            case ContainerChanges(containers=containers, cgroups=cgroups):
                count = len(containers) + len(cgroups)
            case StackNames(frames=frames, stacks=stacks):
                count = len(frames) + len(stacks)
            case _:
                return
        if count > self._most_names or size > self._most_name_bytes:
            raise FrameError("more names than a recording of this size can have")
        self._most_names -= count
        self._most_name_bytes -= size

    def _note(self, node: str, content: Content) -> None:
        """Keeps what the summary reports about the node."""
        state = self.states.setdefault(node, NodeState(node, ever_attached=True))
        match content:
            case Stats():
                state.stats = content
            case Gap():
                state.gaps += 1
                state.gap_seconds += content.seconds
            case Detached() if state.stats is not None:
                state.past_stats.append(state.stats)
                state.stats = None

    def take_ends(self) -> None:
        """After the last step: reads how the runs ended, which is more exact than the last statistics before."""
        for reader, _ in self._files:
            nodes = (reader.end or {}).get("nodes")
            for name, known in nodes.items() if isinstance(nodes, dict) else ():
                if name in self.states and isinstance(known, dict):
                    try:
                        _apply_end(self.states[name], known)
                    except FrameError as error:
                        self._unreadable(str(error))


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=16).digest()


def _has(step: RecordedIntake, node: str, hello: bytes) -> bool:
    """True if this state has the same session of a node."""
    found = (_digest(frame.payload) for frame in step.frames if frame.node == node and frame.type == FrameType.HELLO)
    return next(found, None) == hello


def _apply_end(state: NodeState, known: Mapping[str, object]) -> None:
    """Raises FrameError when the statistics cannot be read."""
    stats, gaps, seconds, error = (known.get(name) for name in ("stats", "gaps", "gap_seconds", "error"))
    if isinstance(stats, list):
        state.past_stats, state.stats = [Stats.from_json(item) for item in stats], None
    if (count := number(gaps)) is not None and (length := number(seconds)) is not None:
        state.gaps, state.gap_seconds = int(count), length
    if isinstance(error, str):
        state.error = GadgetError(error)


def _placed(content: Content, places: Mapping[int, int]) -> Content | None:
    """Returns the content with its gadget's number here; None: the gadget is not shown. Raises FrameError."""
    match content:
        case Events(payload):
            head, data = split_events(payload)
            place = places.get(head.gadget)
            if place is None or place == head.gadget:
                return None if place is None else content
            return Events(head._replace(gadget=place).encode() + data)
        case StackNames():
            place = places.get(content.gadget)
            return None if place is None else content.replace(gadget=place)
    return content
