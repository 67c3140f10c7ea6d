"""From a node's boot time to wall time, and how far its clock is from the client's.

Every answer of a node carries boot and wall time of one moment; an answer to a question of ours also bounds when that
moment was on our clock: between sending and receiving (Cristian's algorithm; the answer with the shortest round trip
bounds it best). The trap: the path through an API server is long and not symmetric, so the middle of the bounds is
worse than NTP. A node's clock is therefore corrected only when the bounds prove that it differs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Skew:
    """How far a node's clock is ahead of the client's, in ns: estimate, and the most that it may be off."""

    ns: int
    error_ns: int

    @property
    def proven(self) -> bool:
        """Whether the two clocks certainly differ."""
        return abs(self.ns) > self.error_ns


class NodeClock:
    """The clock of one node. All times are given, none is asked for."""

    def __init__(self) -> None:
        self._boot_to_wall: int | None = None
        self._skew: Skew | None = None

    def observe(self, boot_ns: int, realtime_ns: int) -> None:
        """Takes both times of HELLO, STARTED, STATS or PONG. Wall time may have been set since the last ones."""
        self._boot_to_wall = realtime_ns - boot_ns

    def round_trip(self, sent_ns: int, received_ns: int, boot_ns: int, realtime_ns: int) -> None:
        """Takes a PONG, with the client's wall time when the HEARTBEAT was sent and when the PONG came."""
        stepped = self._boot_to_wall is not None and abs(realtime_ns - boot_ns - self._boot_to_wall) > 1_000_000
        self.observe(boot_ns, realtime_ns)
        if received_ns < sent_ns:
            return
        skew = Skew(realtime_ns - (sent_ns + received_ns) // 2, (received_ns - sent_ns + 1) // 2)
        if self._skew is None or stepped or skew.error_ns <= self._skew.error_ns:
            self._skew = skew

    @property
    def skew(self) -> Skew | None:
        """How far the node's clock is ahead; None before the first round trip."""
        return self._skew

    @property
    def offset_ns(self) -> int:
        """What to add to boot time for wall time: the node's own, or the client's where the two certainly differ."""
        offset = self._boot_to_wall or 0
        return offset - self._skew.ns if self._skew is not None and self._skew.proven else offset
