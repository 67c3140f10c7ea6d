"""Background tasks with an owner, which gets the error of a task that fails, so that no caller waits for its result in
vain.

The trap: asyncio does not report the error of a task until it is awaited, and its result never comes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType

from kubectl_gadget.errors import GadgetError, internal_error

Failed = Callable[[GadgetError], object]


class Tasks:
    """The background tasks of one run. Leaving the block cancels the running tasks and waits for them.

    `failed` gets the error of each task that fails; the other tasks continue, so that a run can end in an orderly way.
    """

    def __init__(self, failed: Failed) -> None:
        self._failed = failed
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Tasks":
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        # The block's own error is not passed, since the group would wrap it.
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[object, object, object], name: str) -> asyncio.Task[None]:
        """Runs `work` in the background until it ends or this block does."""
        task = self._group.create_task(_owned(work, self._failed), name=name)
        self._running.add(task)
        # One callback, since asyncio keeps a context for each, and a run has a task for each of thousands of nodes.
        task.add_done_callback(partial(self._end, work))
        return task

    def _end(self, work: Coroutine[object, object, object], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        work.close()  # for a task that was cancelled before its first step

    def fail(self, error: GadgetError) -> None:
        """Reports an error to the owner; the task that calls this continues."""
        self._failed(error)


def start(work: Coroutine[object, object, object], name: str, failed: Failed) -> asyncio.Task[None]:
    """Runs `work` for a single owner, which must await the task in the end, and whose `failed` gets the error if it
    fails."""
    return asyncio.create_task(_owned(work, failed), name=name)


async def cancel(*tasks: asyncio.Task[object]) -> None:
    """Cancels tasks and waits until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _owned(work: Coroutine[object, object, object], failed: Failed) -> None:
    try:
        await work
    except Exception as error:
        failed(as_gadget_error(error))


def as_gadget_error(error: BaseException) -> GadgetError:
    """The error to show to the user for this one, including if a task group has wrapped it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, GadgetError) else internal_error(error)
