"""What the kernel counts of BPF programs: their run time and runs, while a benchmark asks for it.

The setting kernel.bpf_stats_enabled stays on when a benchmark is killed, so counting hangs on a file descriptor, which
ends with the process (Linux 5.8). And counting itself takes time, which the kernel counts with each run.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kubectl_gadget.agent.bpf.object import BpfObject, own_elf
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.sources.samplers import KernelObjects

_NOTHING = "on_sys_exit"
_CALLS = 100_000


@contextmanager
def counting() -> Iterator[None]:
    """The kernel counts inside."""
    descriptor = KernelObjects().start_counting()
    try:
        yield
    finally:
        os.close(descriptor)


def program_counts(pids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Returns nanoseconds and runs of each program that these processes have open, by the program's number."""
    held = {id for pid in pids for _, id in procfs.bpf_objects(pid, b"prog_id")}
    return {one.id: (one.run_time, one.runs) for one in KernelObjects().programs() if one.id in held}


def counting_ns() -> float:
    """Nanoseconds that counting adds to each run: what is counted of a program that does nothing. Call it while the
    kernel counts."""
    nothing = BpfObject(own_elf("attach_probe"), "nothing", [_NOTHING])
    try:
        nothing.load()
        nothing.attach(_NOTHING)
        id = nothing.id_of(_NOTHING)
        for _ in range(_CALLS):
            os.getppid()
        return next(one.run_time / one.runs for one in KernelObjects().programs() if one.id == id)
    finally:
        nothing.close()


def program_names() -> dict[int, str]:
    """Names of all programs, of at most 15 characters, by number."""
    return {one.id: one.name.decode(errors="replace") for one in KernelObjects().programs()}
