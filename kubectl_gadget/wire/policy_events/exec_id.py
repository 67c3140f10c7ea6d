"""Identifies one program that a process ran (bpf/include/gadget/process_identity.h explains STARTED)."""

import base64
from typing import NamedTuple


class ExecId(NamedTuple):
    """One program of one process on one node."""

    started: int
    pid: int

    def text(self, node: str) -> str:
        """The ID in output: base64 of NODE:STARTED:PID, the form that consumers of security events know."""
        return base64.b64encode(f"{node}:{self.started}:{self.pid}".encode()).decode()
