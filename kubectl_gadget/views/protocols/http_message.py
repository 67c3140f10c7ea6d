"""The messages in one direction of an HTTP/1 connection: h11 reads their heads, their bodies are passed over.

Of large packets only the beginning is there, so a body is counted, not read. The trap: where a piece is missing that
tells how long a body is, nothing tells where the next message begins; it is then looked for at the beginning of a
packet, where practically all do, and said to have been looked for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import h11

MOST_HEAD = 64 << 10
_START = re.compile(rb"(?:[A-Z]{3,16} \S|HTTP/1\.[01] \d)")
_REQUEST = re.compile(rb"([A-Z]{3,16}) (\S{1,8192})")
_RESPONSE = re.compile(rb"HTTP/1\.[01] (\d{3})")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MOST_CHUNK_LINE = 4096


@dataclass
class Head:
    """What a request or a response begins with. `method` is empty in a response, `status` 0 in a request; either may be
    unknown."""

    method: str = ""
    target: str = ""
    status: int = 0
    version: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """by lower-case name; of several only the last"""
    after_gap: bool = False
    """messages before it may have been missed"""
    is_whole: bool = True
    """all of its headers are known"""

    def text(self, name: str) -> str | None:
        return self.headers.get(name)

    @property
    def length(self) -> int | None:
        """Bytes of the body, None when the head does not say."""
        value = self.headers.get("content-length", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None

    @property
    def is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower().endswith("chunked")


def read_head(data: bytes) -> Head | None:
    """A head that ends with an empty line; None when it is none."""
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
    """What can be said of a head that breaks the rules, or that h11 refuses: it knows no coding but chunked."""
    pairs = (line.partition(b":") for line in data.split(b"\n")[1:])
    headers = {_text(name.strip()).lower(): _text(value.strip()) for name, colon, value in pairs if colon}
    if found := _RESPONSE.match(data):
        return Head(status=int(found[1]), headers=headers)
    found = _REQUEST.match(data)
    return Head(method=_text(found[1]), target=_text(found[2]), headers=headers) if found else None


def _text(data: bytes | bytearray) -> str:
    return bytes(data).decode("utf-8", "surrogateescape")


class Messages:
    """Takes the pieces of a stream (tcp.Stream), gives the heads in it.

    `body` is to be called after each head with the length of what follows it: a number, -1 for chunks, None when
    only the next message's beginning tells.
    """

    def __init__(self) -> None:
        self._bytes = b""
        self._skip = 0
        self._in_chunks = False
        self._in_trailer = False
        self._lost = True
        self._gap = False

    def feed(self, piece: bytes | int) -> Iterator[Head]:
        """The heads that end in this piece."""
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
        """What follows the head that came last."""
        if length is None:
            self._lose(gap=False)
        elif length < 0:
            self._in_chunks = True
        else:
            self._skip = length

    def rest(self) -> bytes:
        """Takes out what came behind the head that came last."""
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
        """Passes over the head of a chunk, or a line behind the last one. False: it is not whole yet, or none."""
        if self._in_trailer:
            line, newline, behind = self._bytes.partition(b"\n")
            if not newline:
                if len(line) > MOST_HEAD:
                    self._lose(gap=True)
                return False
            self._bytes = behind
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
