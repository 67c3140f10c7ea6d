"""Waiting for what happens by itself, without depending on when.

The trap: a condition that never comes must fail the test, so there is a limit, far beyond what any machine needs.
"""

import asyncio
from collections.abc import Callable

_SECONDS = 120.0


async def until(condition: Callable[[], bool]) -> None:
    """Returns when `condition` holds. Raises TimeoutError after two minutes."""
    async with asyncio.timeout(_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)
