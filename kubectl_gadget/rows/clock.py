"""Converts a node's boot time to wall time, and measures its clock's offset from the client's.

Every reply from a node carries the boot time and the wall time of one moment. A reply to our own request also bounds
that moment on our clock: between sending and receiving (Cristian's algorithm; the shortest round trip gives the
tightest bounds). The path through an API server is long and asymmetric, so the midpoint of the bounds is less
accurate than NTP. A node's clock is therefore corrected only if the bounds prove that it differs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Skew:
    """The ns by which a node's clock is ahead of the client's: the estimate and its maximum error."""

    ns: int
    error_ns: int

    @property
    def proven(self) -> bool:
        """True if the two clocks are proven to differ."""
        return abs(self.ns) > self.error_ns


class NodeClock:
    """The clock of one node. It reads no clock itself: all times are passed in."""

    def __init__(self) -> None:
        self._boot_to_wall: int | None = None
        self._skew: Skew | None = None

    def observe(self, boot_ns: int, realtime_ns: int) -> None:
        """Takes both times of HELLO, STARTED, STATS or PONG. The node's wall time may have been set in between."""
        self._boot_to_wall = realtime_ns - boot_ns

    def round_trip(self, sent_ns: int, received_ns: int, boot_ns: int, realtime_ns: int) -> None:
        """Takes a PONG, with the client's wall times of sending the HEARTBEAT and of receiving the PONG."""
        stepped = self._boot_to_wall is not None and abs(realtime_ns - boot_ns - self._boot_to_wall) > 1_000_000
        self.observe(boot_ns, realtime_ns)
        if received_ns < sent_ns:
            return
        skew = Skew(realtime_ns - (sent_ns + received_ns) // 2, (received_ns - sent_ns + 1) // 2)
        if self._skew is None or stepped or skew.error_ns <= self._skew.error_ns:
            self._skew = skew

    @property
    def skew(self) -> Skew | None:
        """The skew of the node's clock; None before the first round trip."""
        return self._skew

    @property
    def offset_ns(self) -> int:
        """Wall time minus boot time in ns, by the node's clock, or by the client's if the two are proven to differ."""
        offset = self._boot_to_wall or 0
        return offset - self._skew.ns if self._skew is not None and self._skew.proven else offset
