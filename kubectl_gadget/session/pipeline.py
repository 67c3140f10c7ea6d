"""From frames to rows on the screen: decode, name, filter, merge, print. Runs in a thread of its own.

All nodes' frames come through one backlog, so that a CONTAINERS frame is seen before the events that need it. The trap:
writing may block for as long as the reader of our output likes; that must hold up this thread only.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kubectl_gadget.errors import FrameError, GadgetError, internal_error
from kubectl_gadget.events.batch import Batch, decode
from kubectl_gadget.events.clock import NodeClock
from kubectl_gadget.events.columns.stack_columns import STACK
from kubectl_gadget.events.filters.filter import Filter
from kubectl_gadget.events.identity import Container, ContainerFilter, Identity
from kubectl_gadget.events.merge import TimeMerge
from kubectl_gadget.events.rows import NO_ROWS, Rows
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.events.stacks import NodeStacks
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.session.nodes import state as own_frames
from kubectl_gadget.session.nodes.backlog import Backlog, Item
from kubectl_gadget.session.nodes.coalesce import coalesced
from kubectl_gadget.session.nodes.state import DETACHED
from kubectl_gadget.session.running_time import RunningTime
from kubectl_gadget.views.stage import Stage
from kubectl_gadget.views.tables.aggregation import Block, fill_in_quotients
from kubectl_gadget.views.tables.intervals import Intervals
from kubectl_gadget.views.tables.recordings import Recordings
from kubectl_gadget.wire import LAST, REST, FrameType, reading, split_events

if TYPE_CHECKING:  # takes 10 ms, and only `observe` has one
    from kubectl_gadget.observe.story import Story

_IDLE_SECONDS = 0.25
_DECISION_SECONDS = 3.0
"""How long rows of a new pod wait for the API server's word on its labels. Then they count as unattributed."""

_UNWANTED, _UNJUDGED, _WANTED = range(3)


@dataclass(frozen=True)
class Conditions:
    """What rows must fulfil, all compiled and checked."""

    filter: Filter | None = None
    """of rows as they come"""
    of_sums: Filter | None = None
    """of rows that were added up"""
    fail_on: Filter | None = None
    expect: Filter | None = None
    max_events: int | None = None


@dataclass(frozen=True)
class PipelineEvents:
    """Whom the pipeline tells what. All are called from its thread."""

    stop: Callable[[str], object]
    """enough was seen, or the output is closed"""
    node_broke: Callable[[str, GadgetError], object]
    """what this node sends cannot be read"""
    warn: Callable[[str], object]
    """a line for people"""
    answered: Callable[[str], object] = lambda _node: None
    """all gadgets of this node have given a whole answer: an interval, a snapshot"""


@dataclass
class _Node:
    identity: Identity
    clock: NodeClock = field(default_factory=NodeClock)
    architecture: str = "x86_64"
    name: str = ""
    stages: Sequence[Stage | None] = ()
    stacks: defaultdict[int, NodeStacks] = field(default_factory=lambda: defaultdict(NodeStacks))
    """by gadget"""
    answered: set[int] = field(default_factory=set)
    """gadgets whose answer is whole"""


