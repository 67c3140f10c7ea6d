"""The formats of registry.STORY that only stories have, and the tree.

All other formats print the story's flat columns, like any gadget's rows (output/output_formats.py). The trap: the
strict schema has no event for a gap, so with it only the summary and standard error report gaps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TextIO

from kubectl_gadget.observe.printing.line_options import LineOptions
from kubectl_gadget.observe.printing.lines import line
from kubectl_gadget.observe.printing.messages import Details, gap_message, message
from kubectl_gadget.observe.printing.sinks import TextSink, TreeSink
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.output.terminal import Terminal, wants_color


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


def _json(output: StoryOutput, stream: TextIO, terminal: Terminal | None) -> Sink:
    return TextSink(stream, lambda entry: message(entry, output.ancestors, output.details), gap_message)


def _strict(output: StoryOutput, stream: TextIO, terminal: Terminal | None) -> Sink:
    return TextSink(stream, lambda entry: message(entry, output.ancestors, output.details, strict=True))


MAKERS: Mapping[str, Callable[[StoryOutput, TextIO, Terminal | None], Sink]] = {
    "compact": _compact,
    "json": _json,
    "jsonpb": _strict,
}
"""By name of the format."""
