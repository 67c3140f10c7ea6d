import asyncio
import signal

import pytest

from kubectl_gadget.run.interrupts import ONE_REQUEST_SECONDS, Interrupts, catch, release


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
    clock.now += ONE_REQUEST_SECONDS * 0.99
    assert not interrupts.take(second)
    assert interrupts.signal == signal.SIGTERM


def test_a_signal_after_a_second_leaves_at_once() -> None:
    clock = Clock()
    interrupts = Interrupts(clock)
    assert not interrupts.take(signal.SIGINT)
    clock.now += ONE_REQUEST_SECONDS
    assert interrupts.take(signal.SIGINT)


@pytest.mark.parametrize("has_handlers", [True, False])
async def test_signals_are_caught_also_where_the_event_loop_takes_none(
    has_handlers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has neither handlers in its event loop nor SIGHUP."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    if not has_handlers:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "add_signal_handler", refuse)
        monkeypatch.setattr(loop, "remove_signal_handler", refuse)
    caught = asyncio.Queue[int]()
    before = signal.getsignal(signal.SIGTERM)
    catch(caught.put_nowait, "SIGTERM", "SIGNOWHERE")
    try:
        signal.raise_signal(signal.SIGTERM)
        assert await caught.get() == signal.SIGTERM
    finally:
        release("SIGTERM", "SIGNOWHERE")
    assert signal.getsignal(signal.SIGTERM) == before
