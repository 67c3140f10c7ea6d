"""Runs blocking calls in threads and awaits them.

The trap: Python joins the threads of an executor when it exits, so one hanging connection would delay the user's prompt
after Ctrl-C. These are daemon threads: a cancelled call is abandoned and ends with the process.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result]) -> Result:
    """Returns or raises the result of `call`, run in a new thread. Cancelling stops the waiting, not the call."""
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
                return  # the loop was closed between these two lines, so no task is waiting any more

    threading.Thread(target=run, name="API request", daemon=True).start()
    return await future
