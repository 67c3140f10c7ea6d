"""Waiting for what happens by itself, without depending on when.

A condition that never holds must fail the test. So there is a limit, far beyond what any machine needs, and the error
says what the test waited for.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PATIENCE = 300.0
"""Seconds after which a test fails instead of waiting longer. An emulated machine that is busy loads a policy in 60."""

Condition = Callable[[], object]


def wait_until(
    condition: Condition,
    what: str = "",
    *,
    state: Callable[[], object] | None = None,
    over: Condition | None = None,
    seconds: float = PATIENCE,
) -> None:
    """Return when `condition` holds. Raise AssertionError after `seconds`, or earlier when `over` says that it can no
    longer come to hold, such as after the end of a process.

    The error has `what` (default: the source text of the condition) and what `state` returns. The pauses between two
    looks grow to a second: on an emulated processor, who looks often delays what is awaited.
    """
    begin = time.monotonic()
    while True:
        is_over = over is not None and over()
        if condition():
            return
        waited = time.monotonic() - begin
        if is_over or waited > seconds:
            raise AssertionError(_in_vain(condition, what, state, waited))
        time.sleep(min(0.01 + waited / 10, 1.0))


async def until(
    condition: Callable[[], object | Awaitable[object]],
    what: str = "",
    *,
    state: Callable[[], object] | None = None,
    over: Condition | None = None,
    seconds: float = PATIENCE,
) -> None:
    """Like wait_until(), while the event loop continues. The condition may be a coroutine function."""
    begin = time.monotonic()
    while True:
        is_over = over is not None and over()
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            return
        waited = time.monotonic() - begin
        if is_over or waited > seconds:
            raise AssertionError(_in_vain(condition, what, state, waited))
        await asyncio.sleep(0.01)


def source_of(condition: Callable[..., object]) -> str:
    """Return the source text of a condition, in one line."""
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):  # a method in C, or functools.partial
        return repr(condition)


def _in_vain(condition: Callable[..., object], what: str, state: Callable[[], object] | None, waited: float) -> str:
    said = f"waited {waited:.1f} s in vain for: {what or source_of(condition)}"
    return f"{said}\n{state()}" if state else said


async def read_until(stream: asyncio.StreamReader | None, *texts: str, said: bytes = b"") -> bytes:
    """Read what a process writes until it has all of these texts. Return it, with `said`, which was read before."""
    assert stream is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while missing := [text for text in texts if text.encode() not in said]:
                piece = await stream.read(4096)
                assert piece, f"it ended before it said {missing}, and said: {said.decode()}"
                said += piece
    except TimeoutError:
        raise AssertionError(f"waited in vain for {missing}; it said: {said.decode()}") from None
    return said
