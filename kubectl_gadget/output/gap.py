"""A record for a time span in which a node's rows are missing, in machine-readable formats.

The trap: it is not a row, so it has a member that no row has, and none of the gadget's own members.
"""

from typing import Any

import numpy as np

from kubectl_gadget.events.columns.wall_time import Timestamps


def gap_record(node: str, seconds: float, until_ns: int) -> dict[str, Any]:
    """Makes the record. `timestamp` is the end of the span."""
    (timestamp,) = Timestamps(np.array([until_ns], np.int64)).values()
    return {"timestamp": timestamp, "node": node, "gap_seconds": seconds}
