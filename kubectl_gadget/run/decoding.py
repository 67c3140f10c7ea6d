"""Turns the frames of each node into batches of rows, and finds the rows' containers and whether they were selected."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kubectl_gadget.errors import FrameError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import TURN, Batch, Origins, decode
from kubectl_gadget.rows.containers import Container, ContainerFilter, Identity, owners_on
from kubectl_gadget.rows.stacks import NAMED, STACK, NodeStacks
from kubectl_gadget.rows.tables import fill_in_quotients
from kubectl_gadget.rows.views import Stage
from kubectl_gadget.run.backlog import Content, RoundTrip
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import EventsHeader, split_events

if TYPE_CHECKING:
    from kubectl_gadget.kube.addresses import Addresses


# Converts a node's boot time to wall time, and measures its clock's offset from the client's.


@dataclass(frozen=True)
class Skew:
    """The ns by which a node's clock is ahead of the client's: the estimate and its maximum error."""

    ns: int
    error_ns: int

    @property
    def proven(self) -> bool:
        """True if the two clocks are proven to differ."""
        return abs(self.ns) > self.error_ns


class NodeClock:
    """The clock of one node. It reads no clock itself: all times are passed in."""

    def __init__(self) -> None:
        self._boot_to_wall: int | None = None
        self._skew: Skew | None = None

    def observe(self, boot_ns: int, realtime_ns: int) -> None:
        """Takes both times of HELLO, STARTED, STATS or PONG. The node's wall time may have been set in between."""
        self._boot_to_wall = realtime_ns - boot_ns

    def round_trip(self, sent_ns: int, received_ns: int, boot_ns: int, realtime_ns: int) -> None:
        """Takes a PONG, with the client's wall times of sending the HEARTBEAT and of receiving the PONG."""
        stepped = self._boot_to_wall is not None and abs(realtime_ns - boot_ns - self._boot_to_wall) > 1_000_000
        self.observe(boot_ns, realtime_ns)
        if received_ns < sent_ns:
            return
        skew = Skew(realtime_ns - (sent_ns + received_ns) // 2, (received_ns - sent_ns + 1) // 2)
        if self._skew is None or stepped or skew.error_ns <= self._skew.error_ns:
            self._skew = skew

    @property
    def skew(self) -> Skew | None:
        """The skew of the node's clock; None before the first round trip."""
        return self._skew

    @property
    def offset_ns(self) -> int:
        """Wall time minus boot time in ns, by the node's clock, or by the client's if the two are proven to differ."""
        offset = self._boot_to_wall or 0
        return offset - self._skew.ns if self._skew is not None and self._skew.proven else offset


# Decoding.


@dataclass
class NodeDecoder:
    """The decoding state of one node."""

    name: str
    identity: Identity
    clock: NodeClock = field(default_factory=NodeClock)
    architecture: str = "x86_64"
    boot_ns: int = 0
    """when its agent said HELLO"""
    stages: Sequence[Stage | None] = ()
    stacks: defaultdict[int, NodeStacks] = field(default_factory=lambda: defaultdict(NodeStacks))
    """by gadget"""
    answered: set[int] = field(default_factory=set)
    """gadgets whose answer is complete"""


NodeFrame = tuple[NodeDecoder, EventsHeader, memoryview]
"""Head and ring buffer bytes of an EVENTS frame."""


class Decoding:
    """`select` returns the rows that a view may see, with their names."""

    def __init__(
        self,
        gadgets: Sequence[Gadget],
        make_stages: Callable[[], Sequence[Stage | None]],
        select: Callable[[Batch], Batch],
        addresses: "Callable[[], Addresses] | None" = None,
        named: "Callable[[Sequence[str]], Sequence[str]] | None" = None,
    ) -> None:
        """`addresses` as in Batch, `named` as in NodeStacks."""
        self._named = named
        self.nodes: dict[str, NodeDecoder] = {}
        self._gadgets = gadgets
        self._sent = [gadget.as_sent() for gadget in gadgets]
        self._has_stacks = [any(field.type == STACK for field in gadget.record.fields) for gadget in self._sent]
        self._make_stages = make_stages
        self._select = select
        self._addresses = addresses

    def node(self, name: str) -> NodeDecoder:
        """Returns the state of this node; creates it at first use."""
        found = self.nodes.get(name)
        if found is None:
            found = self.nodes[name] = NodeDecoder(name, Identity(name))
        return found

    def apply(self, node: NodeDecoder, content: Content, now_ns: int) -> None:
        """Applies a frame other than EVENTS. Raises FrameError."""
        match content:
            case ContainerChanges():
                node.identity.apply(content, now_ns / 1e9)
            case StackNames():
                if not 0 <= content.gadget < len(self._gadgets):
                    raise FrameError(f"STACKS: `gadget` is {content.gadget}, of {len(self._gadgets)}")
                node.stacks[content.gadget].apply(content, self._named)
            case Hello():
                node.stacks.clear()
                node.architecture = content.architecture or node.architecture
                node.boot_ns = content.boot_ns or 0
                _observe(node.clock, content)
            case Started():
                node.stages = self._make_stages()
                _observe(node.clock, content)
            case Stats():
                _observe(node.clock, content)
            case RoundTrip():
                node.clock.round_trip(*content)

    def rows(self, node: NodeDecoder, payload: bytes) -> tuple[EventsHeader, Batch]:
        """Returns the rows of an EVENTS frame. Raises FrameError."""
        head, data = split_events(payload)
        if head.gadget >= len(self._gadgets):
            raise FrameError(f"{node.name}: events of a gadget that was not requested ({head.gadget})")
        batch = self._decode(node, self._sent[head.gadget], data)
        for place in batch.gadget.record.fields:
            if place.type in NAMED:
                batch.give(place.name, node.stacks[head.gadget].numbers(batch.raw(place)))
        stage = node.stages[head.gadget] if head.gadget < len(node.stages) else None
        if stage is not None:
            batch.name_owners(node.identity.lookup)
            made = stage.rows(self._select(batch), head.complete_until)
            batch = self._decode(node, self._gadgets[head.gadget], made)
        if len(batch):
            batch.name_owners(node.identity.lookup)
        if batch.gadget.kind == "snapshot":
            batch.give(TURN, np.full(len(batch), head.interval))
        return head, batch

    def can_join(self, node: NodeDecoder, gadget: int) -> bool:
        """True if frames of this gadget on several nodes can be decoded together: it has no views, stacks or
        digests, which belong to one node."""
        return (
            gadget < len(self._gadgets)
            and not self._has_stacks[gadget]
            and node.stacks[gadget].is_empty
            and (gadget >= len(node.stages) or node.stages[gadget] is None)
        )

    def joined(self, frames: Sequence[NodeFrame]) -> Batch:
        """Return the rows of small frames of one gadget on many nodes of one architecture. This costs hardly more than
        the rows of one node. Raises FrameError, which does not name the node."""
        nodes = [node for node, _, _ in frames]
        ends = np.cumsum([len(data) for _, _, data in frames])
        bounds = np.concatenate([[0], ends[:-1]])
        if (bounds % 8).any():
            raise FrameError("a frame does not end at a record")
        data = b"".join(data for _, _, data in frames)
        gadget = self._sent[frames[0][1].gadget]
        batch = decode(gadget, "", data, architecture=nodes[0].architecture, bounds=bounds)
        places = np.searchsorted(ends, batch.starts, side="right")
        offsets = np.array([node.clock.offset_ns for node in nodes], np.int64)
        batch.origins = Origins(places, [node.name for node in nodes], offsets[places])
        identities = [node.identity for node in nodes]
        batch.name_owners(partial(owners_on, identities, places))
        batch.addresses = self._addresses
        fill_in_quotients(batch)
        return batch

    def rest(self, node: NodeDecoder) -> list[Batch]:
        """Returns rows that the node's views still hold back, when its connection has ended."""
        stages, node.stages = node.stages, ()
        batches = [
            self._decode(node, gadget, stage.rest())
            for gadget, stage in zip(self._gadgets, stages, strict=False)
            if stage is not None
        ]
        batches = [batch for batch in batches if len(batch)]
        for batch in batches:
            batch.name_owners(node.identity.lookup)
        return batches

    def _decode(self, node: NodeDecoder, gadget: Gadget, data: bytes | memoryview) -> Batch:
        batch = decode(gadget, node.name, data, architecture=node.architecture)
        batch.clock_offset_ns = node.clock.offset_ns
        batch.addresses = self._addresses
        fill_in_quotients(batch)
        return batch


def _observe(clock: NodeClock, message: Hello | Started | Stats) -> None:
    if message.boot_ns is not None and message.realtime_ns is not None:
        clock.observe(message.boot_ns, message.realtime_ns)


# Step 3 of the pipeline: finds the containers of rows, and whether those containers were selected.


_DECISION_NS = 3_000_000_000
"""Time that rows of a new pod wait for its labels from the API server. After it, they count as unattributed."""

_EVERY_CONTAINER = ContainerFilter(FilterSpec())
_UNWANTED, _UNJUDGED, _WANTED = range(3)


class Attribution:
    """`wants` returns what a label selector decides about a pod, by uid and name; None: not known yet."""

    def __init__(self, wants: Callable[[str, str], bool | None], narrowed: ContainerFilter | None = None) -> None:
        """`narrowed`: further conditions that containers must meet, on every node."""
        self.unattributed = 0
        """events of cgroups that no agent could name, or of pods whose labels did not arrive in time"""
        self.unnamed = 0
        """the former alone: events without a known pod"""
        self._wants = wants
        self._narrowed = narrowed
        self._selections: dict[str, ContainerFilter] = {}
        self._undecided: list[tuple[Batch, int]] = []

    def choose(self, node: str, filter: FilterSpec) -> None:
        """Applies a node's FILTER (docs/protocol.md)."""
        self._selections[node] = ContainerFilter(filter)

    def _selects(self, node: str) -> Callable[[Container], bool]:
        selection, narrowed = self._selections.get(node, _EVERY_CONTAINER), self._narrowed
        if narrowed is None:
            return selection.wanted
        return lambda container: selection.wanted(container) and narrowed.wanted(container)

    def selected(self, batch: Batch) -> Batch:
        """Returns the rows of traced containers, whatever their labels, of rows that have names."""
        wanted = batch.judged(self._selects) > 0
        return batch if bool(wanted.all()) else batch.select(wanted)

    def count_unnamed(self, batch: Batch) -> None:
        """Call it once for each named batch, before rows are removed from it."""
        assert batch.owners is not None
        unnamed = batch.owners.unattributed()
        self.unattributed, self.unnamed = self.unattributed + unnamed, self.unnamed + unnamed

    def judged(self, batch: Batch, now_ns: int) -> Batch:
        """Returns the rows of traced containers that labels select, too. Rows of undecided pods are kept back."""
        return self._judged(batch, now_ns, now_ns + _DECISION_NS)

    def late(self, now_ns: int, at_end: bool = False) -> Iterator[Batch]:
        """Yields rows that were kept back and are now wanted; `at_end`: no further decision will come."""
        undecided, self._undecided = self._undecided, []
        for batch, deadline in undecided:
            yield self._judged(batch, now_ns, now_ns if at_end else deadline)

    def wanted(self, node: str, container: Container) -> bool:
        """True if this container is known to be traced."""
        return self._selects(node)(container) and bool(self._wants(container.pod_uid, container.pod_name))

    def _judged(self, batch: Batch, now_ns: int, deadline_ns: int) -> Batch:
        if not len(batch) or batch.owners is None:
            return batch
        judgements = batch.judged(lambda node: partial(self._judge, self._selects(node)))
        wanted = judgements == _WANTED
        unjudged = batch.select(judgements == _UNJUDGED)
        if len(unjudged) and now_ns < deadline_ns:
            self._undecided.append((unjudged, deadline_ns))
        else:
            self.unattributed += len(unjudged)
        return batch if wanted.all() else batch.select(wanted)

    def _judge(self, selects: Callable[[Container], bool], container: Container) -> int:
        """Decides about a container. An event with two parties needs selection and labels to agree on one party."""
        if not selects(container):
            return _UNWANTED
        verdict = self._wants(container.pod_uid, container.pod_name)
        return _UNJUDGED if verdict is None else _WANTED if verdict else _UNWANTED
