"""Clocks of nodes."""

from kubectl_gadget.run.decoding import NodeClock


def test_the_offset_is_wall_time_less_boot_time() -> None:
    clock = NodeClock()
    clock.observe(boot_ns=100, realtime_ns=1_000_100)
    assert clock.offset_ns == 1_000_000


def test_a_round_trip_that_allows_equal_clocks_corrects_nothing() -> None:
    clock = NodeClock()
    clock.round_trip(sent_ns=1000, received_ns=1100, boot_ns=0, realtime_ns=1090)
    assert clock.skew is not None
    assert (clock.skew.ns, clock.skew.error_ns, clock.skew.proven) == (40, 50, False)
    assert clock.offset_ns == 1090


def test_a_clock_that_is_certainly_ahead_is_corrected() -> None:
    clock = NodeClock()
    clock.round_trip(sent_ns=1000, received_ns=1100, boot_ns=0, realtime_ns=6050)
    assert clock.skew is not None
    assert clock.skew.proven
    assert clock.offset_ns == 1050


def test_the_shortest_round_trip_counts() -> None:
    clock = NodeClock()
    clock.round_trip(sent_ns=0, received_ns=10, boot_ns=5, realtime_ns=105)
    clock.round_trip(sent_ns=1000, received_ns=1400, boot_ns=1300, realtime_ns=1400)
    assert clock.skew is not None
    assert clock.skew.ns == 100


def test_a_clock_that_was_set_is_estimated_again() -> None:
    clock = NodeClock()
    clock.round_trip(sent_ns=0, received_ns=10, boot_ns=5, realtime_ns=5)
    step = 5_000_000_000
    clock.round_trip(sent_ns=1000, received_ns=1400, boot_ns=1200, realtime_ns=1200 + step)
    assert clock.skew is not None
    assert clock.skew.ns == step


def test_before_the_first_answer_nothing_is_corrected() -> None:
    assert NodeClock().offset_ns == 0
    assert NodeClock().skew is None


def test_an_answer_before_its_question_is_ignored() -> None:
    clock = NodeClock()
    clock.round_trip(sent_ns=100, received_ns=50, boot_ns=0, realtime_ns=0)
    assert clock.skew is None
