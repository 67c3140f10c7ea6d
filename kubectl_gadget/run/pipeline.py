"""Turns frames into output, in this order:

    frames → decode → names → filter → collector → transform → conditions → output, export

    backlog.py, decoding.py, filters/filter.py, a Collector (rows/merge.py, rows/tables.py), a RowTransform
    (observe/story.py, flows/run.py), conditions (here), output/sink.py

Runs in a thread of its own. Writing may block as long as the reader of our output is slow; this may delay only this
thread.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kubectl_gadget.errors import FrameError, GadgetError, internal_error
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.sink import Sink, WholeSink
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container, ContainerFilter
from kubectl_gadget.rows.merge import TimeMerge
from kubectl_gadget.rows.rows import NO_ROWS, Collector, Rows, RowTransform
from kubectl_gadget.rows.stacks import CutOff
from kubectl_gadget.rows.views import Stage
from kubectl_gadget.run.backlog import (
    Detached,
    Events,
    FrameSource,
    Intake,
    Item,
    Selected,
    SmallFrame,
    StepMark,
    together,
)
from kubectl_gadget.run.coverage import EXPECTATION_FAILED, INCONCLUSIVE, Gap, some
from kubectl_gadget.run.decoding import Attribution, Decoding, NodeDecoder, NodeFrame
from kubectl_gadget.wire.agent_messages import Hello, Started
from kubectl_gadget.wire.frames import LAST, REST

if TYPE_CHECKING:
    from kubectl_gadget.filters.filter import Filter
    from kubectl_gadget.kube.addresses import Addresses
    from kubectl_gadget.run.run_options import RunExport


# The filters of a run, and its last step before output: how many rows are shown, and which decide the exit code.


@dataclass(frozen=True)
class Conditions:
    """The conditions on rows, compiled and checked."""

    filter: "Filter | None" = None
    """for rows as they arrive"""
    of_sums: "Filter | None" = None
    """for rows that were summed up"""
    fail_on: "Filter | None" = None
    expect: "Filter | None" = None
    max_events: int | None = None
    of_gadgets: "Mapping[str, Filter]" = field(default_factory=dict)
    """by name, for rows of one gadget as they arrive"""


class Ending:
    """Counts rows, and decides when there are enough and with which exit code the run ends."""

    def __init__(self, conditions: Conditions) -> None:
        self.shown: Counter[str] = Counter()
        """rows by node"""
        self.cut_off = CutOff()
        self.failed_on = False
        self.expectation_missed = conditions.expect is not None
        self._conditions = conditions
        self._reported: set[int] = set()

    @property
    def is_final(self) -> bool:
        """True if no more rows are to be shown."""
        most = self._conditions.max_events
        return self.failed_on or (most is not None and self.shown.total() >= most)

    def outcome(self, doubts: Sequence[str] = ()) -> tuple[str, int]:
        """Return the outcome of --fail-on and --expect, as a message and an exit code; "" and 0: all is well.

        `doubts`: why the run may not have seen everything (run/coverage.py). A match is certain; with doubts, the
        absence of a match proves nothing, and the exit code says inconclusive."""
        fail_on, expect = self._conditions.fail_on, self._conditions.expect
        if self.failed_on and fail_on is not None:
            return f"--fail-on: the last row matches {fail_on.text}", EXPECTATION_FAILED
        missed = expect if self.expectation_missed else None
        for flag, condition in (("--expect", missed), ("--fail-on", fail_on)):
            if condition is None:
                continue
            reasons = [*doubts, *([f"for some rows, {condition.first_error}"] if condition.errors else [])]
            if reasons:
                return (
                    f"{flag}: no row matched {condition.text}, but this is inconclusive: {some(reasons)}",
                    INCONCLUSIVE,
                )
            if condition is missed:
                return f"--expect: no row matched {condition.text}", EXPECTATION_FAILED
        return "", 0

    def cut(self, rows: Rows) -> Rows:
        """Return the rows to show."""
        conditions = self._conditions
        if conditions.max_events is not None:
            rows = rows.head(conditions.max_events - self.shown.total())
        if conditions.fail_on is not None and (failing := rows.mask(conditions.fail_on.mask)).any():
            rows = rows.head(int(np.argmax(failing)) + 1)
            self.failed_on = True
        if self.expectation_missed and conditions.expect is not None:
            self.expectation_missed = not rows.mask(conditions.expect.mask).any()
        for part in rows.parts:
            self.shown.update({part.node: len(part)} if part.origins is None else Counter(part.nodes()))
        for part in (rows.everything if rows.is_block else rows).parts:
            self.cut_off.add(part)
        return rows

    def undecided(self) -> Iterator[str]:
        """Yields the filters that had errors on some rows, each once."""
        conditions = self._conditions
        filters = (conditions.filter, conditions.of_sums, *conditions.of_gadgets.values())
        for condition in (*filters, conditions.fail_on, conditions.expect):
            if condition is not None and condition.errors and id(condition) not in self._reported:
                self._reported.add(id(condition))
                yield f"{condition.text!r} could not be evaluated for some rows: {condition.first_error}"


# The pipeline.


@dataclass(frozen=True)
class PipelineEvents:
    """The pipeline's callbacks. All are called from its thread."""

    stop: Callable[[str], object]
    """enough was shown, or the output is closed"""
    node_broke: Callable[[str, GadgetError], object]
    """what this node sends cannot be decoded"""
    warn: Callable[[str], object]
    """a message for the user"""
    answered: Callable[[str], object] = lambda _node: None
    """all gadgets of this node have delivered a complete answer: an interval, a snapshot"""
    step: Callable[[StepMark], object] = lambda _mark: None
    """a step of a CI job begins here in the stream; rows that are older may still come"""


