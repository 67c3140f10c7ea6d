"""View `dns`: one row for each query, from the packets of the query and its response, read with dnspython.

A message is small, but its text need not be: names point to each other, and a record may hold 64 KiB. So the
amount that is kept of a response is limited, and every error that hostile bytes may cause is caught.
"""

import struct
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.tcp import UDP, Connections, Packet, Stream, ends_of, packets
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.views import PendingItems, RowWriter, Stage, Value, asks_for_process, has_process

# Reads DNS messages with dnspython, and catches every error that hostile bytes may cause.


NOANSWER, MALFORMED = -1, -2
_HEAD = struct.Struct(">HHHHHH")
_ADDRESSES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_MOST_RECORDS = 64
_MOST_TEXT = 400


@dataclass(frozen=True)
class DnsMessage:
    """One message. `rcode` is MALFORMED if it cannot be parsed; the fields that could be read are set nevertheless."""

    id: int = 0
    flags: int = 0
    rcode: int = MALFORMED
    name: str | None = None
    type: int = 0
    size: int = 0
    addresses: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    @property
    def is_answer(self) -> bool:
        return bool(self.flags & dns.flags.QR)

    @property
    def question(self) -> tuple[str | None, int]:
        """The name and type in question, for comparison. Case in names is ignored: it is random, or varied for
        security."""
        return (None if self.name is None else self.name.lower()), self.type


def read_message(wire: bytes) -> DnsMessage:
    """Parses a message. Never raises."""
    if len(wire) < _HEAD.size:
        return DnsMessage(size=len(wire))
    number, flags, *_ = _HEAD.unpack_from(wire)
    try:
        parsed = dns.message.from_wire(wire, ignore_trailing=True, question_only=not flags & dns.flags.QR)
        return _read(parsed, number, flags, len(wire))
    except (dns.exception.DNSException, ValueError, LookupError, struct.error, NotImplementedError):
        # The message is someone else's and broken; its row says so.
        return _question_only(wire, number, flags)


def _question_only(wire: bytes, number: int, flags: int) -> DnsMessage:
    broken = DnsMessage(id=number, flags=flags, size=len(wire))
    try:
        parsed = dns.message.from_wire(wire, question_only=True, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, LookupError, struct.error, NotImplementedError):
        return broken
    name, kind = _question(parsed)
    return DnsMessage(id=number, flags=flags, name=name, type=kind, size=len(wire))


def _read(parsed: dns.message.Message, number: int, flags: int, size: int) -> DnsMessage:
    name, kind = _question(parsed)
    addresses: list[str] = []
    answers: list[str] = []
    for rrset in parsed.answer if flags & dns.flags.QR else ():
        for data in rrset:
            if len(answers) == _MOST_RECORDS:
                break
            text = data.to_text()
            if rrset.rdtype in _ADDRESSES:
                addresses.append(text)
            answers.append(f"{dns.rdatatype.to_text(rrset.rdtype)} {text}"[:_MOST_TEXT])
    return DnsMessage(number, flags, int(parsed.rcode()), name, kind, size, addresses, answers)


def _question(parsed: dns.message.Message) -> tuple[str | None, int]:
    if not parsed.question:
        return None, 0
    first = parsed.question[0]
    return first.name.to_text(omit_final_dot=True), int(first.rdtype)


# View `dns`: makes one row for each query from the packets of the query and its response.


_UNKNOWN = (1 << 64) - 1
_CLIENT, _SERVER = 1, 2


@dataclass(eq=False)
class _Query:
    """A query that waits for its response."""

    packet: Packet
    message: DnsMessage
    retries: int = 0


class _Messages:
    """The messages in one direction of a TCP connection: each follows its length in two bytes."""

    def __init__(self) -> None:
        self._stream = Stream()
        self._bytes = b""

    def feed(self, packet: Packet) -> list[bytes]:
        for piece in self._stream.feed(packet):
            # After a gap the start of the next message is unknown; most messages start with a packet.
            self._bytes = b"" if isinstance(piece, int) else self._bytes + piece
        found = []
        while len(self._bytes) >= 2 and len(self._bytes) >= (size := 2 + int.from_bytes(self._bytes[:2])):
            found.append(self._bytes[2:size])
            self._bytes = self._bytes[size:]
        return found


