"""Reads packets from the records of BPF programs (bpf/include/gadget/network/packet.h), one by one.

A packet's payload may come in several records, each a Packet here with the matching sequence number, and its end may
not have been sent at all: `missing` is the number of bytes that were not sent.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from kubectl_gadget.rows.batch import Batch

TCP, UDP = 6, 17
FIN, SYN, RST, ACK = 1, 2, 4, 16


class Packet(NamedTuple):
    """One packet of a socket."""

    time: int
    """boot time in ns"""
    head: bytes
    """struct gadget_record: process and container of the socket"""
    exec_id: bytes
    """struct gadget_exec"""
    socket: int
    """a number that no other socket of the node ever has"""
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    protocol: int
    outgoing: bool
    flags: int
    sequence: int
    payload: bytes
    missing: int
    network_namespace: int = 0
    """its inode number; 0: unknown"""
    family: int = 0
    """of the socket: AF_INET, AF_INET6, AF_PACKET or AF_XDP; 0: unknown"""


_NUMBERS = ("timestamp", "socket", "local_port", "remote_port", "protocol", "outgoing", "flags", "sequence")


def packets(batch: Batch) -> Iterator[Packet]:
    """The packets of a batch, in order of arrival."""
    if not len(batch):
        return
    record = batch.gadget.sent or batch.gadget.record
    end, after = record.field("exec_id").offset, record.field("socket").offset
    spans = batch.spans(record.field("payload"))
    memory = batch.buffer.bytes.tobytes()
    columns = {name: batch.raw(name).tolist() for name in (*_NUMBERS, "network_namespace", "family")}
    # numpy drops trailing NULs of byte strings.
    addresses = [[value.ljust(16, b"\0") for value in batch.raw(name).tolist()] for name in ("local", "remote")]
    places = zip(
        batch.starts.tolist(),
        spans.starts.tolist(),
        spans.lengths.tolist(),
        batch.raw("payload_bytes").tolist(),
        strict=True,
    )
    for start, payload, length, whole, local, remote, numbers in zip(
        *zip(*places, strict=True), *addresses, zip(*columns.values(), strict=True), strict=True
    ):
        time, socket, local_port, remote_port, protocol, outgoing, flags, sequence, netns, family = numbers
        yield Packet(
            time,
            memory[start : start + end],
            memory[start + end : start + after],
            socket,
            local,
            local_port,
            remote,
            remote_port,
            protocol,
            bool(outgoing),
            flags,
            sequence,
            memory[payload : payload + length],
            max(0, whole - length),
            netns,
            family,
        )


# Reassembles one direction of a TCP connection from packets that may be repeated, out of order, or missing.


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
        """Return the distance from the data that has been read to a sequence number; negative: before it. Numbers wrap
        at 2^32."""
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
