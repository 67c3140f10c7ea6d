"""Call stacks, as agents tell them (docs/protocol.md, STACKS), and the numbers that stand for them in batches.

A record bears the agent's number of a stack. `NodeStacks.numbers` puts ours in its place, which is the same for the
same stack wherever it comes from, so that rows of several nodes can be joined and added up by it. The trap: what an
agent says comes from containers, so names are texts that anybody may have chosen.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.errors import FrameError

if TYPE_CHECKING:
    from kubectl_gadget.wire.agent_messages import StackNames

NONE, LOST = 0, 1
"""Numbers of stacks that do not exist or were lost, as in bpf/include/gadget/stacks.h."""
UNKNOWN = "[unknown]"
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_MANGLED = ("_Z", "_R", "__Z", "$s", "_$s", "$S")
_MOST_STACKS = 1 << 20


class Frame(NamedTuple):
    """One call."""

    function: str
    """demangled; UNKNOWN when it is not known"""
    module: str
    """the file, or what else holds the code; empty: the kernel"""
    offset: str
    """from the function's start, or, where that is unknown, the file's, as 0x1f; empty: not told"""

    @property
    def title(self) -> str:
        """What flame graphs and tables show."""
        if self.function != UNKNOWN or not self.module:
            return self.function
        return f"[{self.file}+{self.offset}]" if self.offset else f"[{self.file}]"

    @property
    def without_offset(self) -> "Frame":
        """The same for all that lies in its function, or, where that is unknown, in its file."""
        return self._replace(offset="")

    @property
    def file(self) -> str:
        """The module's last name."""
        return self.module.rpartition("/")[2].strip("[]")

    def text(self) -> str:
        """What JSON has: `malloc+0x1f (libc.so.6)`."""
        offset = f"+{self.offset}" if self.offset else ""
        if self.function == UNKNOWN and self.module:
            return f"{UNKNOWN} ({self.file}{offset})"
        return f"{self.function}{offset} ({self.file})" if self.module else f"{self.function}{offset}"


Stack = tuple[Frame, ...]
"""Innermost call first."""

_frames: dict[str, Frame] = {}
_numbers: dict[Stack | None, int] = {(): NONE, None: LOST}
_stacks: list[Stack | None] = [(), None]


def stack_of(number: int) -> Stack | None:
    """The stack that a number in a batch means; None: it was lost."""
    return _stacks[number]


def number_of(stack: Stack) -> int:
    """Its number, the same for the same stack."""
    number = _numbers.get(stack)
    if number is None:
        number = _numbers[stack] = len(_stacks)
        _stacks.append(stack)
    return number


def read_frame(text: str) -> Frame:
    """One of a STACKS frame's `frames`."""
    found = _frames.get(text)
    if found is None:
        function, module, offset = (*text.split("\t"), "", "")[:3]
        found = _frames[text] = Frame(demangle(function), module, offset)
    return found


def demangle(name: str) -> str:
    """As it stands in the source, of C++, Rust and Swift; other names stay as they are."""
    if not name.startswith(_MANGLED):
        return name
    from pydemumble import demangle

    # What compilers append to parts of a function (.cold, .constprop.0) is not part of its name.
    return _RUST_HASH.sub("", demangle(name) or demangle(name.partition(".")[0]) or name)


class NodeStacks:
    """What one agent has told of one gadget's stacks."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._numbers: dict[int, int] = {NONE: NONE, LOST: LOST}

    def apply(self, told: "StackNames") -> None:
        """A STACKS frame. Raises FrameError when it names a frame that was not sent."""
        if not 0 <= told.first <= len(self._frames):
            raise FrameError(f"STACKS: `first` is {told.first}, after {len(self._frames)} frames")
        del self._frames[told.first :]
        self._frames += map(read_frame, told.frames)
        if len(self._numbers) > _MOST_STACKS:
            self._numbers = {NONE: NONE, LOST: LOST}
        for id, places in told.stacks.items():
            if places and not 0 <= min(places) <= max(places) < len(self._frames):
                raise FrameError(f"STACKS: the stack {id} has the frame {max(places)}, of {len(self._frames)}")
            self._numbers[id] = number_of(tuple(self._frames[place] for place in places))

    def numbers(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """Ours for the agent's. What it has not told was lost."""
        known, places = np.unique(ids, return_inverse=True)
        found = [self._numbers.get(id, LOST) for id in known.tolist()]
        return np.array(found, np.uint64)[places] if found else ids.astype(np.uint64)


def innermost(stacks: Sequence[Stack | None]) -> str:
    """The function that ran, of stacks that continue each other, the innermost first."""
    for stack in stacks:
        if stack is None:
            return "[lost]"
        if stack:
            return stack[0].title
    return ""
