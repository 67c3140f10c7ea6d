"""An HTTP/1 connection: matches responses to requests.

Responses come in the order of their requests. The trap: if messages may have been missed, the order is not reliable;
then only the last request is taken as answered, and those before it as unanswered.
"""

from collections import deque

from kubectl_gadget.protocols.http2 import Http2
from kubectl_gadget.protocols.http_exchange import Exchange, HttpRows
from kubectl_gadget.protocols.http_message import Head, Messages
from kubectl_gadget.protocols.packets import FIN, RST, Packet

_NO_BODY = (204, 304)


class Http1:
    """Takes the pieces of both directions. `successor` is set once the connection has been upgraded to HTTP/2."""

    def __init__(self, rows: HttpRows) -> None:
        self.successor: Http2 | None = None
        self._rows = rows
        self._messages = (Messages(), Messages())
        self._requests: deque[Exchange] = deque()
        self._is_tunnel = False

    def feed(self, packet: Packet, piece: bytes | int) -> None:
        """Takes a piece of the stream in the direction of `packet`, the packet that completed it."""
        if self._is_tunnel:
            return
        messages = self._messages[packet.outgoing]
        for head in messages.feed(piece):
            self._message(packet, head, messages)
            if self.successor is not None:
                self.successor.feed(packet, messages.rest())
                return

    def end(self, packet: Packet) -> None:
        waits_for_other_end = self._requests and self._requests[0].is_client != packet.outgoing
        if packet.flags & RST or (packet.flags & FIN and waits_for_other_end):
            for request in list(self._requests):
                self.give_up(request, packet.time)

    def give_up(self, exchange: Exchange, time: int) -> None:
        """Writes a request that has no response."""
        assert exchange.asked is not None
        self._requests.remove(exchange)
        self._rows.write(exchange, exchange.asked, time)

    def _message(self, packet: Packet, head: Head, messages: Messages) -> None:
        if head.method:
            request = Exchange(self, packet.outgoing, packet, head, protocol=_protocol(head), request_bytes=_body(head))
            self._requests.append(request)
            self._rows.waiting.add(request, packet.time)
            messages.body(-1 if head.is_chunked else head.length or 0)
            return
        if head.status // 100 == 1 and head.status != 101:
            messages.body(0)
            return
        exchange = self._answered(packet, head)
        exchange.answer, exchange.response_bytes = head, _body(head)
        exchange.protocol = _protocol(head) or exchange.protocol
        if head.status == 101 and (head.text("upgrade") or "").lower() == "h2c" and exchange.asked is not None:
            self.successor = Http2(self._rows)
            self.successor.continue_after_upgrade(exchange)
            return
        method = exchange.request.method
        if head.status == 101 or (method == "CONNECT" and head.status // 100 == 2):
            self._is_tunnel = True
        elif head.status in _NO_BODY or method == "HEAD":
            messages.body(0)
        else:
            messages.body(-1 if head.is_chunked else head.length)
        self._rows.write(exchange, packet, packet.time)

    def _answered(self, packet: Packet, head: Head) -> Exchange:
        """The exchange that this response belongs to; a new one without a request if there is none."""
        while head.after_gap and len(self._requests) > 1:
            self.give_up(self._requests[0], packet.time)
        return self._requests.popleft() if self._requests else Exchange(self, not packet.outgoing, None, Head())


def _protocol(head: Head) -> str:
    return head.version and f"HTTP/{head.version}"


def _body(head: Head) -> int | None:
    if head.length is not None:
        return head.length
    return 0 if head.method and not head.is_chunked else None
