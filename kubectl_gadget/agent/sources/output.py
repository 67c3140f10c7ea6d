"""The output of a source: the ring and the counters of its programs, and the frames that carry the events."""

import math
import time
from typing import NamedTuple, Protocol

from kubectl_gadget.agent.bpf import maps
from kubectl_gadget.agent.bpf.maps import BpfMap, CpuCounters
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.containers.ring_fairness import ContainerLosses, ContainerNumbers
from kubectl_gadget.agent.pipe import FramePipe, WrittenRing
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import GadgetStats, StackNames, encode_message
from kubectl_gadget.wire.frames import EventsHeader, FrameType, encode, header

_MOST_RING_BYTES = 32 << 20
"""A whole ring has to fit into one EVENTS frame."""


class EventsOutput:
    """The ring and the counters of one object. `numbers`: to name the containers whose events were lost."""

    def __init__(self, events: BpfMap, cpus: BpfMap, fairness: BpfMap | None, numbers: ContainerNumbers) -> None:
        self.fd = events.fd
        """The ring's file descriptor."""
        self.counters = CpuCounters(cpus.fd, cpus.entries)
        self.ring = open_ring(events.fd, events.entries, self.counters)
        self._losses = ContainerLosses(fairness)
        self._numbers = numbers

    def stats(self, recursion: int = 0) -> GadgetStats:
        """Returns the entry in STATS. `recursion` counts programs skipped because one already ran on that CPU."""
        cpus = self.counters
        lost = {
            "ring_full": cpus.by_cpu(maps.LOST_RING_FULL),
            "map_full": cpus.by_cpu(maps.LOST_MAP_FULL),
            "unexamined": cpus.by_cpu(maps.LOST_UNEXAMINED),
        }
        if recursion:
            lost["recursion"] = {"all": recursion}
        return GadgetStats(
            events=cpus.total(maps.EVENTS),
            bytes=cpus.total(maps.BYTES),
            lost={cause: by_cpu for cause, by_cpu in lost.items() if by_cpu},
            cut_strings=cpus.total(maps.CUT_STRINGS),
            lost_by=self._losses.by_container(self._numbers) if lost["ring_full"] or lost["map_full"] else (),
        )

    def close(self) -> None:
        self.ring.close()
        self.counters.close()
        self._losses.close()


def ring_bytes(wanted: int) -> int:
    """Returns the ring's size for `wanted` bytes: the next power of two, at least a page. Raises AgentError."""
    if not 0 < wanted <= _MOST_RING_BYTES:
        raise AgentError(f"cannot create a ring buffer of {wanted} bytes", f"1 to {_MOST_RING_BYTES} bytes")
    return int(max(4096, 1 << (wanted - 1).bit_length()))


# The EVENTS and STACKS frames of one source, with its index in RUN and a number for each frame.
#
# A ring's bytes are not copied. They are queued in place, and the pipe advances the ring as it writes them.

_EVENTS_HEAD = 24
_REPORT_SECONDS = 0.4
"""After this time, an idle source reports up to when its events are complete. Gaps are known to this precision."""
_EARLY = 0.05
"""A report may be this much early, so that all sources of a session at rest report in the same turn."""


class Piece(NamedTuple):
    """Whole records of a snapshot, of an interval's sums, or of a recording, laid out as in a ring buffer."""

    records: bytes
    flags: int
    interval: int
    complete_until: int


class SettledRing(WrittenRing, Protocol):
    """A ring, read up to its settled position."""

    complete_until: int
    """Boot time in ns: every event stamped before it is before the settled position."""

    def batch(self) -> memoryview:
        """Returns the bytes between the last advance() and the settled position, in place."""


class NamedStacks(Protocol):
    """Stacks and texts that records refer to by number."""

    def take_new(self, gadget: int) -> StackNames | None:
        """Return what is new since the last call, or None; `gadget` is the index in RUN."""


class Channel:
    """Sends the frames of the source with this index into `pipe`."""

    def __init__(self, index: int, pipe: FramePipe) -> None:
        self._index = index
        self._pipe = pipe
        self._sequence = 0
        self._is_idle = False
        self.due = math.inf
        """when the source has to report, even if idle, on the monotonic clock; inf: never"""

    def send_ring(self, ring: SettledRing) -> int:
        """Sends everything before the settled position, and returns the number of bytes. From an idle source, a frame
        without records reports from time to time up to when events are complete."""
        batch = ring.batch()
        length = len(batch)
        now = time.monotonic()
        if not length and self._is_idle and now < self.due - _EARLY:
            return 0
        head = EventsHeader(self._index, self._sequence, ring.complete_until).encode()
        self._pipe.put_ring(header(FrameType.EVENTS, _EVENTS_HEAD + length) + head, batch, ring)
        self._sequence += 1
        self._is_idle = not length
        self.due = now + _REPORT_SECONDS
        return length

    def send_piece(self, piece: Piece) -> None:
        head = EventsHeader(self._index, self._sequence, piece.complete_until, piece.flags, piece.interval)
        self._pipe.put(encode(FrameType.EVENTS, head.encode() + piece.records))
        self._sequence += 1

    def send_stacks(self, stacks: NamedStacks) -> None:
        """Sends new stacks. Call it before the events that refer to them are sent."""
        if new := stacks.take_new(self._index):
            self._pipe.put(encode_message(new))
