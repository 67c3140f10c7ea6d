"""The tree of processes with what each of them did, drawn at the end of a run.

    default/xwing spaceship
    └─ 4711 /bin/sh -c …                       exit 0
       └─ 4712 /usr/bin/vi /etc/passwd         exit 0
          ├─ 📬 open /etc/passwd
          └─ 📝 write /etc/passwd 1275 bytes, 3 times

The trap: a run may be long. What was the same as the one before is counted, and of a process no more than so many
lines are kept; how many are left out is said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.events.exec_id import ExecId
from kubectl_gadget.events.linux_process import signal_name
from kubectl_gadget.observe.happening import PolicyEvent, ProcessEvent
from kubectl_gadget.observe.lines import action, command_text
from kubectl_gadget.observe.process import Process
from kubectl_gadget.observe.story import Told

MOST_ACTIONS = 1000
"""Of one process."""
MOST_PROCESSES = 20_000

Key = tuple[str, ExecId]


@dataclass
class Branch:
    """One program in the tree."""

    process: Process
    pid: int
    actions: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    left_out: int = 0
    ending: str = ""
    children: list["Branch"] = field(default_factory=list)


class Tree:
    """`add` what is told, then draw `lines`."""

    def __init__(self) -> None:
        self._branches: dict[Key, Branch] = {}
        self._roots: dict[str, list[Branch]] = {}
        self._left_out = 0

    def add(self, told: Told) -> None:
        """Takes one thing that happened."""
        branch = self._branch(told.process)
        if branch is None:
            self._left_out += 1
            return
        happening = told.happening
        if isinstance(happening, ProcessEvent):
            if happening.operation == "exit":
                ended = signal_name(happening.signal) if happening.signal else f"exit {happening.code}"
                branch.ending = ended
            return
        text = action(told)
        if isinstance(happening, PolicyEvent) and happening.policy:
            text += f" ({happening.policy})"
        self._act(branch, text)

    def lines(self) -> Iterator[str]:
        """The whole tree, a line each."""
        for place in sorted(self._roots):
            yield place
            yield from _draw(self._roots[place], "")
        if self._left_out:
            yield f"{self._left_out:,} events of further processes are left out"

    def _branch(self, process: Process) -> Branch | None:
        key = (process.node, process.id)
        found = self._branches.get(key)
        if found is not None:
            return found
        if len(self._branches) >= MOST_PROCESSES:
            return None
        branch = self._branches[key] = Branch(process, process.id.pid)
        parent = process.parent and self._branch(process.parent)
        same_place = parent and parent.process.container == process.container
        siblings = parent.children if parent and same_place else self._roots.setdefault(_place(process), [])
        siblings.append(branch)
        return branch

    @staticmethod
    def _act(branch: Branch, text: str) -> None:
        if branch.actions and branch.actions[-1] == text:
            branch.counts[-1] += 1
        elif len(branch.actions) < MOST_ACTIONS:
            branch.actions.append(text)
            branch.counts.append(1)
        else:
            branch.left_out += 1


def _place(process: Process) -> str:
    container = process.container
    if not container.pod:
        return process.node
    return f"{container.namespace}/{container.pod} {container.container} on {process.node}"


def _draw(branches: Sequence[Branch], margin: str) -> Iterator[str]:
    for number, branch in enumerate(branches):
        is_last = number == len(branches) - 1
        yield f"{margin}{'└─' if is_last else '├─'} {_head(branch)}"
        below = margin + ("   " if is_last else "│  ")
        items = _actions(branch)
        for position, text in enumerate(items):
            ends = position == len(items) - 1 and not branch.children
            yield f"{below}{'└─' if ends else '├─'} {text}"
        yield from _draw(branch.children, below)


def _head(branch: Branch) -> str:
    text = f"{branch.pid} {command_text(branch.process)}"
    return f"{text}  {branch.ending}" if branch.ending else text


def _actions(branch: Branch) -> list[str]:
    pairs = zip(branch.actions, branch.counts, strict=True)
    texts = [text if count == 1 else f"{text}, {count:,} times" for text, count in pairs]
    return [*texts, f"{branch.left_out:,} more"] if branch.left_out else texts
