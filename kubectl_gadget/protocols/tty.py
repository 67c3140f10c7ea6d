"""View `tty`: joins the pieces that programs write to and read from terminals into lines.

A line belongs to one process, terminal and direction. A prompt has no newline, so text that stays unfinished for half a
second by the node's clock is also written as a row.
"""

from collections.abc import Mapping

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.views import RowWriter, Stage

_WAIT_NS = 500_000_000
_MOST_BYTES = 4096
"""Longer lines are split into several rows."""


_Key = tuple[int, ...]
"""A cgroup, a PID, a terminal and a direction."""


class _Line:
    """An unfinished line. `head` is its first piece's."""

    def __init__(self, head: bytes, timestamp: int) -> None:
        self.head = head
        self.timestamp = timestamp
        self.text = bytearray()


class Tty(Stage):
    """The view's stage (stage.py). With the parameter `calls`: one row per call, not joined to lines."""

    def __init__(self, gadget: Gadget, parameters: Mapping[str, object]) -> None:
        assert gadget.sent is not None
        self._record = gadget.sent
        self._head_bytes = self._record.field("bytes").offset
        self._writer = RowWriter(gadget.record)
        self._whole = bool(parameters.get("calls"))
        self._lines: dict[_Key, _Line] = {}

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        self._take(sent)
        for key, line in list(self._lines.items()):
            if line.timestamp + _WAIT_NS <= complete_until:
                self._end(key)
        return self._writer.take()

    def rest(self) -> bytes:
        for key in list(self._lines):
            self._end(key)
        return self._writer.take()

    def _take(self, sent: Batch) -> None:
        if not len(sent):
            return
        spans = sent.spans(self._record.field("text"))
        memory = sent.buffer.bytes.tobytes()
        names = ("timestamp", "cgroup", "pid", "terminal", "direction", "bytes")
        columns = [sent.raw(name).tolist() for name in names]
        places = zip(
            *(sent.starts.tolist(), spans.starts.tolist(), spans.lengths.tolist(), spans.readable.tolist()), strict=True
        )
        for (start, text, length, readable), (timestamp, *key, bytes) in zip(
            places, zip(*columns, strict=True), strict=True
        ):
            head = memory[start : start + self._head_bytes]
            if self._whole or not readable or length < bytes:
                # A truncated piece becomes its own row, with its original number of bytes.
                self._end(tuple(key))
                known = memory[text : text + length] if readable else None
                self._add(tuple(key), head, timestamp, known, bytes)
            else:
                self._join(tuple(key), head, timestamp, memory[text : text + length])

    def _join(self, key: _Key, head: bytes, timestamp: int, text: bytes) -> None:
        for piece in text.splitlines(keepends=True):
            line = self._lines.setdefault(key, _Line(head, timestamp))
            line.text += piece
            if piece.endswith((b"\n", b"\r")) or len(line.text) >= _MOST_BYTES:
                self._end(key)

    def _end(self, key: _Key) -> None:
        if line := self._lines.pop(key, None):
            self._add(key, line.head, line.timestamp, bytes(line.text), len(line.text))

    def _add(self, key: _Key, head: bytes, timestamp: int, text: bytes | None, size: int) -> None:
        _, _, terminal, direction = key
        self._writer.add(head, timestamp, {"bytes": size, "terminal": terminal, "direction": direction, "text": text})
