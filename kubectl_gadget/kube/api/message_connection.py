"""A client's websocket that passes each binary message on as soon as it is read, without a task or queue of its own.

The library's parser, queue and wake-up take 30 µs for a message, of which a client of thousands of nodes gets ten
thousand a second. So frames are found here, and only those that are not a whole binary message go to the library:
the handshake, control frames, fragments and everything that is wrong. The trap: the library must get whole frames only,
or it would take a message that follows for the rest of the frame before.
"""

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import OPEN, Event

_END_OF_HEAD = b"\r\n\r\n"
_MOST_HEAD = 1 << 20
_BINARY = 0x82
"""First byte of a frame that is a whole binary message."""


class MessageConnection(ClientConnection):
    """Messages that come before `listen` are kept for it."""

    # With more than 30 attributes, the dictionary of a connection takes 1.6 KB instead of 0.3.
    __slots__ = (
        "_early",
        "_fragments",
        "_head",
        "_held",
        "_is_fragmented",
        "_is_refused",
        "_lost",
        "_missing",
        "_take",
    )

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._early: list[bytes] = []
        self._take: Callable[[bytes], object] = self._early.append
        self._lost: Callable[[], object] = lambda: None
        self._head: bytes | None = b""
        """what was read of the HTTP response; None: it was read"""
        self._is_refused = False
        self._held: list[bytes] = []
        """the beginning of a frame"""
        self._missing = 0
        """bytes that it needs at least"""
        self._fragments: list[bytes] = []
        self._is_fragmented = False

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        # An empty deque takes 0.8 KB. One is for a few waiters, and the other is not used here.
        self.drain_waiters = []  # type: ignore[assignment]
        self.recv_messages.frames.queue = []  # type: ignore[assignment]

    def listen(self, take: Callable[[bytes], object], lost: Callable[[], object]) -> None:
        """Passes each message on from now on, and calls `lost` when no more will come."""
        self._take, self._lost = take, lost
        for message in self._early:
            take(message)
        self._early.clear()
        if self.connection_lost_waiter.done():
            lost()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._head is not None:
            head, mark, data = (self._head + data).partition(_END_OF_HEAD)
            if not mark and len(head) < _MOST_HEAD:
                self._head = head
                return
            self._head = None
            super().data_received(head + mark)
            self._is_refused = self.protocol.state is not OPEN
        elif self._held:
            self._held.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._held)
            self._held.clear()
        if self._is_refused:
            super().data_received(data)  # why
            return
        start, size = 0, len(data)
        while start < size:
            body, end = _frame(data, start)
            if end > size:
                self._held, self._missing = [data[start:] if start else data], end - size
                return
            if data[start] == _BINARY and not data[start + 1] & 0x80 and not self._is_fragmented:
                self._take(data[body:end])
            else:
                super().data_received(data[start:end])
            start = end

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        if self._head:
            super().data_received(self._head)
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._lost()
        # The listener refers to this connection, and garbage may not be looked for where it is (run/live_run.py).
        self._take, self._lost = self._early.append, lambda: None

    def process_event(self, event: Event) -> None:
        """See the library: takes a frame that it has parsed."""
        if self.response is None or not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        self._fragments.append(bytes(event.data))
        self._is_fragmented = not event.fin
        if event.fin:
            message = b"".join(self._fragments)
            self._fragments.clear()
            self._take(message)


def _frame(data: bytes, start: int) -> tuple[int, int]:
    """Returns where the body of a frame begins, and where the frame ends, at least if its head is not complete."""
    body = start + 2
    if body > len(data):
        return body, body
    length = data[start + 1]
    if length & 0x80:  # servers may not mask, which the library refuses
        body, length = body + 4, length & 0x7F
    if length < 126:
        return body, body + length
    extra = 2 if length == 126 else 8
    if start + 2 + extra > len(data):
        return start + 2 + extra, start + 2 + extra
    return body + extra, body + extra + int.from_bytes(data[start + 2 : start + 2 + extra])
