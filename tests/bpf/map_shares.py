"""Shares of a map (bpf/include/gadget/map_shares.h), as if a container had filled its own.

map_shares.fill(tracer, "gadget_thread_shares", "gadget_threads", share=1)
"""

import struct

from tests.bpf.tracer import Tracer

_ALL = 2048
"""GADGET_SHARES"""


def fill(tracer: Tracer, shares: str, of: str, share: int) -> None:
    """Gives the share as many entries of the map `of` as one container may have, and some more, since other processes'
    entries may be removed during the test."""
    most = tracer.object.required_map(of).entries // 2
    counts = tracer.object.required_map(shares)
    others = entries(tracer, shares, _ALL) - entries(tracer, shares, share)
    own = most - others // 2 + most // 10
    for key, count in ((share, own), (_ALL, own + others)):
        counts.put(struct.pack("<I", key), struct.pack("<Q", count))


def entries(tracer: Tracer, shares: str, share: int) -> int:
    """How many entries the share has."""
    found = tracer.object.required_map(shares).get(struct.pack("<I", share))
    assert found is not None
    (count,) = struct.unpack("<Q", found)
    return int(count)


def lost(tracer: Tracer, share: int) -> int:
    """How many records or entries the share's container has lost, as the agent reports by container."""
    found = tracer.object.required_map("gadget_shares").get(struct.pack("<I", share))
    assert found is not None
    (count,) = struct.unpack("<16xQ8x", found)
    return int(count)
