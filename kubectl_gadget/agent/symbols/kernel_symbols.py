"""Names of the kernel's functions, formatted by the kernel itself (bpf/symbols.bpf.c, Linux 5.13).

On older kernels /proc/kallsyms is read, which shows addresses only with CAP_SYSLOG or where kernel.kptr_restrict is 0.
The trap: modules and BPF programs come and go, so cached names expire after a while.
"""

import ctypes
import re
import time
from bisect import bisect_right
from collections.abc import Sequence

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.own_objects import own_program
from kubectl_gadget.agent.symbols.user_symbols import UNKNOWN, ResolvedFrame

HERE, INTERRUPT, TRACEPOINT = range(3)
"""What a stack begins with (bpf/include/gadget/stacks.h): the traced function, an interrupt, or a tracepoint."""
_AT_ONCE = 128
_NAME_BYTES = 192
_FORGET_SECONDS = 60.0
_FUNCTION = re.compile(r"^0*([1-9a-f][0-9a-f]*) [tTwW] (\S+)", re.MULTILINE)
"""A line of /proc/kallsyms; addresses that are hidden are 0."""
_SPELT = re.compile(r"(.+)\+0x([0-9a-f]+)/0x[0-9a-f]+(?: \[([^\]]+)\])?")
_INTERRUPTS = ("asm_sysvec_", "asm_common_interrupt", "el1h_64_irq", "el0t_64_irq", "el1_irq", "el0_irq", "asm_exc_xen")
"""Outermost functions of an interrupt, on x86-64 and arm64; the next frame is what it interrupted."""
_OF_TRACEPOINTS = ("bpf_", "__bpf_", "__traceiter_", "trace_event_", "perf_trace_")
_SCHEDULER = ("__schedule", "schedule")
_MOST_OF_TRACEPOINT = 8


class _Spelt(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("name", ctypes.c_char * _NAME_BYTES))


class KernelSymbols:
    """Can be created on any kernel; where neither way works, all names are unknown."""

    def __init__(self) -> None:
        self._lib = libbpf.load()
        self._known: dict[int, ResolvedFrame] = {}
        self._forget_at = 0.0
        self._listed: tuple[list[int], list[str]] | None = None
        self._object = own_program("symbols", "name")

    def frames(self, addresses: Sequence[int], begins: int) -> list[ResolvedFrame]:
        """Returns one frame per address, without those added by the tracing itself; `begins` is HERE, …"""
        now = time.monotonic()
        if now > self._forget_at:
            self._known.clear()
            self._forget_at = now + _FORGET_SECONDS
        # A call may be the last instruction of its function.
        places = [address - (number > 0) for number, address in enumerate(addresses)]
        unknown = [place for place in dict.fromkeys(places) if place not in self._known]
        for start in range(0, len(unknown), _AT_ONCE):
            self._spell(unknown[start : start + _AT_ONCE])
        frames = [self._known[place] for place in places]
        return frames[_tracing_frames(frames, begins) :]

    def close(self) -> None:
        if self._object:
            self._object.close()

    def _spell(self, addresses: Sequence[int]) -> None:
        names = self._ask(addresses) if self._object else self._look_up(addresses)
        for address, name in zip(addresses, names, strict=True):
            found = _SPELT.fullmatch(name)
            if found:
                self._known[address] = ResolvedFrame(found[1], found[3] or "", int(found[2], 16))
            else:
                self._known[address] = ResolvedFrame(UNKNOWN, "", None)

    def _ask(self, addresses: Sequence[int]) -> list[str]:
        assert self._object is not None
        map = self._object.map("spelt")
        assert map is not None
        for index, address in enumerate([*addresses, 0][:_AT_ONCE]):
            key, value = ctypes.c_uint32(index), _Spelt(address)
            self._lib.call("bpf_map_update_elem", map.fd, ctypes.byref(key), ctypes.byref(value), 0)
        self._object.run("name")
        names = []
        for index in range(len(addresses)):
            key, value = ctypes.c_uint32(index), _Spelt()
            self._lib.call("bpf_map_lookup_elem", map.fd, ctypes.byref(key), ctypes.byref(value))
            names.append(value.name.decode(errors="replace"))
        return names

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
    """Returns sorted addresses, and names; empty when they are hidden."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            lines = _FUNCTION.findall(file.read())
    except OSError:
        return [], []
    found = sorted((int(address, 16), name) for address, name in lines)
    return [start for start, _ in found], [name for _, name in found]


def _tracing_frames(frames: Sequence[ResolvedFrame], begins: int) -> int:
    """Returns how many of the innermost frames belong to the tracing."""
    if begins == INTERRUPT:
        for number, frame in enumerate(frames):
            if frame.function.startswith(_INTERRUPTS):
                return number + 1
    if begins == TRACEPOINT:
        own = [n for n, f in enumerate(frames[:_MOST_OF_TRACEPOINT]) if f.function.startswith(_OF_TRACEPOINTS)]
        first = own[-1] + 1 if own else 0
        # Every thread that leaves the CPU does so in these functions.
        while first < len(frames) and frames[first].function in _SCHEDULER:
            first += 1
        return first
    return 0