class Dns(Stage):
    """The view's stage (stage.py). The parameter `wait` is the longest time that a query waits for its response."""

    def __init__(self, gadget: Gadget, parameters: Mapping[str, Any]) -> None:
        self._writer = RowWriter(gadget.record, asks_for_process(parameters))
        self._wait_ns = int(parameters["wait"]) * 1_000_000_000
        self._open: dict[tuple[Hashable, int], list[_Query]] = {}
        self._waiting: PendingItems[_Query] = PendingItems()
        self._connections = Connections(lambda: (_Messages(), _Messages()))
        self._now = 0

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        for packet in packets(sent):
            if packet.protocol == UDP:
                self._take(packet, packet.payload)
            else:
                for wire in self._connections.of(packet)[packet.outgoing].feed(packet):
                    self._take(packet, wire)
        self._now = max(self._now, complete_until)
        for query in self._waiting.expired(complete_until - self._wait_ns):
            self._give_up(query, max(query.packet.time, min(query.packet.time + self._wait_ns, complete_until)))
        return self._writer.take()

    def rest(self) -> bytes:
        for query in self._waiting.rest():
            self._give_up(query, max(self._now, query.packet.time))
        return self._writer.take()

    def _take(self, packet: Packet, wire: bytes) -> None:
        message = read_message(wire)
        if message.is_answer:
            self._answer(packet, message)
        elif message.rcode == MALFORMED:
            self._write(packet, packet.time, message, None, MALFORMED, _CLIENT if packet.outgoing else _SERVER)
        else:
            self._ask(packet, message)

    def _ask(self, packet: Packet, message: DnsMessage) -> None:
        waiting = self._open.setdefault((_conversation(packet), message.id), [])
        for query in waiting:
            if _remote(query.packet) == _remote(packet):
                if query.message.question == message.question:
                    query.retries += 1
                    return
                self._give_up(query, packet.time)
                break
        query = _Query(packet, message)
        self._open.setdefault((_conversation(packet), message.id), []).append(query)
        self._waiting.add(query, packet.time)

    def _answer(self, packet: Packet, message: DnsMessage) -> None:
        role = _SERVER if packet.outgoing else _CLIENT
        waiting = self._open.get((_conversation(packet), message.id), [])
        query = next((query for query in waiting if _remote(query.packet) == _remote(packet)), None)
        if query is None and role == _CLIENT and len(waiting) == 1:
            query = waiting[0]
        if query is not None:
            self._close(query)
        self._write(packet, packet.time, message, query, message.rcode, role)

    def _give_up(self, query: _Query, time: int) -> None:
        self._close(query)
        role = _CLIENT if query.packet.outgoing else _SERVER
        self._write(query.packet, time, query.message, query, NOANSWER, role)

    def _close(self, query: _Query) -> None:
        self._waiting.done(query)
        key = _conversation(query.packet), query.message.id
        self._open[key].remove(query)
        if not self._open[key]:
            del self._open[key]

    def _write(
        self, packet: Packet, time: int, message: DnsMessage, query: _Query | None, rcode: int, role: int
    ) -> None:
        """Writes a row for `packet`, which has the response or, if there is none, the query."""
        asked = query.packet if query else packet
        known = asked if has_process(asked.head) else packet
        named = message if message.name is not None or query is None else query.message
        ends = (packet.local, packet.local_port), (packet.remote, packet.remote_port)
        (client, client_port), (server, server_port) = ends if role == _CLIENT else ends[::-1]
        values: dict[str, Value] = {
            "exec_id": known.exec_id,
            "latency": max(0, time - asked.time) if query else _UNKNOWN,
            "server": server,
            "server_port": server_port,
            "client": client,
            "client_port": client_port,
            "protocol": packet.protocol,
            "family": packet.family,
            "type": named.type,
            "rcode": rcode,
            "role": role,
            "retries": query.retries if query else 0,
            "size": message.size if message.is_answer else _UNKNOWN,
            "id": message.id,
            "flags": message.flags,
            "name": named.name,
            "addresses": message.addresses if message.is_answer else None,
            "answers": message.answers if message.is_answer else None,
        }
        self._writer.add(known.head, time, values)


def _conversation(packet: Packet) -> Hashable:
    """A key that a query and its response share. For TCP it is not the socket: the first packets have the listening
    one."""
    return packet.socket if packet.protocol == UDP else ends_of(packet)


def _remote(packet: Packet) -> tuple[bytes, int]:
    return packet.remote, packet.remote_port