class Pipeline:
    """`run` ends when the frames end, or when the output is closed; the attributes then hold its results."""

    def __init__(
        self,
        frames: FrameSource,
        gadgets: Sequence[Gadget],
        conditions: Conditions,
        collector: Collector,
        sink: Sink,
        events: PipelineEvents,
        wants: Callable[[str, str], bool | None],
        stages: Callable[[], Sequence[Stage | None]] = tuple,
        transform: RowTransform | None = None,
        narrowed: ContainerFilter | None = None,
        addresses: "Callable[[], Addresses] | None" = None,
        beside: WholeSink | None = None,
        export: "RunExport | None" = None,
        named: Callable[[Sequence[str]], Sequence[str]] | None = None,
    ) -> None:
        """`wants` and `narrowed` are for Attribution; `stages` creates a node's views. `beside` gets the rows that a
        transform gets, `export` those that the sink gets. `named` as in NodeStacks."""
        self.frames = frames
        self._gadgets = gadgets
        self.attribution = Attribution(wants, narrowed)
        self.decoding = Decoding(gadgets, stages, self.attribution.selected, addresses, named)
        self._filter = conditions.filter
        self._of_gadgets = conditions.of_gadgets
        self.collector = collector
        self._transform = transform
        self.ending = Ending(conditions)
        self._sink = sink
        self._beside = beside
        self.export = export
        self._events = events
        self._over = False
        self._started = False
        self._warned: set[str] = set()

    @property
    def skew_ns(self) -> dict[str, int]:
        """The ns by which each node's clock is ahead of ours, where this is certain."""
        skews = {name: node.clock.skew for name, node in self.decoding.nodes.items()}
        return {name: skew.ns for name, skew in skews.items() if skew is not None and skew.proven}

    def watched(self) -> list[Container]:
        """The traced containers that existed at the end."""
        return [
            container
            for name, node in self.decoding.nodes.items()
            for container in node.identity.containers()
            if container.kind == "container" and self.attribution.wanted(name, container)
        ]

    def run(self) -> None:
        """Works until the frames end. Raises GadgetError when the output cannot be written."""
        try:
            if self.export is not None:
                self.export.begin(self._events.warn)
            self._work()
        except BrokenPipeError:
            pass  # nobody reads the output any more
        except OSError as error:
            raise GadgetError(f"the output cannot be written: {error.strerror}") from None
        finally:
            self._over = True
            self._events.stop("output ended")
            self.frames.drain()
            if self.export is not None:
                self.export.close()

    def _work(self) -> None:
        now_ns = 0
        while (step := self.frames.take(self.collector.next_release_ns())) is not None:
            now_ns = step.now_ns
            self._collect_all(step)
            del step  # its frames need not be in memory while rows are printed
            if self.export is not None:
                self.export.tick(now_ns)
            self._emit_all(partial(self.collector.release, now_ns))
            self._warn()
        self._collect_late(now_ns, at_end=True)
        self._emit_all(self.collector.flush)
        self._warn()
        if self._started:
            self._sink.close()

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._events.warn(text)

    def _warn(self) -> None:
        """Says which filters failed on rows, each once: also on a busy stream, and on one that shows nothing."""
        for text in self.ending.undecided():
            self._events.warn(text)

    def _collect_all(self, step: Intake) -> None:
        """Adds the rows of one step to the collector. Raises GadgetError and OSError of the output."""
        for found in together(step.items, self._can_join):
            if isinstance(found, Item):
                self._take(found, step.now_ns)
            elif len(found) == 1:
                self._take(found[0].item, step.now_ns)
            else:
                self._take_joined(found, step.now_ns)
        self._collect_late(step.now_ns)

    def _take(self, item: Item, now_ns: int) -> None:
        try:
            self._handle(item, now_ns)
        except FrameError as error:
            self._events.node_broke(item.node, error)
        except (GadgetError, OSError):
            # Raised by the output, which all nodes share.
            raise
        except Exception as error:
            # What one node sends may end only that node, even when it triggers a bug of ours.
            self._events.node_broke(item.node, internal_error(error))

    def _handle(self, item: Item, now_ns: int) -> None:
        if isinstance(item.content, StepMark):
            self._events.step(item.content)
            return
        node, content = self.decoding.node(item.node), item.content
        if isinstance(content, Events):
            self._add(node, content.payload, now_ns)
            return
        self.decoding.apply(node, content, now_ns)
        sources = [(node.name, index) for index in range(len(self._gadgets))]
        match content:
            case Selected(filter):
                self.attribution.choose(node.name, filter)
            case Hello():
                for source in sources:
                    self.collector.expect(source, node.boot_ns + node.clock.offset_ns)
            case Started():
                if not self._started:
                    self._started = True
                    self._sink.start()
                for source in sources:
                    self.collector.join(source)
            case Gap():
                self._emit_all(lambda: self.collector.release(now_ns))
                if self._started and not self._over:
                    for sink in (self._sink, self._beside, self.export):
                        if sink is not None:
                            sink.gap(node.name, round(content.seconds, 3), content.until_ns)
            case Detached():
                for batch in self.decoding.rest(node):
                    self._collect(batch, now_ns)
                for source in sources:
                    self.collector.leave(source)

    def _can_join(self, node: str, gadget: int) -> bool:
        return isinstance(self.collector, TimeMerge) and self.decoding.can_join(self.decoding.node(node), gadget)

    def _take_joined(self, frames: Sequence[SmallFrame], now_ns: int) -> None:
        """Adds frames of one gadget on many nodes."""
        by_architecture: dict[str, list[tuple[Item, NodeFrame]]] = {}
        for item, head, data in frames:
            node = self.decoding.node(item.node)
            by_architecture.setdefault(node.architecture, []).append((item, (node, head, data)))
        for group in by_architecture.values():
            try:
                batch = self.decoding.joined([frame for _, frame in group])
                chosen = self._chosen(batch, now_ns)
            except FrameError:
                self._take_each(group, now_ns)
            except Exception as error:
                # A bug of ours, which must neither end the run nor stay unknown. Alone, a frame ends its node at most.
                self._warn_once(str(internal_error(error)))
                self._take_each(group, now_ns)
            else:
                self._add_chosen(batch, chosen, now_ns)
                for _, (node, head, _) in group:
                    self.collector.complete((node.name, head.gadget), head.complete_until + node.clock.offset_ns)

    def _take_each(self, group: Sequence[tuple[Item, NodeFrame]], now_ns: int) -> None:
        """Takes the frames one by one, so that the one that is at fault ends its own node only."""
        for item, _ in group:
            self._take(item, now_ns)

    def _add(self, node: NodeDecoder, payload: bytes, now_ns: int) -> None:
        head, batch = self.decoding.rows(node, payload)
        self._collect(batch, now_ns)
        source = (node.name, head.gadget)
        self.collector.complete(source, head.complete_until + batch.clock_offset_ns)
        if head.flags & LAST:
            self.collector.end(source, now_ns, bool(head.flags & REST))
            node.answered.add(head.gadget)
            if len(node.answered) == len(self._gadgets):
                self._events.answered(node.name)

    def _collect(self, batch: Batch, now_ns: int) -> None:
        """Applies selection, filter, labels and collector. A transform's rows are filtered later."""
        if len(batch):
            self._add_chosen(batch, self._chosen(batch, now_ns), now_ns)

    def _chosen(self, batch: Batch, now_ns: int) -> Batch:
        """Returns the rows that are selected and match the filter."""
        if (only := self._of_gadgets.get(batch.gadget.name)) is not None:
            batch = only.select(batch)
        if self._filter is not None and self._transform is None:
            batch = self._filter.select(batch)
        return self.attribution.judged(batch, now_ns) if len(batch) else batch

    def _add_chosen(self, batch: Batch, chosen: Batch, now_ns: int) -> None:
        if len(batch):
            self.attribution.count_unnamed(batch)
        if len(chosen):
            self.collector.add(chosen, now_ns)

    def _collect_late(self, now_ns: int, at_end: bool = False) -> None:
        for batch in self.attribution.late(now_ns, at_end):
            self.collector.add(batch, now_ns)

    def _emit_all(self, take: Callable[[], Rows]) -> None:
        while (rows := take()) is not NO_ROWS:
            self._emit(rows)

    def _emit(self, rows: Rows) -> None:
        if self._beside is not None and not self._over:
            (self._beside.write_block if rows.is_block else self._beside.write)(rows)
        if self._transform is not None and len(rows):
            rows = self._transform.apply(rows)
            if self._filter is not None:
                rows = rows.matching(self._filter.possible)
        if self._over or not (len(rows) or rows.is_block):
            return
        shown = self.ending.cut(rows)
        if self.export is not None:
            self.export.write(shown, rows.everything if rows.is_block else shown)
        write = self._sink.write_block if rows.is_block else self._sink.write
        write(shown)
        self._sink.flush()
        if self.ending.is_final:
            self._over = True
            self._events.stop("enough")
