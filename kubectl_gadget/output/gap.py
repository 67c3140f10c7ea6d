"""A span of which a node's rows are missing, among the rows that machines read.

The trap: it is no row, so it has a member that no row has, and none of the gadget's own.
"""

from typing import Any

import numpy as np

from kubectl_gadget.events.columns.wall_time import Timestamps


def gap_record(node: str, seconds: float, until_ns: int) -> dict[str, Any]:
    """`timestamp` is the end of the span."""
    (timestamp,) = Timestamps(np.array([until_ns], np.int64)).values()
    return {"timestamp": timestamp, "node": node, "gap_seconds": seconds}
