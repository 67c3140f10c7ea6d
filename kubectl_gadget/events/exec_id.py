"""The identity of a program that a process runs, as text: base64 of NODE:STARTED:PID, which consumers of security
events know (bpf/include/gadget/process_identity.h says what STARTED is).

The trap: numpy drops the NULs at the end of a field's bytes, so they come shorter than the struct.
"""

import base64
import struct
from typing import NamedTuple

_EXEC = struct.Struct("<QI")
BYTES = 16
"""sizeof(gadget_exec_id)"""


class ExecId(NamedTuple):
    """One program of one process on one node."""

    started: int
    pid: int

    def text(self, node: str) -> str:
        """As in output."""
        return base64.b64encode(f"{node}:{self.started}:{self.pid}".encode()).decode()


def read_exec_id(field: bytes) -> ExecId | None:
    """From a record's field; None for nobody, or who lives outside of the node."""
    started, pid = _EXEC.unpack_from(field.ljust(BYTES, b"\0"))
    return ExecId(started, pid) if started else None
