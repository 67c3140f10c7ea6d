"""The formats of registry.STORY that only stories have, and the tree.

All other formats print the story's flat columns, like any gadget's rows (output/output_formats.py). The strict schema
has no event for a gap, so with it only the summary and standard error report gaps; and emojis are one or two cells
wide, depending on the terminal, so nothing here relies on either.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TextIO

from kubectl_gadget.linux.names import signal_name
from kubectl_gadget.observe.happening import ConnectionEvent, ProcessEvent
from kubectl_gadget.observe.lines import action, command_text, line
from kubectl_gadget.observe.messages import Details, gap_message, message
from kubectl_gadget.observe.processes import Process
from kubectl_gadget.observe.repeats import Repeats, summed
from kubectl_gadget.observe.run import LineOptions
from kubectl_gadget.observe.story import StoryEvent, entries_of
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.sink import Sink, StreamSink
from kubectl_gadget.output.tables import cut
from kubectl_gadget.output.terminal import Terminal, wants_color
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.policy_events import ExecId, PolicyEvent


class TextSink(StreamSink):
    """`text_of` returns the text of an event without its line end; `gap_text` the text of a period without events."""

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


class LinesSink(TextSink):
    """Lines for people, in which what a program repeats on the network is summed up."""

    def __init__(self, stream: TextIO, options: LineOptions) -> None:
        super().__init__(stream, lambda entry: line(entry, options))
        self._repeats = Repeats()

    def write_chunk(self, rows: Rows) -> None:
        self._write(self._repeats.add_all(rows.collect(entries_of)))

    def close(self) -> None:
        self._write(self._repeats.rest())
        self.flush()

    def _write(self, entries: Iterable[StoryEvent]) -> None:
        self._stream.write("".join(f"{self._text_of(entry)}\n" for entry in entries))


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
        """Return True if the flat columns of its rows are printed."""
        return self.format not in MAKERS and not self.tree

    def sink(self, stream: TextIO, terminal: Terminal | None) -> Sink:
        """The sink for the story. `terminal` is None for a pipe."""
        if self.tree:
            return TreeSink(stream, terminal)
        return MAKERS[self.format](self, stream, terminal)


def _compact(output: StoryOutput, stream: TextIO, terminal: Terminal | None) -> Sink:
    return LinesSink(stream, replace(output.lines, color=wants_color(output.color, terminal)))


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


# The tree of processes and what each of them did, drawn at the end of a run.


MOST_ACTIONS = 1000
"""Per process."""
MOST_PROCESSES = 20_000
_DEEPEST = 3 * 64
"""The widest margin of a line, in characters; deeper levels are not indented further."""

Key = tuple[str, ExecId]


@dataclass
class Action:
    """The actions of a program on one thing."""

    count: int = 0
    bytes: tuple[int, int] | None = None
    """sent and received by all connections; None: it is none, or has none"""

    def text(self, words: str) -> str:
        """Return the line, which begins with these words."""
        times = "" if self.count == 1 else f", {self.count:,} times"
        return words + ("" if self.bytes is None else f" {self.bytes[0]} out, {self.bytes[1]} in") + times


@dataclass
class Branch:
    """One program in the tree."""

    process: Process
    pid: int
    actions: dict[str, "Action"] = field(default_factory=dict)
    """by their texts, in the order of their first times"""
    left_out: int = 0
    ending: str = ""
    children: list["Branch"] = field(default_factory=list)


class Tree:
    """`add` events, then draw `lines`."""

    def __init__(self) -> None:
        self._branches: dict[Key, Branch] = {}
        self._roots: dict[str, list[Branch]] = {}
        self._left_out = 0

    def add(self, entry: StoryEvent) -> None:
        branch = self._branch(entry.process)
        if branch is None:
            self._left_out += 1
            return
        happening = entry.happening
        if isinstance(happening, ProcessEvent):
            if happening.operation == "exit":
                ended = signal_name(happening.signal) if happening.signal else f"exit {happening.code}"
                branch.ending = ended
            return
        if isinstance(happening, ConnectionEvent):
            self._act(branch, action(replace(entry, happening=summed(happening))), happening.sent, happening.received)
            return
        text = action(entry)
        if isinstance(happening, PolicyEvent) and happening.policy:
            text += f" ({escape(happening.policy)})"
        self._act(branch, text)

    def lines(self) -> Iterator[str]:
        for place in sorted(self._roots):
            yield place
            yield from _draw(self._roots[place])
        if self._left_out:
            yield f"{self._left_out:,} events of further processes are left out"

    def _branch(self, process: Process) -> Branch | None:
        """The process's branch; missing ones above it are added. Not recursive, since containers may fork to any
        depth."""
        missing: list[Process] = []
        above: Process | None = process
        while above is not None and (above.node, above.id) not in self._branches:
            missing.append(above)
            above = above.parent
        if len(self._branches) + len(missing) > MOST_PROCESSES:
            return None
        for new in reversed(missing):
            branch = self._branches[new.node, new.id] = Branch(new, new.id.pid)
            parent = new.parent and self._branches[new.parent.node, new.parent.id]
            same_place = parent and parent.process.container == new.container
            siblings = parent.children if parent and same_place else self._roots.setdefault(_place(new), [])
            siblings.append(branch)
        return self._branches[process.node, process.id]

    @staticmethod
    def _act(branch: Branch, text: str, sent: int | None = None, received: int | None = None) -> None:
        if text not in branch.actions and len(branch.actions) >= MOST_ACTIONS:
            branch.left_out += 1
            return
        done = branch.actions.setdefault(text, Action())
        done.count += 1
        if sent is not None:
            done.bytes = (done.bytes or (0, 0))[0] + sent, (done.bytes or (0, 0))[1] + (received or 0)


def _place(process: Process) -> str:
    container = process.container
    if not container.pod:
        return escape(process.node)
    return escape(f"{container.namespace}/{container.pod} {container.container} on {process.node}")


def _draw(branches: Sequence[Branch], margin: str = "") -> Iterator[str]:
    waiting = _level(branches, margin)
    while waiting:
        branch, margin, is_last = waiting.pop()
        yield f"{margin}{'└─' if is_last else '├─'} {_head(branch)}"
        below = margin + ("   " if is_last else "│  ") if len(margin) < _DEEPEST else margin
        items = [done.text(words) for words, done in branch.actions.items()]
        items += [f"{branch.left_out:,} more"] if branch.left_out else []
        for position, text in enumerate(items):
            ends = position == len(items) - 1 and not branch.children
            yield f"{below}{'└─' if ends else '├─'} {text}"
        waiting += _level(branch.children, below)


def _level(branches: Sequence[Branch], margin: str) -> list[tuple[Branch, str, bool]]:
    """The branches of one level in the order of a stack: the first one last."""
    return [(branch, margin, branch is branches[-1]) for branch in reversed(branches)]


def _head(branch: Branch) -> str:
    text = f"{branch.pid} {command_text(branch.process)}"
    return f"{text}  {branch.ending}" if branch.ending else text
