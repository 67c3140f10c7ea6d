"""Names of the kernel's functions, formatted by the kernel itself (bpf/symbols.bpf.c, Linux 5.13).

On older kernels /proc/kallsyms is read, which shows addresses only with CAP_SYSLOG or if kernel.kptr_restrict is 0.
Modules and BPF programs come and go, so cached names expire after a while.
"""

import ctypes
import errno
import re
import struct
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import own_program
from kubectl_gadget.agent.symbols.user_symbols import UNKNOWN, ResolvedFrame

HERE, INTERRUPT, TRACEPOINT, SLEEP = range(4)
"""The beginnings of a stack (bpf/include/gadget/stacks.h): the traced function, an interrupt, a tracepoint, or the
scheduler's functions, by which a thread went to sleep."""
_AT_ONCE = 128
_ADDRESS = struct.Struct("<Q")
_ENTRY_BYTES = _ADDRESS.size + 192
"""An address and its name, in bpf/symbols.bpf.c."""
_FORGET_SECONDS = 60.0
_FUNCTION = re.compile(r"^0*([1-9a-f][0-9a-f]*) [tTwW] (\S+)", re.MULTILINE)
"""A line of /proc/kallsyms; addresses that are hidden are 0."""
_FORMATTED = re.compile(r"(.+)\+0x([0-9a-f]+)/0x[0-9a-f]+(?: \[([^\]]+)\])?")
_INTERRUPTS = ("asm_sysvec_", "asm_common_interrupt", "el1h_64_irq", "el0t_64_irq", "el1_irq", "el0_irq", "asm_exc_xen")
"""Outermost functions of an interrupt, on x86-64 and arm64; the next frame is what it interrupted."""
_OF_TRACEPOINTS = ("bpf_", "__bpf_", "__traceiter_", "trace_event_", "perf_trace_")
_OF_PROGRAMS = ("bpf_prog_", "bpf_trampoline_", "bpf_trace_run", "__bpf_trace_", "__traceiter_")
"""A BPF program, and the code by which the kernel calls it at a function (fentry, LSM) or a raw tracepoint."""
_SCHEDULER = ("__schedule", "schedule")
_SLEEPS = ("__schedule", "schedule", "io_schedule", "__switch_to", "context_switch", "preempt_schedule")
"""Beginnings of the functions by which threads sleep, such as schedule_timeout, which say nothing of the reason."""
_MOST_OF_TRACEPOINT = 8


