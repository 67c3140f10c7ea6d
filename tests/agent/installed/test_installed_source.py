"""A session's events of installed policies: until the session ends, and not beyond."""

from pathlib import Path

from kubectl_gadget.agent.installed.feed import Feed
from kubectl_gadget.agent.installed.installed_source import FedRing


def test_a_ring_that_ends_takes_what_is_there_and_nothing_that_comes_later(tmp_path: Path) -> None:
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
