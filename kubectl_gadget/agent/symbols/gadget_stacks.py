"""Call stacks of one gadget: taken from its map (bpf/include/gadget/stacks.h), resolved to names, and sent.

They are taken many times a second, since names can be resolved only while the process exists. A number means the same
stack for the whole session, so each is sent one time, and again when it reappears after some seconds, since the code at
an address may have changed. The traps: they must be taken after the end of the events that refer to them was noted, and
sent before these events. And each session imports this module, so those that read symbols are imported at first use.
"""

import math
import struct
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from kubectl_gadget.agent.bpf.maps import Batches, BpfMap
from kubectl_gadget.wire.agent_messages import StackNames

if TYPE_CHECKING:
    from kubectl_gadget.agent.symbols.kernel_symbols import KernelSymbols
    from kubectl_gadget.agent.symbols.user_symbols import ResolvedFrame, UserSymbols

_HEAD = struct.Struct("<IIQ")
_ID = struct.Struct("<Q")
_AGAIN = 10.0
"""Seconds after which a stack that reappears is sent again."""
_WAIT, _MOST_WAITING = 1.0, 4096
"""New stacks wait until there are this many, but at most for this many seconds, so that one frame has many."""
_MOST_SENT = 1 << 15
_MOST_FRAMES = 1 << 16
_MOST_AT_ONCE = 256
"""Entries in a batch: a stack takes a kilobyte."""


class Symbols:
    """Resolves addresses of the kernel and of processes, for all gadgets of a session. Created at first use."""

    def __init__(self) -> None:
        self._kernel: KernelSymbols | None = None
        self._user: UserSymbols | None = None

    def of_process(self, pid: int, program: int, addresses: tuple[int, ...]) -> "list[ResolvedFrame]":
        """Returns frames, innermost first. `program` is the start of the process's stack (user_symbols.py)."""
        if self._user is None:
            from kubectl_gadget.agent.symbols.user_symbols import UserSymbols

            self._user = UserSymbols()
        return self._user.frames(pid, program, addresses)

    def of_kernel(self, stacks: Collection[tuple[int, tuple[int, ...]]]) -> "list[list[ResolvedFrame]]":
        """Returns the frames of each stack, which is given by what it begins with (kernel_symbols.HERE, …), and its
        addresses."""
        if self._kernel is None:
            from kubectl_gadget.agent.symbols.kernel_symbols import KernelSymbols

            self._kernel = KernelSymbols()
        self._kernel.prefetch([addresses for _, addresses in stacks])
        return [self._kernel.frames(addresses, begins) for begins, addresses in stacks]

    def close(self) -> None:
        for part in (self._kernel, self._user):
            if part:
                part.close()


class Stacks:
    """The stacks in the map `gadget_stacks` of a gadget's object."""

    def __init__(self, map: BpfMap, symbols: Symbols, with_offsets: bool) -> None:
        self._batches = Batches(map, _MOST_AT_ONCE)
        self._symbols = symbols
        self._with_offsets = with_offsets
        self._sent: dict[int, float] = {}
        self._most_sent = _MOST_SENT
        self._known: dict[ResolvedFrame, int] = {}
        self._numbers: dict[str, int] = {}
        self._first = 0
        self._new: list[str] = []
        self._stacks: dict[int, tuple[int, ...]] = {}
        self._of_kernel: dict[int, tuple[int, tuple[int, ...]]] = {}
        """new stacks of the kernel: what they begin with, and their addresses"""
        self._send_at = math.inf

    @property
    def is_quiet(self) -> bool:
        """True if nothing has to be sent now."""
        return time.monotonic() < self._send_at and len(self._stacks) + len(self._of_kernel) < _MOST_WAITING

    def take(self, now: float) -> None:
        """Reads new stacks from the map, and resolves stacks of processes, which may end soon. `now` is monotonic."""
        if len(self._sent) > self._most_sent:
            self._sent = {id: sent for id, sent in self._sent.items() if now - sent < _AGAIN}
            self._most_sent = max(_MOST_SENT, 2 * len(self._sent))
        for keys, values in self._batches.take():
            for key, value in zip(keys, values, strict=True):
                id = _ID.unpack(key)[0]
                if now - self._sent.get(id, -_AGAIN) >= _AGAIN:
                    self._sent[id] = now
                    pid, depth, program = _HEAD.unpack_from(value)
                    addresses = tuple(filter(None, struct.unpack_from(f"<{depth}Q", value, _HEAD.size)))
                    self._send_at = min(self._send_at, now + _WAIT)
                    if pid:
                        self._stacks[id] = self._frame_numbers(self._symbols.of_process(pid, program, addresses))
                    else:
                        self._of_kernel[id] = program, addresses

    def take_new(self, gadget: int) -> StackNames | None:
        """Returns the stacks that are new since the last call, or None; `gadget` is the index in RUN."""
        if self._of_kernel:
            for id, frames in zip(self._of_kernel, self._symbols.of_kernel(self._of_kernel.values()), strict=True):
                self._stacks[id] = self._frame_numbers(frames)
            self._of_kernel = {}
        if not self._stacks:
            return None
        self._send_at = math.inf
        new = StackNames(gadget=gadget, first=self._first, frames=tuple(self._new), stacks=self._stacks)
        self._first += len(self._new)
        self._new, self._stacks = [], {}
        if self._first > _MOST_FRAMES:
            # Frame numbers start at 0 again; the client then replaces its earlier frames.
            self._first = 0
            self._numbers.clear()
            self._known.clear()
        return new

    def _frame_numbers(self, frames: "Sequence[ResolvedFrame]") -> tuple[int, ...]:
        try:
            return tuple([self._known[frame] for frame in frames])
        except KeyError:
            return tuple([self._known[frame] if frame in self._known else self._number(frame) for frame in frames])

    def _number(self, frame: "ResolvedFrame") -> int:
        text = self._text(frame)
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = self._first + len(self._new)
            self._new.append(text)
        if len(self._known) >= _MOST_FRAMES:
            self._known.clear()
        self._known[frame] = number
        return number

    def _text(self, frame: "ResolvedFrame") -> str:
        """Returns function, file and offset, and how the client can find the name if it is unknown, separated by
        tabs."""
        known = frame.function[:1] != "["
        offset = "" if frame.offset is None or (known and not self._with_offsets) else f"{frame.offset:#x}"
        text = f"{frame.function}\t{frame.module}\t{offset}"
        if text.count("\t") != 2:
            text = "\t".join(part.replace("\t", " ") for part in (frame.function, frame.module, offset))
        return f"{text}\t{frame.code}" if frame.code else text
