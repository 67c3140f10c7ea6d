"""Reassembles one direction of a TCP connection from packets that may be repeated, out of order, or missing.

The trap: no piece may be waited for without limit. A missing piece (lost by the node, or sent before the trace started)
is given up once much has arrived after it, and is reported as missing.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from kubectl_gadget.protocols.packets import ACK, SYN, Packet

_MOST_PIECES = 64
_MOST_BYTES = 1 << 20
_HALF = 1 << 31
_RING = 1 << 32

Pieces = Iterator[bytes | int]
"""Bytes of the stream in order; a number means that many missing bytes."""

T = TypeVar("T")


class Stream:
    """One direction of a connection. `from_start`: nothing before the first byte was missed."""

    def __init__(self) -> None:
        self.from_start = False
        self._next: int | None = None
        self._early: dict[int, tuple[bytes, int]] = {}

    def feed(self, packet: Packet) -> Pieces:
        """Takes a packet and yields what can now be read. Must be iterated to its end."""
        if packet.flags & SYN:
            if self._next is None:
                self._next, self.from_start = packet.sequence, True
        elif self._next is None and (packet.payload or packet.missing):
            self._next = packet.sequence
        if self._next is None or not (packet.payload or packet.missing):
            return
        held = self._early.get(packet.sequence)
        if held is None or (len(held[0]), held[1]) < (len(packet.payload), packet.missing):
            self._early[packet.sequence] = (packet.payload, packet.missing)
        yield from self._ready()
        held_bytes = sum(len(payload) for payload, _ in self._early.values())
        if len(self._early) > _MOST_PIECES or held_bytes > _MOST_BYTES:
            nearest = min(self._ahead(sequence) for sequence in self._early)
            self._next = (self._next + nearest) % _RING
            yield nearest
            yield from self._ready()

    def _ahead(self, sequence: int) -> int:
        """How far a sequence number is ahead of what has been read; negative: before it. Numbers wrap at 2^32."""
        assert self._next is not None
        return (sequence - self._next + _HALF) % _RING - _HALF

    def _ready(self) -> Pieces:
        found = True
        while found:
            found = False
            for sequence in sorted(self._early, key=self._ahead):
                repeated = -self._ahead(sequence)
                if repeated < 0:
                    break
                payload, missing = self._early.pop(sequence)
                found = True
                assert self._next is not None
                if (new := len(payload) - repeated) > 0:
                    self._next = (self._next + new) % _RING
                    yield payload[repeated:]
                    repeated = len(payload)
                if (gap := missing - (repeated - len(payload))) > 0:
                    self._next = (self._next + gap) % _RING
                    yield gap


class Connections(Generic[T]):
    """A view's state per connection: made by `make`; if there are more than `most`, the least recently used is dropped.

    A connection is identified by its network namespace and endpoints, not by its socket or container: the listening
    socket has the first packets of the connections that it accepts, and may have been created in another cgroup. A new
    SYN starts a new connection between the same endpoints.
    """

    def __init__(self, make: Callable[[], T], most: int = 4096) -> None:
        self._make = make
        self._most = most
        self._known: OrderedDict[Hashable, tuple[int, T]] = OrderedDict()

    def of(self, packet: Packet) -> T:
        """The state of the packet's connection."""
        key = ends_of(packet)
        first, found = self._known.get(key, (-1, None))
        opens = packet.flags & (SYN | ACK) == SYN
        if found is None or (opens and first != packet.sequence):
            first, found = packet.sequence if opens else -1, self._make()
            self._known[key] = first, found
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return found

    def forget(self, packet: Packet) -> None:
        """Drops the connection; the next packet between these endpoints starts another one."""
        self._known.pop(ends_of(packet), None)


def ends_of(packet: Packet) -> Hashable:
    """A key that identifies a connection among all current ones of its node."""
    return packet.network_namespace, packet.local, packet.local_port, packet.remote, packet.remote_port
