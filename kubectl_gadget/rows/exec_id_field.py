"""Reads the identity of the program that a process runs from a record of any gadget.

The trap: numpy drops trailing NULs of a field, so its bytes may be shorter than the struct.
"""

import struct

from kubectl_gadget.wire.policy_events.exec_id import ExecId

_EXEC = struct.Struct("<QI")
BYTES = 16
"""sizeof(gadget_exec_id)"""


def read_exec_id(field: bytes) -> ExecId | None:
    """Reads the field of a record; None if there is no process, or if it is outside of the node."""
    started, pid = _EXEC.unpack_from(field.ljust(BYTES, b"\0"))
    return ExecId(started, pid) if started else None
