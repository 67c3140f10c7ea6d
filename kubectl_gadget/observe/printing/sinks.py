"""Sinks for a story: lines, JSON, or a tree.

The trap: emojis are one or two cells wide, depending on the terminal; nothing here relies on either.
"""

from collections.abc import Callable
from typing import TextIO

from kubectl_gadget.events.rows import Rows
from kubectl_gadget.observe.printing.process_tree_drawing import Tree
from kubectl_gadget.observe.row import entries_of
from kubectl_gadget.observe.story import StoryEvent
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.output.tables.widths import cut
from kubectl_gadget.output.terminal import Terminal


class TextSink(StreamSink):
    """`text_of` returns the text of an event without its line end; `gap_text` that of a period without events."""

    def __init__(
        self,
        stream: TextIO,
        text_of: Callable[[StoryEvent], str],
        gap_text: Callable[[str, float, int], str] | None = None,
    ) -> None:
        super().__init__(stream)
        self._text_of = text_of
        self._gap_text = gap_text

    def write_chunk(self, rows: Rows) -> None:
        self._stream.write("".join(f"{self._text_of(entry)}\n" for entry in rows.collect(entries_of)))

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        if self._gap_text is not None:
            self._stream.write(self._gap_text(node, seconds, until_ns) + "\n")


class TreeSink(StreamSink):
    """Draws the tree at the end; on a terminal, lines are truncated, since a wrapped line would break the branches."""

    def __init__(self, stream: TextIO, terminal: Terminal | None = None) -> None:
        super().__init__(stream)
        self._terminal = terminal
        self._tree = Tree()

    def write_chunk(self, rows: Rows) -> None:
        for entry in rows.collect(entries_of):
            self._tree.add(entry)

    def close(self) -> None:
        width = self._terminal.width() if self._terminal else 0
        for line in self._tree.lines():
            self._stream.write((cut(line, width) if width else line) + "\n")
        self.flush()
