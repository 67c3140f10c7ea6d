"""Settled records that no reaction has processed yet.

The trap: they are read long before they are sent, so the ring does not advance here.
"""

from collections.abc import Iterator

from kubectl_gadget.agent.bpf.ring import Ring
from kubectl_gadget.agent.policies.log import records


class FreshRecords:
    """The fresh records of one ring."""

    def __init__(self) -> None:
        self._seen = 0

    def of(self, ring: Ring) -> Iterator[bytes]:
        """Yields the records since the last call, up to the settled position. Callers must consume it to the end."""
        start = ring.position
        batch = ring.batch()
        try:
            fresh = batch[max(0, self._seen - start) :]
            self._seen = start + len(batch)
            yield from records(fresh)
            fresh.release()
        finally:
            batch.release()