class KernelSymbols:
    """Can be created on any kernel; if neither way works, all names are unknown."""

    def __init__(self) -> None:
        self._lib = libbpf.load()
        self._known: dict[int, ResolvedFrame] = {}
        self._forget_at = 0.0
        self._listed: tuple[list[int], list[str]] | None = None
        self._object = own_program("symbols", "name")
        self._keys = (ctypes.c_uint32 * _AT_ONCE)(*range(_AT_ONCE))
        self._entries = ctypes.create_string_buffer(_AT_ONCE * _ENTRY_BYTES)

    def prefetch(self, stacks: Iterable[Sequence[int]]) -> None:
        """Looks up the names that frames() will need, all together, since each lookup has a fixed cost."""
        now = time.monotonic()
        if now > self._forget_at:
            self._known.clear()
            self._forget_at = now + _FORGET_SECONDS
        places = dict.fromkeys(place for addresses in stacks for place in _places(addresses))
        unknown = [place for place in places if place not in self._known]
        for start in range(0, len(unknown), _AT_ONCE):
            self._resolve(unknown[start : start + _AT_ONCE])

    def frames(self, addresses: Sequence[int], begins: int) -> list[ResolvedFrame]:
        """Returns one frame per address, without the innermost ones of the tracing itself; `begins` is HERE, …"""
        try:
            frames = [self._known[place] for place in _places(addresses)]
        except KeyError:
            self.prefetch([addresses])
            frames = [self._known[place] for place in _places(addresses)]
        return frames[_tracing_frames(frames, begins) :]

    def close(self) -> None:
        if self._object:
            self._object.close()

    def _resolve(self, addresses: Sequence[int]) -> None:
        names = self._formatted(addresses) if self._object else self._look_up(addresses)
        for address, name in zip(addresses, names, strict=True):
            found = _FORMATTED.fullmatch(name)
            if found:
                self._known[address] = ResolvedFrame(found[1], found[3] or "", int(found[2], 16))
            else:
                self._known[address] = ResolvedFrame(UNKNOWN, "", None)

    def _formatted(self, addresses: Sequence[int]) -> list[str]:
        """Returns the names as the kernel formats them: "function+0x12/0x34 [module]"."""
        assert self._object is not None
        map = self._object.required_map("resolved")
        for index, address in enumerate([*addresses, 0][:_AT_ONCE]):
            _ADDRESS.pack_into(self._entries, index * _ENTRY_BYTES, address)
        count = ctypes.c_uint32(min(len(addresses) + 1, _AT_ONCE))
        self._lib.call("bpf_map_update_batch", map.fd, self._keys, self._entries, ctypes.byref(count), None)
        self._object.run("name")
        position, count = ctypes.c_uint32(), ctypes.c_uint32(len(addresses))
        keys, place = (ctypes.c_uint32 * len(addresses))(), ctypes.byref(position)
        try:
            self._lib.call("bpf_map_lookup_batch", map.fd, None, place, keys, self._entries, ctypes.byref(count), None)
        except Failure as failure:
            if failure.errno != errno.ENOENT:  # ENOENT: it has read all entries
                raise
        data = memoryview(self._entries)
        return [
            bytes(data[start + _ADDRESS.size : start + _ENTRY_BYTES]).partition(b"\0")[0].decode(errors="replace")
            for start in range(0, len(addresses) * _ENTRY_BYTES, _ENTRY_BYTES)
        ]

    def _look_up(self, addresses: Sequence[int]) -> list[str]:
        if self._listed is None:
            self._listed = listed()
        starts, names = self._listed
        found = []
        for address in addresses:
            place = bisect_right(starts, address) - 1
            found.append(f"{names[place]}+{address - starts[place]:#x}/0x0" if place >= 0 else "")
        return found


def listed(path: str = "/proc/kallsyms") -> tuple[list[int], list[str]]:
    """Returns the sorted addresses of functions, and their names; empty when they are hidden."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            lines = _FUNCTION.findall(file.read())
    except OSError:
        return [], []
    found = sorted((int(address, 16), name) for address, name in lines)
    return [start for start, _ in found], [name for _, name in found]


def _places(addresses: Sequence[int]) -> list[int]:
    """Returns the addresses to look up: from a return address, 1 is subtracted, since the call may be the last
    instruction of its function."""
    return [address - (number > 0) for number, address in enumerate(addresses)]


def _tracing_frames(frames: Sequence[ResolvedFrame], begins: int) -> int:
    """Returns how many of the innermost frames belong to the tracing."""
    if begins == INTERRUPT:
        for number, frame in enumerate(frames):
            if frame.function.startswith(_INTERRUPTS):
                return number + 1
    if begins == SLEEP:
        return next((n for n, f in enumerate(frames) if not f.function.startswith(_SLEEPS)), 0)
    if begins == TRACEPOINT:
        own = [n for n, f in enumerate(frames[:_MOST_OF_TRACEPOINT]) if f.function.startswith(_OF_TRACEPOINTS)]
        first = own[-1] + 1 if own else 0
        # A thread that leaves the CPU is always in these functions.
        while first < len(frames) and frames[first].function in _SCHEDULER:
            first += 1
        return first
    # Only the run of frames before the traced function is the tracing's: further out, they may be somebody else's.
    return next((n for n, frame in enumerate(frames) if not frame.function.startswith(_OF_PROGRAMS)), 0)