class Pipeline:
    """`run` ends when the backlog does, or when the output is closed; its results are then in the attributes."""

    def __init__(
        self,
        backlog: Backlog,
        gadgets: Sequence[Gadget],
        conditions: Conditions,
        merge: TimeMerge | Intervals | Recordings,
        sink: Sink,
        events: PipelineEvents,
        wants: Callable[[str, str], bool | None],
        stages: Callable[[], Sequence[Stage | None]] = tuple,
        story: "Story | None" = None,
    ) -> None:
        self.shown: Counter[str] = Counter()
        """rows by node"""
        self.unattributed = 0
        """events of cgroups that no agent could name"""
        self.failed_on = False
        self.expectation_missed = conditions.expect is not None
        self.output_closed = False
        self._backlog = backlog
        self._gadgets = gadgets
        self._sent = [gadget.as_sent() for gadget in gadgets]
        self._make_stages = stages
        self._story = story
        self._conditions = conditions
        self._merge = merge
        self._sink = sink
        self._stop = events.stop
        self._break = events.node_broke
        self._warn = events.warn
        self._answered = events.answered
        self._nodes: dict[str, _Node] = {}
        self._wants = wants
        self._selections: dict[str, ContainerFilter] = {}
        self._undecided: list[tuple[Batch, float]] = []
        self._reported: set[int] = set()
        self._over = False
        self._started = False
        self._now = RunningTime()

    @property
    def skew_ns(self) -> dict[str, int]:
        """How far each node's clock is ahead of ours, where that is certain."""
        skews = {name: node.clock.skew for name, node in self._nodes.items()}
        return {name: skew.ns for name, skew in skews.items() if skew is not None and skew.proven}

    @property
    def late(self) -> int:
        """Rows that came after a younger one had been shown."""
        return self._merge.late if isinstance(self._merge, TimeMerge) else 0

    @property
    def verdict(self) -> str:
        """Why the run's expectation failed, for people."""
        if self.failed_on and self._conditions.fail_on is not None:
            return f"--fail-on: the last row matches {self._conditions.fail_on.text}"
        assert self._conditions.expect is not None
        return f"--expect: no row matched {self._conditions.expect.text}"

    def watched(self) -> list[Container]:
        """The containers that are traced and were there at the end."""
        return [
            container
            for name, node in self._nodes.items()
            for container in node.identity.containers()
            if container.kind == "container"
            and self._selections.get(name, ContainerFilter()).wanted(container)
            and self._wants(container.pod_uid, container.pod_name)
        ]

    def select(self, node: str, selection: Mapping[str, Any]) -> None:
        """From any thread: a node's FILTER (docs/protocol.md), which decides on what its agent let through."""

        def names(key: str) -> frozenset[str] | None:
            value = selection.get(key)
            return None if value is None else frozenset(value)

        self._selections[node] = ContainerFilter(
            namespaces=names("namespaces"),
            pods=names("pods"),
            containers=names("containers"),
            exclude_pods=names("exclude_pods") or frozenset(),
            host=bool(selection.get("host")),
        )

    def run(self) -> None:
        """Works until the backlog ends. Raises GadgetError when the output cannot be written."""
        try:
            self._work()
        except BrokenPipeError:
            self.output_closed = True
        except OSError as error:
            raise GadgetError(f"the output cannot be written: {error.strerror}") from None
        finally:
            self._over = True
            self._stop("output ended")
            while self._backlog.take(1.0) is not None:
                pass

    def _work(self) -> None:
        while (items := self._backlog.take(self._patience())) is not None:
            for item in coalesced(items):
                self._take(item)
            self._decide_late()
            self._emit_all(lambda: self._merge.release(self._now()))
            if not items:
                self._report_filter_errors()
        self._decide_late(at_end=True)
        self._emit_all(self._merge.flush)
        if self._started:
            self._sink.close()

    def _patience(self) -> float:
        due = self._merge.next_release_ns()
        if due is None:
            return _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(0.0, (due - self._now()) / 1e9))

    def _take(self, item: Item) -> None:
        try:
            self._handle(item)
        except FrameError as error:
            self._break(item.node, error)
        except (GadgetError, OSError):
            # Of the output, which is the same for all nodes.
            raise
        except Exception as error:
            # What one node sends ends that node only, also where it meets a fault of ours.
            self._break(item.node, internal_error(error))

    def _handle(self, item: Item) -> None:
        node = self._nodes.setdefault(item.node, _Node(Identity(item.node), name=item.node))
        frame = item.frame
        match frame.type:
            case FrameType.EVENTS:
                self._add(node, frame.payload)
            case FrameType.CONTAINERS:
                with reading(frame):
                    node.identity.apply(frame.json(), time.monotonic())
            case FrameType.STACKS:
                with reading(frame):
                    told = frame.json()
                    node.stacks[int(told["gadget"])].apply(told)
            case FrameType.HELLO:
                node.stacks.clear()
                with reading(frame):
                    hello = frame.json()
                    node.architecture = str(hello.get("architecture", node.architecture))
                    _observe(node.clock, hello)
                if isinstance(self._merge, TimeMerge):
                    since = int(hello.get("boot_ns", 0)) + node.clock.offset_ns
                    for index in range(len(self._gadgets)):
                        self._merge.join((item.node, index), since)
            case FrameType.STARTED:
                node.stages = self._make_stages()
                if not self._started:
                    self._started = True
                    self._sink.start()
                for index in range(len(self._gadgets)):
                    self._merge.join((item.node, index))
                with reading(frame):
                    _observe(node.clock, frame.json())
            case FrameType.STATS:
                with reading(frame):
                    _observe(node.clock, frame.json())
            case FrameType.PONG:
                with reading(frame):
                    _round_trip(node.clock, frame.json())
            case own_frames.GAP:
                gap = frame.json()
                self._emit_all(lambda: self._merge.release(self._now()))
                if self._started and not self._over:
                    self._sink.gap(item.node, gap["seconds"], gap["until_ns"])
            case DETACHED.type:
                self._finish_stages(node)
                for index in range(len(self._gadgets)):
                    self._merge.leave((item.node, index))

    def _add(self, node: _Node, payload: bytes) -> None:
        head, data = split_events(payload)
        if head.gadget >= len(self._gadgets):
            raise FrameError(f"{node.name}: events of a gadget that was not asked for ({head.gadget})")
        batch = self._decode(node, self._sent[head.gadget], data)
        for place in batch.gadget.record.fields:
            if place.type == STACK:
                batch.give(place.name, node.stacks[head.gadget].numbers(batch.raw(place)))
        if stage := _stage(node, head.gadget):
            rows = stage.rows(self._selected(node, batch), head.complete_until)
            batch = self._decode(node, self._gadgets[head.gadget], rows)
        if len(batch):
            self._choose(node, batch)
        self._merge.complete((node.name, head.gadget), head.complete_until + batch.clock_offset_ns)
        if head.flags & LAST and isinstance(self._merge, Intervals):
            self._merge.end((node.name, head.gadget), self._now(), bool(head.flags & REST))
            node.answered.add(head.gadget)
            if len(node.answered) == len(self._gadgets):
                self._answered(node.name)

    def _decode(self, node: _Node, gadget: Gadget, data: bytes | memoryview) -> Batch:
        batch = decode(gadget, node.name, data, architecture=node.architecture)
        batch.clock_offset_ns = node.clock.offset_ns
        fill_in_quotients(batch)
        return batch

    def _finish_stages(self, node: _Node) -> None:
        """Rows of what was still open when the connection ended."""
        for gadget, stage in zip(self._gadgets, node.stages, strict=False):
            if stage is not None and len(batch := self._decode(node, gadget, stage.rest())):
                self._choose(node, batch)
        node.stages = ()

    def _selected(self, node: _Node, batch: Batch) -> Batch:
        """The rows of containers that are traced, with their names."""
        batch.name_owners(node.identity.lookup)
        wanted = batch.judged(self._selections.get(node.name, ContainerFilter()).wanted) > 0
        return batch if bool(wanted.all()) else batch.select(wanted)

    def _choose(self, node: _Node, batch: Batch) -> None:
        selected = self._selected(node, batch)
        assert batch.owners is not None
        self.unattributed += batch.owners.unattributed()
        batch = selected
        if self._conditions.filter is not None and self._story is None:
            batch = self._conditions.filter.select(batch)
        self._decide(batch, time.monotonic() + _DECISION_SECONDS)

    def _decide(self, batch: Batch, deadline: float) -> None:
        """Passes on the rows of pods that the label selector wants; keeps those of pods that nobody has judged yet."""
        if not len(batch) or batch.owners is None:
            return
        judgements = batch.judged(partial(self._judge, self._selections.get(batch.node, ContainerFilter())))
        wanted = judgements == _WANTED
        self._merge.add(batch if wanted.all() else batch.select(wanted), self._now())
        unjudged = batch.select(judgements == _UNJUDGED)
        if not len(unjudged):
            return
        if time.monotonic() < deadline:
            self._undecided.append((unjudged, deadline))
        else:
            self.unattributed += len(unjudged)

    def _judge(self, selection: ContainerFilter, container: Container) -> int:
        """An event of two parties is wanted when the selection and the labels agree on one of them."""
        if not selection.wanted(container):
            return _UNWANTED
        verdict = self._wants(container.pod_uid, container.pod_name)
        return _UNJUDGED if verdict is None else _WANTED if verdict else _UNWANTED

    def _decide_late(self, at_end: bool = False) -> None:
        undecided, self._undecided = self._undecided, []
        for batch, deadline in undecided:
            self._decide(batch, 0.0 if at_end else deadline)

    def _emit_all(self, take: Callable[[], Rows]) -> None:
        while (rows := take()) is not NO_ROWS:
            self._emit(rows)

    def _told(self, rows: Rows) -> Rows:
        """The rows as a story tells them. Filters are about those, and the story has to see all before."""
        if self._story is None or not len(rows):
            return rows
        rows, chosen = self._story.rows(rows), self._conditions.filter
        return rows if chosen is None else Rows([chosen.select(part) for part in rows.parts])

    def _emit(self, rows: Rows) -> None:
        rows = self._told(rows)
        if self._over or not (len(rows) or isinstance(rows, Block)):
            return
        conditions, block = self._conditions, rows if isinstance(rows, Block) else None
        if conditions.max_events is not None:
            rows = rows.head(conditions.max_events - self.shown.total())
        if conditions.fail_on is not None and (failing := rows.mask(conditions.fail_on.mask)).any():
            rows = rows.head(int(np.argmax(failing)) + 1)
            self.failed_on = True
        if self.expectation_missed and conditions.expect is not None:
            self.expectation_missed = not rows.mask(conditions.expect.mask).any()
        for part in rows.parts:
            self.shown.update({part.node: len(part)} if part.origins is None else Counter(part.nodes()))
        if block is not None:
            self._sink.write_block(block if len(rows) == len(block) else rows)
        else:
            self._sink.write(rows)
        self._sink.flush()
        if self.failed_on or (conditions.max_events is not None and self.shown.total() >= conditions.max_events):
            self._over = True
            self._stop("enough")

    def _report_filter_errors(self) -> None:
        conditions = self._conditions
        for condition in (conditions.filter, conditions.of_sums, conditions.fail_on, conditions.expect):
            if condition is not None and condition.errors and id(condition) not in self._reported:
                self._reported.add(id(condition))
                self._warn(f"{condition.text!r} could not be decided for some rows: {condition.first_error}")


def _stage(node: _Node, gadget: int) -> Stage | None:
    return node.stages[gadget] if gadget < len(node.stages) else None


def _observe(clock: NodeClock, payload: Mapping[str, Any]) -> None:
    if "boot_ns" in payload and "realtime_ns" in payload:
        clock.observe(int(payload["boot_ns"]), int(payload["realtime_ns"]))


def _round_trip(clock: NodeClock, payload: Mapping[str, Any]) -> None:
    if "client_sent_ns" in payload:
        clock.round_trip(
            payload["client_sent_ns"],
            payload["client_received_ns"],
            int(payload["boot_ns"]),
            int(payload["realtime_ns"]),
        )
