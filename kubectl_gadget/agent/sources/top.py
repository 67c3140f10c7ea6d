"""Kind `top`: sums of each interval, and of the unfinished last one when the session ends.

BPF programs keep the sums, which are taken without losing an increment (bpf/include/gadget/totals.h). Two hashes take
turns in the one entry of the map `gadget_totals`. Programs add to the one that is there; the kernel completes a
replacement when no program can still add to the old one, so the sums are exact.
"""

import math
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

from kubectl_gadget.agent.bpf.maps import Batches, BpfMap
from kubectl_gadget.agent.bpf.object import BY_HAND, BpfObject
from kubectl_gadget.agent.sources.gadget_source import PiecesSource
from kubectl_gadget.agent.sources.output import EventsOutput
from kubectl_gadget.agent.sources.samplers import Sampled
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import GadgetSpec

_HEAD = struct.Struct("<IIQQ")
"""The ring buffer's header, and struct gadget_total."""

_OUTER = "gadget_totals"
_SUMS = "sum_"
"""Prefix of the names of summing walks, which add the present state before sums are taken."""
_BATCH = 1024
_WALK_SECONDS = 2.0
"""Seconds between two runs of the other walks."""


class TopSource(PiecesSource):
    """Takes the sums when an interval is over."""

    _totals: "Totals"

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        if spec.interval_ms <= 0 or spec.record_bytes <= 0:
            raise FrameError(f"RUN: {spec.name} has no `interval_ms` or no `record_bytes`")
        self._seconds = spec.interval_ms / 1000
        self._is_detached = False
        self.due = math.inf
        super().__init__(spec, elf, context)
        context.callbacks.each_turn.append(self._totals.walk)
        if self.programs.stacks:
            context.callbacks.each_turn.append(self.programs.stacks.take)

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        sampled = Sampled(self._spec, self._context.containers, self._context.warnings.add)
        resources.callback(sampled.close)
        self._totals = Totals(object, self._spec.record_bytes, sampled)
        self.due = time.monotonic() + self._seconds

    def settle(self, is_blocked: bool) -> bool:
        now = time.monotonic()
        if not is_blocked and now >= self.due:
            self._add(self._totals.take(), is_rest=self._is_detached)
            # After a delay, intervals are not shortened to catch up: each has its real length in its records.
            self.due = math.inf if self._is_detached else max(self.due + self._seconds, now)
        self._take_stacks()
        return True

    @property
    def is_quiet(self) -> bool:
        return not self._unsent and (self.programs.stacks is None or self.programs.stacks.is_quiet)

    def detach(self) -> None:
        self._totals.add_up()
        super().detach()
        self._is_detached = True
        self.due = 0.0


class Totals:
    """The totals of one object. `record` is the size of the record in bytes.

    With rows in `sampled`, the object need not have totals; records of totals then have unknown values in the fields
    after the sum.
    """

    def __init__(self, object: BpfObject, record: int, sampled: Sampled) -> None:
        self._object = object
        self._walk_at = 0.0
        self._walked = False
        self._sampled = sampled
        maps = [object.map(f"gadget_totals_{half}") for half in "ab"]
        self._halves: list[BpfMap] = [half for half in maps if half is not None]
        if object.map(_OUTER) is None or len(self._halves) < 2:
            if not sampled:
                raise AgentError("the object has no totals", "use GADGET_TOTALS of gadget/totals.h")
            self._halves = []
        self._counting = 0
        self._record = record
        self._sizes = (self._halves[0].key_size, self._halves[0].value_size) if self._halves else (0, 0)
        self._since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def walk(self, now: float) -> None:
        """Call it often, with time.monotonic(): runs the walks that are not summing, when they are due."""
        if now >= self._walk_at:
            self._walk_at = now + _WALK_SECONDS
            self._walk(summing=False)

    def add_up(self) -> None:
        """Runs the summing walks for the last time, while the programs are still attached; take() then skips them."""
        self._walk(summing=True)
        self._walked = True

    def _walk(self, summing: bool) -> None:
        """Runs the object's walks: the summing ones, or the others."""
        for program in self._object.chosen:
            if self._object.section(program) == BY_HAND and program.startswith(_SUMS) == summing:
                self._object.run(program)

    def take(self) -> Iterator[bytes]:
        """Yields the sums since the last call, in pieces of whole records, and resets them to 0."""
        if not self._walked:
            self._walk(summing=True)
        full = self._swap() if self._halves else None
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        interval, self._since = now - self._since, now
        head = _HEAD.pack(self._record, 0, now, interval)
        rest = self._record + 8 - len(head) - sum(self._sizes)
        tail = (b"\xff" if self._sampled else b"\0") * rest + bytes(-self._record % 8)
        if full:
            for keys, values in Batches(full, _BATCH).take():
                yield b"".join(head + key + value + tail for key, value in zip(keys, values, strict=True))
        yield from self._sampled.records(head[8:])

    def _swap(self) -> BpfMap:
        """Makes the programs count in the other hash. Returns the one that was filled."""
        full = self._halves[self._counting]
        self._counting ^= 1
        self._object.required_map(_OUTER).set(0, self._halves[self._counting].fd)
        return full
