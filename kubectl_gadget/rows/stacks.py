"""Call stacks, as agents report them (docs/protocol.md, STACKS), and the numbers that represent them in batches.

A record has the agent's number of a stack. `NodeStacks.numbers` replaces it with the client's, which is the same for
equal stacks from all nodes, so that rows of several nodes can be joined and aggregated by it. An agent's data
comes from containers, so anybody may have chosen the names in it, and any number of them. So the memory for stacks is
limited, and stacks that no row has used for long are forgotten; they count as lost.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pydemumble

from kubectl_gadget.errors import FrameError
from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.texts import CodedTexts, TextLists, Texts
from kubectl_gadget.rows.vectors import Array

if TYPE_CHECKING:
    from kubectl_gadget.wire.agent_messages import StackNames


NONE, LOST = 0, 1
"""Numbers for no stack and for a lost stack, as in bpf/include/gadget/stacks.h."""
UNKNOWN = "[unknown]"
_FEW_CUT_OFF, _FILES_NAMED = 0.05, 3
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_MANGLED = ("_Z", "_R", "__Z", "$s", "_$s", "$S")
_MOST_STACKS = _MOST_FRAMES = 1 << 18
"""The most frames of one gadget on one node. An agent starts again after a quarter of them."""
_MOST_BYTES = 128 << 20
"""About the memory for the stacks of all nodes. Half of it is for the last time's stacks."""
_FRAME_BYTES, _STACK_BYTES, _PLACE_BYTES = 300, 300, 8
"""About the memory of a frame without its names, of a stack without its frames, and of each place in a stack."""


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


class _Generation:
    """Stacks and frames that were used at the same time, and how much memory they take."""

    def __init__(self) -> None:
        self.frames: dict[str, CallFrame] = {}
        self.numbers: dict[Stack, int] = {}
        self.stacks: dict[int, Stack] = {}
        self.bytes = 0
        self._distinct: dict[CallFrame, CallFrame] = {}

    def add_frame(self, text: str, frame: CallFrame) -> None:
        self.frames[text] = frame
        self.bytes += len(text) + _STACK_BYTES

    def add_stack(self, number: int, stack: Stack) -> None:
        self.bytes += _STACK_BYTES + len(stack) * _PLACE_BYTES
        stack = tuple(self._distinct.get(frame) or self._new(frame) for frame in stack)
        self.numbers[stack] = number
        self.stacks[number] = stack

    def _new(self, frame: CallFrame) -> CallFrame:
        self._distinct[frame] = frame
        self.bytes += _FRAME_BYTES + sum(map(len, frame))
        return frame


class StackTable:
    """Numbers of stacks, with at most about `most_bytes` of memory. A stack that is forgotten never gets its number
    again."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._now, self._before = _Generation(), _Generation()
        self._next = LOST + 1

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return self._now.bytes + self._before.bytes

    def stack_of(self, number: int) -> Stack | None:
        """Return the stack of a number; None: it was lost or forgotten."""
        if number == NONE:
            return ()
        found = self._now.stacks.get(number)
        return self._before.stacks.get(number) if found is None else found

    def number_of(self, stack: Stack) -> int:
        """Return the stack's number, the same for equal stacks."""
        if not stack:
            return NONE
        number = self._now.numbers.get(stack)
        if number is None:
            number = self._before.numbers.get(stack)
            if number is None:
                number, self._next = self._next, self._next + 1
            self._make_room()
            self._now.add_stack(number, stack)
        return number

    def keep(self, number: int) -> int:
        """Note that a row uses this number. Return LOST if its stack is forgotten, else the number."""
        if number <= LOST or number in self._now.stacks:
            return number
        stack = self._before.stacks.get(number)
        if stack is None:
            return LOST
        self._make_room()
        self._now.add_stack(number, stack)
        return number

    def read_frame(self, text: str) -> CallFrame:
        """Parse one element of `frames` in a STACKS frame."""
        found = self._now.frames.get(text)
        if found is None:
            found = self._before.frames.get(text)
            if found is None:
                function, module, offset = (*text.split("\t"), "", "")[:3]
                found = CallFrame(demangle(function), module, offset)
            self._make_room()
            self._now.add_frame(text, found)
        return found

    def _make_room(self) -> None:
        if 2 * self._now.bytes > self._most_bytes:
            self._now, self._before = _Generation(), self._now


_table = StackTable(_MOST_BYTES)


def stack_of(number: int) -> Stack | None:
    """Return the stack for a number in a batch; None: it was lost."""
    return _table.stack_of(number)


def number_of(stack: Stack) -> int:
    """Return the stack's number, the same for equal stacks."""
    return _table.number_of(stack)


def read_frame(text: str) -> CallFrame:
    """Parse one element of `frames` in a STACKS frame."""
    return _table.read_frame(text)


def demangle(name: str) -> str:
    """A name as written in the source, for C++, Rust and Swift; other names are unchanged."""
    if not name.startswith(_MANGLED):
        return name
    # Suffixes that compilers append to parts of a function (.cold, .constprop.0) are not part of its name.
    return _RUST_HASH.sub("", pydemumble.demangle(name) or pydemumble.demangle(name.partition(".")[0]) or name)


