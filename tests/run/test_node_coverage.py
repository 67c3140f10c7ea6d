"""Which spans are missing: by what the node says, whatever happened to the reader."""

import pytest

from kubectl_gadget.run.coverage import CoverageTracker
from kubectl_gadget.wire.agent_messages import Hello, Started

S = 1_000_000_000


class World:
    """A node and this machine: `now` is true time in seconds, our clock is 1,000 s ahead of the node's boot time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.booted = 0.0
        self.coverage = CoverageTracker(lambda: int((self.now + 1_000) * S))

    def clocks(self, at: float | None = None, boot_id: str | None = None) -> Hello:
        """What the node says at a time, which may be read later."""
        at = self.now if at is None else at
        return Hello(boot_ns=int((at - self.booted) * S), realtime_ns=int((at + 5_000) * S), boot_id=boot_id)

    def attach(self, boot_id: str | None = "a") -> float | None:
        """The span that is missing now."""
        clocks = self.clocks(boot_id=boot_id)
        self.coverage.greeted(clocks)
        gap = self.coverage.attached(1, Started(boot_ns=clocks.boot_ns, realtime_ns=clocks.realtime_ns))
        return None if gap is None else gap.seconds

    def complete(self, until: float) -> None:
        self.coverage.complete(0, int((until - self.booted) * S))


def test_a_client_that_was_stopped_reads_old_frames_and_still_knows_what_is_missing() -> None:
    world = World()
    assert world.attach() is None
    world.complete(101)
    world.now = 130.0  # it wakes up, and reads what was sent while it slept
    world.complete(104.75)
    world.coverage.clocks(world.clocks(at=104.5))
    world.coverage.lost()
    world.now = 131.0
    assert world.attach() == pytest.approx(26.25)


def test_the_span_goes_on_until_the_end_of_a_run_that_does_not_reach_the_node_again() -> None:
    world = World()
    world.attach()
    world.now = 110.0
    world.complete(105)  # read late
    world.coverage.lost()
    world.now = 120.0
    gap = world.coverage.end()
    assert gap is not None
    assert gap.seconds == pytest.approx(15, abs=0.01)
    assert gap.until_ns == pytest.approx((120 + 5_000) * S, abs=S // 100)
    assert world.coverage.end() is None


def test_several_gadgets_are_as_complete_as_the_least_complete_one() -> None:
    world = World()
    clocks = world.clocks(boot_id="a")
    world.coverage.greeted(clocks)
    world.coverage.attached(2, clocks)
    world.now = 109.0
    world.coverage.complete(0, 109 * S)
    world.coverage.complete(1, 108 * S)
    world.coverage.lost()
    world.now = 112.0
    assert world.attach() == pytest.approx(4)


def test_a_node_that_restarted_begins_its_time_again() -> None:
    world = World()
    world.attach()
    world.complete(101)
    world.coverage.lost()
    world.now, world.booted = 400.0, 180.0
    assert world.attach("b") == pytest.approx(299)


def test_a_clock_that_was_set_during_the_run_changes_nothing() -> None:
    world = World()
    world.attach()
    world.complete(101)
    world.coverage.lost()
    world.now = 103.0
    clocks = world.clocks(boot_id="a").replace(realtime_ns=7)
    world.coverage.greeted(clocks)
    gap = world.coverage.attached(1, Started(boot_ns=clocks.boot_ns, realtime_ns=7))
    assert gap is not None
    assert gap.seconds == pytest.approx(2)


def test_nothing_is_missing_of_a_connection_that_was_not_lost_or_never_ran() -> None:
    world = World()
    world.coverage.greeted(world.clocks(boot_id="a"))
    world.coverage.lost()
    assert world.attach() is None
    assert world.coverage.end() is None


def test_attempts_in_vain_do_not_end_the_span() -> None:
    world = World()
    world.attach()
    world.complete(101)
    world.coverage.lost()
    world.now = 105.0
    world.coverage.greeted(world.clocks(boot_id="a"))
    world.coverage.lost()  # before its programs ran
    world.now = 109.0
    assert world.attach() == pytest.approx(8)


@pytest.mark.parametrize("lead", [10**9, 4 * 10**9, -50])
def test_no_span_is_longer_than_the_connection_whatever_times_the_node_claims(lead: int) -> None:
    world = World()
    world.attach()
    world.now = 103.0
    world.coverage.lost()
    world.now = 104.0
    world.booted -= lead
    missing = world.attach()
    assert missing is not None
    assert 0 <= missing <= 4.001
