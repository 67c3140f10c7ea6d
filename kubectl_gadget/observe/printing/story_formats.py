"""The formats of registry.STORY that only stories have, and the tree.

All other formats print the story's flat columns, like any gadget's rows (output/output_formats.py). The traps: the
strict schema has no event for a gap, so with it only the summary and standard error report gaps; and emojis are one or
two cells wide, depending on the terminal, so nothing here relies on either.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TextIO

from kubectl_gadget.observe.printing.line_options import LineOptions
from kubectl_gadget.observe.printing.lines import line
from kubectl_gadget.observe.printing.messages import Details, gap_message, message
from kubectl_gadget.observe.printing.process_tree_drawing import Tree
from kubectl_gadget.observe.row import entries_of
from kubectl_gadget.observe.story import StoryEvent
from kubectl_gadget.output.sink import Sink, StreamSink
from kubectl_gadget.output.tables import cut
from kubectl_gadget.output.terminal import Terminal, wants_color
from kubectl_gadget.rows.rows import Rows


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
        for text in self._tree.lines():
            self._stream.write((cut(text, width) if width else text) + "\n")
        self.flush()


@dataclass(frozen=True)
class StoryOutput:
    """Options of a story's output, in addition to those for rows of any kind."""

    format: str
    lines: LineOptions = field(default_factory=LineOptions)
    tree: bool = False
    ancestors: bool = False
    """JSON includes all known ancestors"""
    color: str = "auto"
    details: Details | None = None
    """adds members to pods in JSON"""

    @property
    def is_flat(self) -> bool:
        """Whether the flat columns of its rows are printed."""
        return self.format not in MAKERS and not self.tree

    def sink(self, stream: TextIO, terminal: Terminal | None) -> Sink:
        """The sink for the story. `terminal` is None for a pipe."""
        if self.tree:
            return TreeSink(stream, terminal)
        return MAKERS[self.format](self, stream, terminal)


def _compact(output: StoryOutput, stream: TextIO, terminal: Terminal | None) -> Sink:
    options = replace(output.lines, color=wants_color(output.color, terminal))
    return TextSink(stream, lambda entry: line(entry, options))


MAKERS: Mapping[str, Callable[[StoryOutput, TextIO, Terminal | None], Sink]] = {
    "compact": _compact,
    "json": lambda output, stream, _: TextSink(
        stream, lambda entry: message(entry, output.ancestors, output.details), gap_message
    ),
    "jsonpb": lambda output, stream, _: TextSink(
        stream, lambda entry: message(entry, output.ancestors, output.details, strict=True)
    ),
}
"""By name of the format."""