class NodeStacks:
    """The stacks that one agent has reported for one gadget."""

    def __init__(self) -> None:
        self._frames: list[CallFrame] = []
        self._numbers: dict[int, int] = {NONE: NONE, LOST: LOST}

    @property
    def is_empty(self) -> bool:
        """True if the agent has reported none."""
        return len(self._numbers) <= LOST + 1

    def apply(self, names: "StackNames", named: "Callable[[Sequence[str]], Sequence[str]] | None" = None) -> None:
        """Takes a STACKS frame. `named` returns the same frames, with names for unknown functions. Raises FrameError if
        it refers to a stack frame that was not sent."""
        if not 0 <= names.first <= len(self._frames):
            raise FrameError(f"STACKS: `first` is {names.first}, but {len(self._frames)} frames were sent")
        if names.first + len(names.frames) > _MOST_FRAMES:
            raise FrameError(f"STACKS: more than {_MOST_FRAMES:,} frames")
        if len(names.stacks) > _MOST_STACKS:
            raise FrameError(f"STACKS: more than {_MOST_STACKS:,} stacks")
        del self._frames[names.first :]
        self._frames += map(read_frame, named(names.frames) if named else names.frames)
        if len(self._numbers) > _MOST_STACKS:
            self._numbers = {NONE: NONE, LOST: LOST}
        for id, places in names.stacks.items():
            if places and not 0 <= min(places) <= max(places) < len(self._frames):
                raise FrameError(f"STACKS: the stack {id} has the frame {max(places)}, of {len(self._frames)}")
            self._numbers[id] = number_of(tuple(self._frames[place] for place in places))

    def numbers(self, ids: Array) -> npt.NDArray[np.uint64]:
        """The client's numbers for the agent's. Stacks that were not reported count as lost."""
        known, places = np.unique(ids, return_inverse=True)
        found = [_table.keep(self._numbers.get(id, LOST)) for id in known.tolist()]
        return np.array(found, np.uint64)[places] if found else ids.astype(np.uint64)


def innermost(stacks: Sequence[Stack | None]) -> str:
    """The function that ran, given stacks that continue each other, the innermost first."""
    for stack in stacks:
        if stack is None:
            return "[lost]"
        if stack:
            return stack[0].title
    return ""


class CutOff:
    """The share of a profile in stacks of programs that end where the kernel could not follow them."""

    def __init__(self) -> None:
        self._all = 0.0
        self._places: dict[str, float] = {}
        """the amount by the file of the last known frame"""

    def add(self, batch: Batch) -> None:
        """Count the rows of a gadget that has profiles."""
        totals = batch.gadget.totals
        fields = (field for field in batch.gadget.record.fields if field.type == STACK)
        field = next((field for field in fields if not field.name.startswith("kernel")), None)
        if not totals.weight or field is None:
            return
        numbers, places = np.unique(batch.raw(field), return_inverse=True)
        amounts = np.bincount(places, batch.raw(totals.weight).astype(np.float64), len(numbers))
        for number, amount in zip(numbers.tolist(), amounts.tolist(), strict=True):
            if stack := stack_of(number):
                self._all += amount
                if stack[-1].function == UNKNOWN and not stack[-1].module:
                    place = stack[-2].file if len(stack) > 1 else ""
                    self._places[place] = self._places.get(place, 0.0) + amount

    def hint(self) -> str:
        """Return a sentence for the user; "" if nearly all stacks are whole."""
        share = sum(self._places.values()) / self._all if self._all else 0.0
        if share <= _FEW_CUT_OFF:
            return ""
        most = sorted(filter(None, self._places), key=self._places.__getitem__, reverse=True)
        files = ", ".join(most[:_FILES_NAMED])
        where = f", mostly in {files}" if files else ""
        return f"at least {share:.0%} of this profile lacks callers, which could not be followed{where}"


# Columns of call stacks: lists in JSON, one line in tables. Many rows share few stacks, so each is formatted
# once.


STACK = "gadget_stack"
NAMED = frozenset({STACK, "gadget_content"})
"""The types of fields that have numbers of STACKS frames."""
_LOST = "[lost]"


def stacks_of(batch: Batch, field: Field) -> list[Stack | None]:
    return [stack_of(number) for number in batch.raw(field).tolist()]


def stack_lists(batch: Batch, field: Field) -> TextLists:
    """Stacks as lists of texts; null for a stack that was lost."""
    spelt: dict[Stack | None, list[str] | None] = {None: None}
    lists = []
    for stack in stacks_of(batch, field):
        if stack not in spelt and stack is not None:
            spelt[stack] = [frame.text() for frame in stack]
        lists.append(spelt[stack])
    return TextLists(lists)


def digests(batch: Batch, field: Field) -> Texts:
    """Digests of files, which agents report like stacks of one frame; null if there is none."""
    return Texts(lambda: [stack[0].function if stack else None for stack in stacks_of(batch, field)], len(batch))


def show_stacks(batch: Batch, field: Field) -> list[str]:
    """Stacks as one line each: `read < handle < main`."""
    stacks = stacks_of(batch, field)
    return [_LOST if stack is None else " < ".join(frame.title for frame in stack) or "-" for stack in stacks]


def innermost_functions(batch: Batch) -> CodedTexts:
    """The innermost function of each row. The kernel's stack continues the program's."""
    fields = [field for field in batch.gadget.record.fields if field.type == STACK]
    fields.sort(key=lambda field: not field.name.startswith("kernel"))
    rows = zip(*(stacks_of(batch, field) for field in fields), strict=True)
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(innermost(row), len(numbers)) for row in rows]
    return CodedTexts(np.array(codes, np.intp), list(numbers) or [""])
