"""The identity of a program that a process runs (bpf/include/gadget/process_identity.h says what STARTED is)."""

import base64
from typing import NamedTuple


class ExecId(NamedTuple):
    """One program of one process on one node."""

    started: int
    pid: int

    def text(self, node: str) -> str:
        """As in output: base64 of NODE:STARTED:PID, which consumers of security events know."""
        return base64.b64encode(f"{node}:{self.started}:{self.pid}".encode()).decode()
