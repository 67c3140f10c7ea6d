"""A session's events of installed policies: until the session ends, and not beyond."""

from pathlib import Path

from kubectl_gadget.agent.installed.feed import FedRing
from kubectl_gadget.agent.installed.guard import Feed


def test_after_end_only_packets_that_arrived_before_are_read(tmp_path: Path) -> None:
    path = str(tmp_path / "feed")
    feed = Feed(path)
    ring = FedRing(path)
    assert feed.turn()
    feed.complete(1)
    ring.settle()
    assert not ring.empty
    feed.complete(2)
    ring.end()
    assert not ring.empty, "it has not looked yet"
    ring.settle()
    assert (ring.complete_until, ring.empty) == (2, True)
    feed.complete(3)
    ring.settle()
    assert ring.complete_until == 2
    ring.close()
    feed.close()
