"""A request with its response as trace http reports it, for all versions of HTTP, and its row.

A row may be written when the response comes, when waiting for it has ended, and again if it comes after that.
"""

from dataclasses import dataclass, field
from typing import Protocol

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.tcp import Packet
from kubectl_gadget.rows.views import PendingItems, RowWriter, Value, has_process

_UNKNOWN = (1 << 64) - 1
_UNKNOWN_STATUS = (1 << 32) - 1
_CLIENT, _SERVER = 1, 2


@dataclass
class Head:
    """The head of a request or a response. `method` is empty in a response, `status` is 0 in a request; either may be
    unknown."""

    method: str = ""
    target: str = ""
    status: int = 0
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """by lower-case name; of repeated headers only the last"""
    after_gap: bool = False
    """earlier messages may have been missed"""
    is_whole: bool = True
    """all of its headers are known"""

    def text(self, name: str) -> str | None:
        return self.headers.get(name)

    @property
    def length(self) -> int | None:
        """Length of the body in bytes; None if the head does not give it."""
        value = self.headers.get("content-length", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None

    @property
    def is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower().endswith("chunked")


class Waits(Protocol):
    """The connection that an exchange belongs to."""

    def give_up(self, exchange: "Exchange", time: int) -> None:
        """The exchange has waited long enough."""


@dataclass(eq=False)
class Exchange:
    """A request and its response; unknown parts are empty."""

    owner: Waits
    is_client: bool
    """seen at the client's end"""
    asked: Packet | None
    """the packet with the request"""
    request: Head
    answer: Head | None = None
    protocol: str = ""
    request_bytes: int | None = None
    """length of the request's body"""
    response_bytes: int | None = None
    may_be_answered: bool = False
    """a response may have been missed"""
    grpc_status: int | None = None
    grpc_message: str | None = None
    reset: str | None = None
    """the reason why the stream ended early"""
    stream: int = 0
    """the stream's ID in HTTP/2"""
    idle: int = _UNKNOWN
    """how long the connection was silent before the request"""


class HttpRows:
    """Keeps exchanges that wait, and writes the rows of the others."""

    def __init__(self, gadget: Gadget, of_processes: bool) -> None:
        self._writer = RowWriter(gadget.record, of_processes)
        self.waiting: PendingItems[Exchange] = PendingItems()
        """exchanges without a response so far"""
        self.answering: PendingItems[Exchange] = PendingItems()
        """exchanges whose response has started and is reported when it ends"""
        self.errno = 0
        """why exchanges end now that are not answered: their connection was reset"""
        self.take = self._writer.take

    def write(self, exchange: Exchange, packet: Packet, time: int) -> None:
        """Writes a row for `packet`, which has the response or, if there is none, the request."""
        self.waiting.done(exchange)
        self.answering.done(exchange)
        asked, request, answer = exchange.asked, exchange.request, exchange.answer
        known = asked if asked and has_process(asked.head) else packet
        values: dict[str, Value] = {
            "exec_id": known.exec_id,
            "latency": max(0, time - asked.time) if asked else _UNKNOWN,
            "idle": exchange.idle,
            "errno": self.errno if answer is None else 0,
            "request_bytes": _UNKNOWN if exchange.request_bytes is None else exchange.request_bytes,
            "response_bytes": _UNKNOWN if exchange.response_bytes is None else exchange.response_bytes,
            "grpc_status": _UNKNOWN if exchange.grpc_status is None else exchange.grpc_status,
            "local": packet.local,
            "local_port": packet.local_port,
            "remote": packet.remote,
            "remote_port": packet.remote_port,
            "role": _CLIENT if exchange.is_client else _SERVER,
            "status": _status(exchange),
            "protocol": exchange.protocol or None,
            "method": request.method or None,
            "target": request.target or None,
            "host": request.text("host"),
            "agent": request.text("user-agent"),
            "content_type": answer.text("content-type") if answer else None,
            "location": answer.text("location") if answer else None,
            "grpc_message": exchange.grpc_message,
            "reset": exchange.reset,
            "traceparent": request.text("traceparent"),
        }
        self._writer.add(known.head, time, values)


def _status(exchange: Exchange) -> int:
    """The response's status; 0: there was no response."""
    if exchange.answer is None:
        return _UNKNOWN_STATUS if exchange.may_be_answered else 0
    return exchange.answer.status or _UNKNOWN_STATUS
