"""Blocking calls, awaited.

The trap: the threads of an executor are joined when Python exits, so one hanging connection would hold the user's
prompt back after Ctrl-C. These are daemons: a cancelled call is left alone and dies with the process.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result]) -> Result:
    """What `call` returns or raises, from a thread of its own. Cancelling stops the waiting, not the call."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: Result | None = None
        failure: BaseException | None = None
        try:
            result = call()
        except BaseException as error:
            failure = error
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:
                return  # the loop was closed between the two lines: no one waits any more

    threading.Thread(target=run, name="API request", daemon=True).start()
    return await future
