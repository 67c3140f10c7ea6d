"""View `http`: one row for each request of HTTP/1, made when the answer begins or when there will be none.

Answers come in the order of their requests. The trap: where messages may have been missed, that order tells no longer
which answer is whose; then only the last request is taken to be answered, and those before it to be not.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.views.http_message import Head, Messages
from kubectl_gadget.views.packets import FIN, RST, Packet, has_process, packets
from kubectl_gadget.views.row_writer import RowWriter, Value
from kubectl_gadget.views.tcp import Connections, Stream
from kubectl_gadget.views.waiting import Waiting

_UNKNOWN = (1 << 64) - 1
_CLIENT, _SERVER = 1, 2
_NO_BODY = (204, 304)


class _Direction:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.messages = Messages()
        self.has_ended = False


class _Connection:
    def __init__(self) -> None:
        self.directions = (_Direction(), _Direction())
        self.requests: deque[_Request] = deque()
        self.is_tunnel = False


class _Request:
    """A request without an answer so far."""

    def __init__(self, packet: Packet, head: Head, connection: _Connection) -> None:
        self.packet = packet
        self.head = head
        self.connection = connection


class Http:
    """A stage (stage.py). `wait_ns` is how long a request may wait for its answer."""

    def __init__(self, gadget: Gadget, wait_ns: int) -> None:
        self._writer = RowWriter(gadget.record)
        self._wait_ns = wait_ns
        self._connections = Connections(_Connection)
        self._waiting: Waiting[_Request] = Waiting()
        self._now = 0

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        for packet in packets(sent):
            self._take(packet)
        self._now = max(self._now, complete_until)
        for request in self._waiting.expired(complete_until - self._wait_ns):
            self._give_up(request, max(request.packet.time, min(request.packet.time + self._wait_ns, complete_until)))
        return self._writer.take()

    def rest(self) -> bytes:
        for request in self._waiting.rest():
            self._give_up(request, max(self._now, request.packet.time))
        return self._writer.take()

    def _take(self, packet: Packet) -> None:
        connection = self._connections.of(packet)
        if connection.is_tunnel:
            return
        direction = connection.directions[packet.outgoing]
        for piece in direction.stream.feed(packet):
            for head in direction.messages.feed(piece):
                self._message(packet, head, connection, direction.messages)
        direction.has_ended |= bool(packet.flags & FIN)
        if connection.requests:
            waits_for_other_end = connection.requests[0].packet.outgoing != packet.outgoing
            if packet.flags & RST or (packet.flags & FIN and waits_for_other_end):
                for request in list(connection.requests):
                    self._give_up(request, packet.time)
        if packet.flags & RST or all(direction.has_ended for direction in connection.directions):
            self._connections.forget(packet)

    def _message(self, packet: Packet, head: Head, connection: _Connection, messages: Messages) -> None:
        if head.method:
            request = _Request(packet, head, connection)
            connection.requests.append(request)
            self._waiting.add(request, packet.time)
            messages.body(-1 if head.is_chunked else head.length or 0)
            return
        if head.status // 100 == 1 and head.status != 101:
            messages.body(0)
            return
        answered = self._answered(packet, head, connection)
        method = answered.head.method if answered else ""
        if head.status == 101 or (method == "CONNECT" and head.status // 100 == 2):
            connection.is_tunnel = True
        elif head.status in _NO_BODY or method == "HEAD":
            messages.body(0)
        else:
            messages.body(-1 if head.is_chunked else head.length)
        self._write(packet, packet.time, answered, head)

    def _answered(self, packet: Packet, head: Head, connection: _Connection) -> _Request | None:
        """The request that this answers."""
        requests = connection.requests
        while head.after_gap and len(requests) > 1:
            self._give_up(requests[0], packet.time)
        if not requests:
            return None
        request = requests.popleft()
        self._waiting.done(request)
        return request

    def _give_up(self, request: _Request, time: int) -> None:
        self._waiting.done(request)
        request.connection.requests.remove(request)
        self._write(request.packet, time, request, None)

    def _write(self, packet: Packet, time: int, request: _Request | None, answer: Head | None) -> None:
        """A row about `packet`, which has the answer, or, without one, the request."""
        asked = request.packet if request else packet
        known = asked if has_process(asked.head) else packet
        head = request.head if request else Head()
        is_client = packet.outgoing == (answer is None)
        values: dict[str, Value] = {
            "exec_id": known.exec_id,
            "latency": max(0, time - asked.time) if request else _UNKNOWN,
            "request_bytes": _body(head) if request else _UNKNOWN,
            "response_bytes": _body(answer) if answer else _UNKNOWN,
            "local": packet.local,
            "local_port": packet.local_port,
            "remote": packet.remote,
            "remote_port": packet.remote_port,
            "role": _CLIENT if is_client else _SERVER,
            "status": answer.status if answer else 0,
            "method": head.method or None,
            "target": head.target or None,
            "host": head.text("host"),
            "agent": head.text("user-agent"),
            "content_type": answer.text("content-type") if answer else None,
            "location": answer.text("location") if answer else None,
            "version": (answer or head).version or None,
        }
        self._writer.add(known.head, time, values)


def _body(head: Head) -> int:
    if head.length is not None:
        return head.length
    return 0 if head.method and not head.is_chunked else _UNKNOWN


def make(gadget: Gadget, parameters: Mapping[str, Any]) -> Http:
    """A stage with the gadget's parameters."""
    return Http(gadget, int(parameters["wait"]) * 1_000_000_000)
