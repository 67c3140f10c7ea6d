import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from kubectl_gadget.run.services import ONE_REQUEST_SECONDS, Interrupts, catch, how_to_end, release


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


@pytest.fixture
def ignored(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that this process ignores, as one that nohup or a shell's `&` has started."""
    number = signal.Signals[request.param]
    before = signal.signal(number, signal.SIG_IGN)
    yield number
    signal.signal(number, before)


@pytest.mark.parametrize("ignored", ["SIGINT", "SIGHUP"], indirect=True)
async def test_a_signal_that_the_program_was_started_to_ignore_stays_ignored(ignored: signal.Signals) -> None:
    caught = asyncio.Queue[int]()
    catch(caught.put_nowait, "SIGINT", "SIGHUP", "SIGTERM")
    try:
        signal.raise_signal(ignored)
        signal.raise_signal(signal.SIGTERM)
        assert await caught.get() == signal.SIGTERM
    finally:
        release("SIGINT", "SIGHUP", "SIGTERM")
    assert signal.getsignal(ignored) == signal.SIG_IGN


@pytest.mark.parametrize("ignored", ["SIGTERM"], indirect=True)
async def test_sigterm_ends_a_run_even_if_it_was_ignored(ignored: signal.Signals) -> None:
    caught = asyncio.Queue[int]()
    catch(caught.put_nowait, "SIGTERM")
    try:
        signal.raise_signal(ignored)
        assert await caught.get() == signal.SIGTERM
    finally:
        release("SIGTERM")


@pytest.mark.parametrize("ignored", ["SIGINT"], indirect=True)
def test_where_ctrl_c_does_nothing_another_way_is_named(ignored: signal.Signals) -> None:
    assert how_to_end() == f"run kill {os.getpid()} to stop"
