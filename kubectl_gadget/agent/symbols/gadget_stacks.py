"""Call stacks of one gadget: taken from its map (bpf/include/gadget/stacks.h), resolved to names, and sent.

They are taken many times a second, since names can be resolved only while the process lives. A number means the same
stack for the whole session, so each is sent once, and again when it reappears after some seconds, since the code at an
address may have changed. The trap: they must be taken after the end of the events that refer to them was noted, and
sent before these.
"""

import struct
import time

from kubectl_gadget.agent.bpf.map_batches import take_all
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.symbols.kernel_symbols import KernelSymbols
from kubectl_gadget.agent.symbols.user_symbols import ResolvedFrame, UserSymbols
from kubectl_gadget.wire.agent_messages import StackNames

_HEAD = struct.Struct("<IIQ")
_ID = struct.Struct("<Q")
_AGAIN = 10.0
"""Seconds after which a stack is sent again."""
_MOST_SENT = 1 << 18
_MOST_FRAMES = 1 << 18
_MOST_AT_ONCE = 256
"""Entries in a batch: a stack takes a kilobyte."""


class Symbols:
    """Resolves addresses of the kernel and of processes, for all gadgets of a session. Created at first use."""

    def __init__(self) -> None:
        self._kernel: KernelSymbols | None = None
        self._user: UserSymbols | None = None

    def frames(self, pid: int, program: int, addresses: tuple[int, ...]) -> list[ResolvedFrame]:
        """Returns frames, innermost first. `pid` 0: the kernel's; `program` then says what the stack begins with."""
        if pid:
            self._user = self._user or UserSymbols()
            return self._user.frames(pid, program, addresses)
        self._kernel = self._kernel or KernelSymbols()
        return self._kernel.frames(addresses, program)

    def close(self) -> None:
        for part in (self._kernel, self._user):
            if part:
                part.close()


class Stacks:
    """The stacks in the map `gadget_stacks` of a gadget's object."""

    def __init__(self, map: BpfMap, symbols: Symbols, with_offsets: bool) -> None:
        self._map = map
        self._symbols = symbols
        self._with_offsets = with_offsets
        self._sent: dict[int, float] = {}
        self._numbers: dict[str, int] = {}
        self._first = 0
        self._new: list[str] = []
        self._stacks: dict[int, tuple[int, ...]] = {}

    def take(self) -> None:
        """Reads the new stacks from the map."""
        now = time.monotonic()
        if len(self._sent) > _MOST_SENT:
            self._sent = {id: sent for id, sent in self._sent.items() if now - sent < _AGAIN}
        for keys, values in take_all(self._map, _MOST_AT_ONCE):
            for key, value in zip(keys, values, strict=True):
                id = _ID.unpack(key)[0]
                if now - self._sent.get(id, -_AGAIN) >= _AGAIN:
                    self._sent[id] = now
                    self._name(id, value)

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
        return new

    def _name(self, id: int, value: bytes) -> None:
        pid, depth, program = _HEAD.unpack_from(value)
        addresses = tuple(filter(None, struct.unpack_from(f"<{depth}Q", value, _HEAD.size)))
        numbers = []
        for frame in self._symbols.frames(pid, program, addresses):
            text = self._text(frame)
            number = self._numbers.get(text)
            if number is None:
                number = self._numbers[text] = self._first + len(self._new)
                self._new.append(text)
            numbers.append(number)
        self._stacks[id] = tuple(numbers)

    def _text(self, frame: ResolvedFrame) -> str:
        """Returns function, file and offset, separated by tabs."""
        known = frame.function[:1] != "["
        offset = "" if frame.offset is None or (known and not self._with_offsets) else f"{frame.offset:#x}"
        return "\t".join(part.replace("\t", " ") for part in (frame.function, frame.module, offset))
