"""Background tasks with an owner: one that ends by an error tells it, so nobody waits for it in vain.

The trap: asyncio keeps the error of a task that nobody awaits to itself, and what the task was to bring never comes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from kubectl_gadget.errors import GadgetError, internal_error

Failed = Callable[[GadgetError], object]


def start(work: Coroutine[Any, Any, object], name: str, failed: Failed) -> asyncio.Task[None]:
    """Runs `work` beside its owner, who cancels and awaits the task (`end`), and whom `failed` gives the error with
    which it ends."""
    return asyncio.create_task(_owned(work, failed), name=name)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancels tasks and waits until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _owned(work: Coroutine[Any, Any, object], failed: Failed) -> None:
    try:
        await work
    except Exception as error:
        failed(as_gadget_error(error))


def as_gadget_error(error: BaseException) -> GadgetError:
    """What a user can be told of it, also when it comes out of a task group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, GadgetError) else internal_error(error)
