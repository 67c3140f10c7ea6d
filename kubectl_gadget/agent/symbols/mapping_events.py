"""Makes the kernel report executable mappings with their build ids: dummy perf events, one for each CPU. Linux 5.12.

Nothing reads them; a BPF program at the kernel function that writes them reads its arguments. The trap: CPUs that come
online later have no such event.
"""

import os

from kubectl_gadget.agent.bpf import sampling
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.errors import AgentError

_DUMMY = 9
"""PERF_COUNT_SW_DUMMY."""
_MMAP, _MMAP2, _BUILD_ID = 1 << 8, 1 << 23, 1 << 34
"""Bits of struct perf_event_attr."""


class MappingEvents:
    """Active from its creation until close(). Raises AgentError."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        try:
            for cpu in sampling.online():
                self._fds.append(sampling.open_event(cpu, _DUMMY, 0, _MMAP | _MMAP2 | _BUILD_ID))
        except Failure as failure:
            self.close()
            what = f"the kernel does not report mappings with their build ids: {failure}"
            raise AgentError(what, "Linux 5.12 or newer, with kernel.perf_event_paranoid=2 or --privileged") from None

    def close(self) -> None:
        """Ends the reports. May be called twice."""
        while self._fds:
            os.close(self._fds.pop())
