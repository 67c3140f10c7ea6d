"""Packets as the programs send them (bpf/include/gadget/packet.h), one by one.

The trap: what a packet carries may come in several pieces, each a packet here with the sequence number that fits, and
its end may not have been sent at all: `missing` says how many bytes of it were not.
"""

from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.events.batch import Batch

TCP, UDP = 6, 17
FIN, SYN, RST, ACK = 1, 2, 4, 16


class Packet(NamedTuple):
    """One packet of a socket."""

    time: int
    """boot time in ns"""
    head: bytes
    """struct gadget_record: the process and the container of the socket"""
    exec_id: bytes
    """struct gadget_exec"""
    socket: int
    """no other socket of the node ever has this number"""
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
    """the inode number; 0: unknown"""


_NUMBERS = ("timestamp", "socket", "local_port", "remote_port", "protocol", "outgoing", "flags", "sequence")


def packets(batch: Batch) -> Iterator[Packet]:
    """The packets of a batch, in the order in which they came."""
    if not len(batch):
        return
    record = batch.gadget.sent or batch.gadget.record
    end, after = record.field("exec_id").offset, record.field("socket").offset
    spans = batch.spans(record.field("payload"))
    memory = batch.buffer.bytes.tobytes()
    columns = {name: batch.raw(name).tolist() for name in (*_NUMBERS, "network_namespace")}
    # numpy takes NULs off the end of byte strings.
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
        time, socket, local_port, remote_port, protocol, outgoing, flags, sequence, netns = numbers
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
        )
