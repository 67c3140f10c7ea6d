"""The messages in one direction of an HTTP/1 connection: h11 parses their heads, their bodies are skipped.

Only the beginning of large packets is available, so a body is counted, not read. The trap: if the piece that gives the
length of a body is missing, the start of the next message is unknown; it is then searched at the start of each packet,
where nearly all messages start, and marked as `after_gap`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import h11

MOST_HEAD = 64 << 10
_START = re.compile(rb"(?:[A-Z-]{3,16} \S|HTTP/1\.[01] \d)")
_REQUEST = re.compile(rb"([A-Z-]{3,16}) (\S{1,8192})")
_RESPONSE = re.compile(rb"HTTP/1\.[01] (\d{3})")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MOST_CHUNK_LINE = 4096


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


def read_head(data: bytes) -> Head | None:
    """Parses a head that ends with an empty line; None if it is not one."""
    is_response = data.startswith(b"HTTP/")
    connection = h11.Connection(h11.CLIENT if is_response else h11.SERVER, MOST_HEAD)
    try:
        if is_response:
            connection.send(h11.Request(method="GET", target="/", headers=[("Host", "any")]))
        connection.receive_data(data)
        event = connection.next_event()
    except h11.ProtocolError:
        return _read_loosely(data)
    if isinstance(event, h11.Request):
        head = Head(method=_text(event.method), target=_text(event.target), version=_text(event.http_version))
    elif isinstance(event, (h11.Response, h11.InformationalResponse)):
        head = Head(status=event.status_code, version=_text(event.http_version))
    else:
        return _read_loosely(data)
    head.headers = {_text(name): _text(value) for name, value in event.headers}
    return head


def _read_loosely(data: bytes) -> Head | None:
    """Parses what is readable of a head that breaks the rules, or that h11 rejects: it supports no coding but
    chunked."""
    pairs = (line.partition(b":") for line in data.split(b"\n")[1:])
    headers = {_text(name.strip()).lower(): _text(value.strip()) for name, colon, value in pairs if colon}
    if found := _RESPONSE.match(data):
        return Head(status=int(found[1]), headers=headers)
    found = _REQUEST.match(data)
    return Head(method=_text(found[1]), target=_text(found[2]), headers=headers) if found else None


def _text(data: bytes | bytearray) -> str:
    return bytes(data).decode("utf-8", "surrogateescape")


class Messages:
    """Takes the pieces of a stream (tcp.Stream) and yields the heads in it.

    Call `body` after each head with the length of what follows: a number, -1 for chunks, None if only the start of the
    next message shows it.
    """

    def __init__(self) -> None:
        self._bytes = b""
        self._skip = 0
        self._in_chunks = False
        self._in_trailer = False
        self._lost = True
        self._gap = False

    def feed(self, piece: bytes | int) -> Iterator[Head]:
        if isinstance(piece, int):
            self._miss(piece)
            return
        if self._lost:
            if not _START.match(piece):
                return
            self._lost = False
        self._bytes += piece
        while self._bytes and not self._lost:
            if self._skip:
                skipped = min(self._skip, len(self._bytes))
                self._skip -= skipped
                self._bytes = self._bytes[skipped:]
            elif self._in_chunks:
                if not self._read_chunk():
                    return
            else:
                head = self._read_head()
                if head is None:
                    return
                yield head

    def body(self, length: int | None) -> None:
        """Sets the length of the body after the last head."""
        if length is None:
            self._lose(gap=False)
        elif length < 0:
            self._in_chunks = True
        else:
            self._skip = length

    def rest(self) -> bytes:
        """Removes and returns the bytes after the last head."""
        rest, self._bytes = self._bytes, b""
        return rest

    def _miss(self, count: int) -> None:
        if not self._lost and not self._bytes and self._skip >= count:
            self._skip -= count
        else:
            self._lose(gap=True)

    def _lose(self, gap: bool) -> None:
        self._bytes, self._skip, self._in_chunks, self._in_trailer = b"", 0, False, False
        self._lost = True
        self._gap = self._gap or gap

    def _read_head(self) -> Head | None:
        start = self._bytes.lstrip(b"\r\n")
        end = re.search(rb"\r?\n\r?\n", start)
        if end is None:
            if len(start) > MOST_HEAD or (len(start) > 16 and not _START.match(start)):
                self._lose(gap=True)
            return None
        head = read_head(start[: end.end()])
        if head is None:
            self._lose(gap=True)
            return None
        self._bytes = start[end.end() :]
        head.after_gap, self._gap = self._gap, False
        return head

    def _read_chunk(self) -> bool:
        """Skips the head of a chunk, or a line after the last chunk. False: it is incomplete, or invalid."""
        if self._in_trailer:
            line, newline, rest = self._bytes.partition(b"\n")
            if not newline:
                if len(line) > MOST_HEAD:
                    self._lose(gap=True)
                return False
            self._bytes = rest
            if not line.strip():
                self._in_trailer = self._in_chunks = False
            return True
        found = _CHUNK.match(self._bytes)
        if found is None:
            if b"\n" in self._bytes or len(self._bytes) > _MOST_CHUNK_LINE:
                self._lose(gap=True)
            return False
        size = int(found[1], 16)
        self._bytes = self._bytes[found.end() :]
        if size:
            self._skip = size + 2
        else:
            self._in_trailer = True
        return True
