"""What the kernel counts of BPF programs: their run time and runs, while a benchmark asks for it.

The trap: kernel.bpf_stats_enabled stays on when a benchmark is killed, so counting hangs on a file descriptor, which
ends with the process (Linux 5.8).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kubectl_gadget.agent.answers.bpf_programs import KernelObjects, held_programs


@contextmanager
def counting() -> Iterator[None]:
    """The kernel counts inside."""
    descriptor = KernelObjects().count()
    try:
        yield
    finally:
        os.close(descriptor)


def program_counts(pids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Returns nanoseconds and runs of each program that these processes have open, by the program's number."""
    held = {id for pid in pids for id in held_programs(pid)}
    return {one.id: (one.run_time, one.runs) for one in KernelObjects().programs() if one.id in held}
