import signal

import pytest

from kubectl_gadget.session.interrupts import ONE_WISH_SECONDS, Interrupts


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_within_a_second_of_the_first_are_one_as_timeout_sends_them(second: int) -> None:
    clock = Clock()
    interrupts = Interrupts(clock)
    assert not interrupts.take(signal.SIGTERM)
    assert not interrupts.take(second)
    clock.now += ONE_WISH_SECONDS * 0.99
    assert not interrupts.take(second)
    assert interrupts.signal == signal.SIGTERM


def test_a_signal_after_a_second_leaves_at_once() -> None:
    clock = Clock()
    interrupts = Interrupts(clock)
    assert not interrupts.take(signal.SIGINT)
    clock.now += ONE_WISH_SECONDS
    assert interrupts.take(signal.SIGINT)
