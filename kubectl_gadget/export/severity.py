"""The severity of a row, in the words of OpenTelemetry and the numbers of syslog."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.rows.texts import Texts
from kubectl_gadget.rows.vectors import Numbers


class Level(NamedTuple):
    """One severity."""

    text: str
    syslog: int


LEVELS = (Level("INFO", 6), Level("WARN", 4), Level("ERROR", 3))
_WARN, _ERROR = 1, 2
_OF_GADGETS = {
    "trace_oomkill": _ERROR,
    "trace_deadlock": _ERROR,
    "trace_tcpdrop": _WARN,
    "trace_tcpretrans": _WARN,
    "audit_seccomp": _WARN,
    "network_policy": _WARN,
}
"""Gadgets each of whose rows is bad."""
_FAILURES = {"errno": 0, "error": 0, "rcode_raw": 0, "signal_raw": 0, "grpc_status_raw": 0}
"""Numbers that say that something failed, if they are another than this one. Flows have a number named `error`."""
_SIGNAL_IS_WORK = "trace_signal"
_GOOD_VERDICTS = ("FORWARDED", "allowed", "")


def levels(batch: Batch) -> npt.NDArray[np.int8]:
    """Return the place of each row's severity in LEVELS."""
    found = np.full(len(batch), _OF_GADGETS.get(batch.gadget.name, 0), np.int8)
    members = filter_members(batch.gadget)

    def vector(name: str) -> object:
        member = members.get(name)
        return None if member is None else batch.vector(name, member.read)

    for name, good in _FAILURES.items():
        if name == "signal_raw" and batch.gadget.name == _SIGNAL_IS_WORK:
            continue
        column = vector(name)
        if isinstance(column, Numbers):
            bad = column.array != good
            if (known := column.valid()) is not None:
                bad &= known
            found = np.maximum(found, bad.astype(np.int8) * np.int8(_WARN))
    status = vector("status")
    if isinstance(status, Numbers) and batch.gadget.name == "trace_http":
        known = status.valid()
        code = status.array if known is None else np.where(known, status.array, 200)
        found = np.maximum(found, np.where(code >= 500, _ERROR, np.where((code >= 400) | (code == 0), _WARN, 0)))
    for name in ("verdict", "alert"):
        column = vector(name)
        if isinstance(column, Texts) and not column.absent():
            bad = column.test(lambda text: text not in _GOOD_VERDICTS)
            found = np.maximum(found, bad.astype(np.int8) * np.int8(_WARN))
    return found.astype(np.int8)
