"""Perf events on each CPU: those that run a program at a fixed frequency, by a kernel timer and not a hardware counter;
and those that make the kernel report mappings.

The trap: CPUs that come online later have none.
"""

import ctypes
import os
import struct

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.errors import AgentError

_NUMBER = {"x86_64": 298, "aarch64": 241}
"""System call number of perf_event_open()."""
_SOFTWARE, _CPU_CLOCK, _DUMMY = 1, 0, 9
_FREQUENCY = 1 << 10
"""attr.freq: sample_period is a frequency"""
_MMAP, _MMAP2, _BUILD_ID = 1 << 8, 1 << 23, 1 << 34
_CLOSE_ON_EXEC = 8
_ATTRIBUTES = struct.Struct("<IIQQQQQ")
"""The head of struct perf_event_attr: type, size, config, sample_freq, sample_type, read_format, flags."""
_SIZE = 128


def attach(program: int, frequency: int) -> list[int]:
    """Attaches the program to every online CPU and returns libbpf's links, one per CPU. Raises Failure."""
    lib = libbpf.load()
    links: list[int] = []
    try:
        for cpu in online():
            event = open_event(cpu, _CPU_CLOCK, frequency, _FREQUENCY)
            try:
                links.append(lib.call("bpf_program__attach_perf_event", program, event))
            except Failure:
                os.close(event)
                raise
    except Failure:
        for link in links:
            lib.raw("bpf_link__destroy", link)
        raise
    return links


def online(path: str = "/sys/devices/system/cpu/online") -> list[int]:
    """Returns the numbers of the online CPUs."""
    with open(path) as file:
        ranges = [part.partition("-") for part in file.read().strip().split(",")]
    return [cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)]


def open_event(cpu: int, event: int, period: int, flags: int) -> int:
    """Opens a software event on one CPU; `flags` are bits of its attributes. Returns its fd. Raises Failure."""
    attributes = ctypes.create_string_buffer(_ATTRIBUTES.pack(_SOFTWARE, _SIZE, event, period, 0, 0, flags), _SIZE)
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    number = ctypes.c_long(_NUMBER[os.uname().machine])
    fd: int = library.syscall(number, attributes, -1, cpu, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if fd < 0:
        error = ctypes.get_errno()
        raise Failure("perf_event_open", error, [f"perf_event_open() failed: {os.strerror(error)}"])
    return fd


class MappingEvents:
    """Makes the kernel report executable mappings with their build ids, from its creation until close(): dummy events,
    which nothing reads; a BPF program at the kernel function that writes them reads its arguments. Raises
    AgentError."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        try:
            for cpu in online():
                self._fds.append(open_event(cpu, _DUMMY, 0, _MMAP | _MMAP2 | _BUILD_ID))
        except Failure as failure:
            self.close()
            what = f"the kernel does not report mappings with their build ids: {failure}"
            raise AgentError(what, "Linux 5.12 or newer, with kernel.perf_event_paranoid=2 or --privileged") from None

    def close(self) -> None:
        """Ends the reports. May be called twice."""
        while self._fds:
            os.close(self._fds.pop())
