"""The live page as a run serves it, for tests that are no coroutines: in an event loop of a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.flows.page import LivePage, PageServer
from kubectl_gadget.run.services import Surroundings


@contextmanager
def served(page: LivePage, port: int = 0) -> Iterator[str]:
    """The page's URL, while the block runs. Raises what the service raises."""
    url, stop = Future[str](), Future[None]()

    async def main() -> None:
        server = PageServer(page, port, lambda text: url.set_result(text.removeprefix("open ")))
        async with Tasks(print) as tasks, server.serve(Surroundings(tasks, None)):
            await asyncio.wrap_future(stop)

    def work() -> None:
        try:
            asyncio.run(main())
        except Exception as error:
            url.set_exception(error)

    thread = threading.Thread(target=work, name="web page")
    thread.start()
    try:
        yield url.result()
    finally:
        stop.set_result(None)
        thread.join()
