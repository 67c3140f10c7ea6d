"""Call stacks of one gadget: taken from its map (bpf/include/gadget/stacks.h), resolved to names, and sent.

They are taken many times a second, since names can be resolved only while the process lives. A number means the same
stack for the whole session, so each is sent once, and again when it reappears after some seconds, since the code at an
address may have changed. The trap: they must be taken after the end of the events that refer to them was noted, and
sent before these. And each session imports this, so what reads symbols is imported at first use.
"""

import struct
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_gadget.agent.bpf.map_batches import Batches
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.wire.agent_messages import StackNames

if TYPE_CHECKING:
    from kubectl_gadget.agent.symbols.kernel_symbols import KernelSymbols
    from kubectl_gadget.agent.symbols.user_symbols import ResolvedFrame, UserSymbols

_HEAD = struct.Struct("<IIQ")
_ID = struct.Struct("<Q")
_AGAIN = 10.0
"""Seconds after which a stack is sent again."""
_MOST_SENT = 1 << 15
_MOST_FRAMES = 1 << 16
_MOST_AT_ONCE = 256
"""Entries in a batch: a stack takes a kilobyte."""


class Symbols:
    """Resolves addresses of the kernel and of processes, for all gadgets of a session. Created at first use."""

    def __init__(self) -> None:
        self._kernel: KernelSymbols | None = None
        self._user: UserSymbols | None = None

    def frames(self, pid: int, program: int, addresses: tuple[int, ...]) -> "list[ResolvedFrame]":
        """Returns frames, innermost first. `pid` 0: the kernel's; `program` then says what the stack begins with."""
        if pid:
            from kubectl_gadget.agent.symbols.user_symbols import UserSymbols

            self._user = self._user or UserSymbols()
            return self._user.frames(pid, program, addresses)
        return self._of_kernel().frames(addresses, program)

    def learn(self, stacks: Sequence[Sequence[int]]) -> None:
        """Names the kernel's functions of stacks for which frames() will be called."""
        if stacks:
            self._of_kernel().learn(stacks)

    def _of_kernel(self) -> "KernelSymbols":
        from kubectl_gadget.agent.symbols.kernel_symbols import KernelSymbols

        self._kernel = self._kernel or KernelSymbols()
        return self._kernel

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

    def take(self) -> None:
        """Reads the new stacks from the map."""
        now = time.monotonic()
        if len(self._sent) > self._most_sent:
            self._sent = {id: sent for id, sent in self._sent.items() if now - sent < _AGAIN}
            self._most_sent = max(_MOST_SENT, 2 * len(self._sent))
        new: list[tuple[int, int, int, tuple[int, ...]]] = []
        for keys, values in self._batches.take():
            for key, value in zip(keys, values, strict=True):
                id = _ID.unpack(key)[0]
                if now - self._sent.get(id, -_AGAIN) >= _AGAIN:
                    self._sent[id] = now
                    pid, depth, program = _HEAD.unpack_from(value)
                    addresses = struct.unpack_from(f"<{depth}Q", value, _HEAD.size)
                    new.append((id, pid, program, tuple(filter(None, addresses))))
        self._symbols.learn([addresses for _, pid, _, addresses in new if not pid])
        for id, pid, program, addresses in new:
            self._stacks[id] = self._frame_numbers(self._symbols.frames(pid, program, addresses))

    def take_new(self, gadget: int) -> StackNames | None:
        """Returns what is new since the last call, or None; `gadget` is the index in RUN."""
        if not self._stacks:
            return None
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
        """Returns function, file and offset, separated by tabs."""
        known = frame.function[:1] != "["
        offset = "" if frame.offset is None or (known and not self._with_offsets) else f"{frame.offset:#x}"
        text = f"{frame.function}\t{frame.module}\t{offset}"
        if text.count("\t") == 2:
            return text
        return "\t".join(part.replace("\t", " ") for part in (frame.function, frame.module, offset))
