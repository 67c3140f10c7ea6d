"""Call stacks, as agents report them (docs/protocol.md, STACKS), and the numbers that represent them in batches.

A record has the agent's number of a stack. `NodeStacks.numbers` replaces it with the client's, which is the same for
equal stacks from all nodes, so that rows of several nodes can be joined and aggregated by it. The trap: an agent's data
comes from containers, so anybody may have chosen the names in it.
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
"""Numbers for no stack and for a lost stack, as in bpf/include/gadget/stacks.h."""
UNKNOWN = "[unknown]"
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_MANGLED = ("_Z", "_R", "__Z", "$s", "_$s", "$S")
_MOST_STACKS = 1 << 20


class CallFrame(NamedTuple):
    """One call."""

    function: str
    """demangled; UNKNOWN if it is not known"""
    module: str
    """the file or other mapping that holds the code; empty: the kernel"""
    offset: str
    """as 0x1f, from the start of the function, or of the file if the function is unknown; empty: not reported"""

    @property
    def title(self) -> str:
        """The text in flame graphs and tables."""
        if self.function != UNKNOWN or not self.module:
            return self.function
        return f"[{self.file}+{self.offset}]" if self.offset else f"[{self.file}]"

    @property
    def without_offset(self) -> "CallFrame":
        """The same frame for every offset in its function, or in its file if the function is unknown."""
        return self._replace(offset="")

    @property
    def file(self) -> str:
        """The last component of the module's path."""
        return self.module.rpartition("/")[2].strip("[]")

    def text(self) -> str:
        """The text in JSON: `malloc+0x1f (libc.so.6)`."""
        offset = f"+{self.offset}" if self.offset else ""
        if self.function == UNKNOWN and self.module:
            return f"{UNKNOWN} ({self.file}{offset})"
        return f"{self.function}{offset} ({self.file})" if self.module else f"{self.function}{offset}"


Stack = tuple[CallFrame, ...]
"""Innermost call first."""

_frames: dict[str, CallFrame] = {}
_numbers: dict[Stack | None, int] = {(): NONE, None: LOST}
_stacks: list[Stack | None] = [(), None]


def stack_of(number: int) -> Stack | None:
    """The stack for a number in a batch; None: it was lost."""
    return _stacks[number]


def number_of(stack: Stack) -> int:
    """The stack's number, the same for equal stacks."""
    number = _numbers.get(stack)
    if number is None:
        number = _numbers[stack] = len(_stacks)
        _stacks.append(stack)
    return number


def read_frame(text: str) -> CallFrame:
    """Parses one element of `frames` in a STACKS frame."""
    found = _frames.get(text)
    if found is None:
        function, module, offset = (*text.split("\t"), "", "")[:3]
        found = _frames[text] = CallFrame(demangle(function), module, offset)
    return found


def demangle(name: str) -> str:
    """A name as written in the source, for C++, Rust and Swift; other names are unchanged."""
    if not name.startswith(_MANGLED):
        return name
    from pydemumble import demangle

    # Suffixes that compilers append to parts of a function (.cold, .constprop.0) are not part of its name.
    return _RUST_HASH.sub("", demangle(name) or demangle(name.partition(".")[0]) or name)


class NodeStacks:
    """The stacks that one agent has reported for one gadget."""

    def __init__(self) -> None:
        self._frames: list[CallFrame] = []
        self._numbers: dict[int, int] = {NONE: NONE, LOST: LOST}

    def apply(self, names: "StackNames") -> None:
        """Takes a STACKS frame. Raises FrameError if it refers to a stack frame that was not sent."""
        if not 0 <= names.first <= len(self._frames):
            raise FrameError(f"STACKS: `first` is {names.first}, but {len(self._frames)} frames were sent")
        del self._frames[names.first :]
        self._frames += map(read_frame, names.frames)
        if len(self._numbers) > _MOST_STACKS:
            self._numbers = {NONE: NONE, LOST: LOST}
        for id, places in names.stacks.items():
            if places and not 0 <= min(places) <= max(places) < len(self._frames):
                raise FrameError(f"STACKS: the stack {id} has the frame {max(places)}, of {len(self._frames)}")
            self._numbers[id] = number_of(tuple(self._frames[place] for place in places))

    def numbers(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
        """The client's numbers for the agent's. Stacks that were not reported count as lost."""
        known, places = np.unique(ids, return_inverse=True)
        found = [self._numbers.get(id, LOST) for id in known.tolist()]
        return np.array(found, np.uint64)[places] if found else ids.astype(np.uint64)


def innermost(stacks: Sequence[Stack | None]) -> str:
    """The function that ran, given stacks that continue each other, the innermost first."""
    for stack in stacks:
        if stack is None:
            return "[lost]"
        if stack:
            return stack[0].title
    return ""
