"""The identity of a program that a process runs, in the records of any gadget.

The trap: numpy drops the NULs at the end of a field's bytes, so they come shorter than the struct.
"""

import struct

from kubectl_gadget.policy_events.exec_id import ExecId

_EXEC = struct.Struct("<QI")
BYTES = 16
"""sizeof(gadget_exec_id)"""


def read_exec_id(field: bytes) -> ExecId | None:
    """From a record's field; None where there is no process, or it is outside of the node."""
    started, pid = _EXEC.unpack_from(field.ljust(BYTES, b"\0"))
    return ExecId(started, pid) if started else None
