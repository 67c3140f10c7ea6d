"""View `dns`: makes one row for each query from the packets of the query and its response.

A query is matched to its response by socket, ID and server. The trap: some resolvers send one query with one ID to
several servers at once, and addresses may be translated on the way. So a response is matched to the query that was sent
to its sender; if there is none, a client's response is matched to the only pending query.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.dns_message import MALFORMED, NOANSWER, DnsMessage, read_message
from kubectl_gadget.protocols.packets import UDP, Packet, packets
from kubectl_gadget.protocols.pending import PendingItems
from kubectl_gadget.protocols.tcp import Connections, Stream, ends_of
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.row_writer import RowWriter, Value, asks_for_process, has_process
from kubectl_gadget.rows.stage import Stage

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
