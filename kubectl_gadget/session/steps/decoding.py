"""Step 2 of the pipeline: from the frames of each node to batches of its rows.

Keeps what the frames of a node build on: its containers, clock, call stacks, and the views of its gadgets
(views/stage.py). The trap: what a frame says wrong is the node's fault and a FrameError; `reading` marks those places.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_gadget.errors import FrameError
from kubectl_gadget.events.batch import Batch, decode
from kubectl_gadget.events.clock import NodeClock
from kubectl_gadget.events.columns.stack_columns import STACK
from kubectl_gadget.events.identity import Identity
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.events.stacks import NodeStacks
from kubectl_gadget.views.stage import Stage
from kubectl_gadget.views.tables.aggregation import fill_in_quotients
from kubectl_gadget.wire import EventsHeader, Frame, FrameType, reading, split_events


@dataclass
class NodeDecoder:
    """What is known of one node."""

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
    """gadgets whose answer is whole"""


class Decoding:
    """`select` chooses the rows that a view may see, with their names."""

    def __init__(
        self,
        gadgets: Sequence[Gadget],
        make_stages: Callable[[], Sequence[Stage | None]],
        select: Callable[[NodeDecoder, Batch], Batch],
    ) -> None:
        self.nodes: dict[str, NodeDecoder] = {}
        self._gadgets = gadgets
        self._sent = [gadget.as_sent() for gadget in gadgets]
        self._make_stages = make_stages
        self._select = select

    def node(self, name: str) -> NodeDecoder:
        """What is known of this node; a new one when it is seen for the first time."""
        found = self.nodes.get(name)
        if found is None:
            found = self.nodes[name] = NodeDecoder(name, Identity(name))
        return found

    def apply(self, node: NodeDecoder, frame: Frame, now_ns: int) -> None:
        """Takes a frame that is no EVENTS. Raises FrameError."""
        match frame.type:
            case FrameType.CONTAINERS:
                with reading(frame):
                    node.identity.apply(frame.json(), now_ns / 1e9)
            case FrameType.STACKS:
                with reading(frame):
                    stacks = frame.json()
                    node.stacks[int(stacks["gadget"])].apply(stacks)
            case FrameType.HELLO:
                node.stacks.clear()
                with reading(frame):
                    hello = frame.json()
                    node.architecture = str(hello.get("architecture", node.architecture))
                    node.boot_ns = int(hello.get("boot_ns", 0))
                    _observe(node.clock, hello)
            case FrameType.STARTED:
                node.stages = self._make_stages()
                with reading(frame):
                    _observe(node.clock, frame.json())
            case FrameType.STATS:
                with reading(frame):
                    _observe(node.clock, frame.json())
            case FrameType.PONG:
                with reading(frame):
                    _round_trip(node.clock, frame.json())

    def rows(self, node: NodeDecoder, payload: bytes) -> tuple[EventsHeader, Batch]:
        """The rows of an EVENTS frame. Raises FrameError."""
        head, data = split_events(payload)
        if head.gadget >= len(self._gadgets):
            raise FrameError(f"{node.name}: events of a gadget that was not asked for ({head.gadget})")
        batch = self._decode(node, self._sent[head.gadget], data)
        for place in batch.gadget.record.fields:
            if place.type == STACK:
                batch.give(place.name, node.stacks[head.gadget].numbers(batch.raw(place)))
        stage = node.stages[head.gadget] if head.gadget < len(node.stages) else None
        if stage is not None:
            made = stage.rows(self._select(node, batch), head.complete_until)
            batch = self._decode(node, self._gadgets[head.gadget], made)
        return head, batch

    def rest(self, node: NodeDecoder) -> list[Batch]:
        """Rows of what the node's views still wait for, when its connection has ended."""
        stages, node.stages = node.stages, ()
        return [
            self._decode(node, gadget, stage.rest())
            for gadget, stage in zip(self._gadgets, stages, strict=False)
            if stage is not None
        ]

    def _decode(self, node: NodeDecoder, gadget: Gadget, data: bytes | memoryview) -> Batch:
        batch = decode(gadget, node.name, data, architecture=node.architecture)
        batch.clock_offset_ns = node.clock.offset_ns
        fill_in_quotients(batch)
        return batch


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
