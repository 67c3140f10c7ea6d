"""Reads packets from the records of BPF programs (bpf/include/gadget/network/packet.h), one by one.

The trap: a packet's payload may come in several records, each a Packet here with the matching sequence number, and its
end may not have been sent at all: `missing` is the number of bytes that were not sent.
"""

from collections.abc import Iterator
from typing import NamedTuple

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


_NUMBERS = ("timestamp", "socket", "local_port", "remote_port", "protocol", "outgoing", "flags", "sequence")


def packets(batch: Batch) -> Iterator[Packet]:
    """The packets of a batch, in order of arrival."""
    if not len(batch):
        return
    record = batch.gadget.sent or batch.gadget.record
    end, after = record.field("exec_id").offset, record.field("socket").offset
    spans = batch.spans(record.field("payload"))
    memory = batch.buffer.bytes.tobytes()
    columns = {name: batch.raw(name).tolist() for name in (*_NUMBERS, "network_namespace")}
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
