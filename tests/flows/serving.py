"""The live page as a run serves it, for tests that are no coroutines: in an event loop of a thread of its own."""

import asyncio
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.flows.page import LivePage
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.page.live import LiveRun
from kubectl_gadget.page.server import PageServer
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, LiveView, Replay, RunOptions
from kubectl_gadget.run.services import Surroundings


def run_of_flows(page: LivePage) -> LiveRun:
    """A run of `flows --web`, which gives flows to this map."""
    options = RunOptions((GadgetRun(load_gadget("trace_tcp")),), local=True, ui=LiveView(first="map"))
    return LiveRun(options, Replay((Path("none"),)), Progress(StringIO()), page)


@contextmanager
def served(page: LiveRun | LivePage, port: int = 0, hosts: Collection[str] = ()) -> Iterator[str]:
    """The page's URL, while the block runs. Raises what the service raises."""
    url, stop = Future[str](), Future[None]()
    content = run_of_flows(page) if isinstance(page, LivePage) else page

    async def main() -> None:
        server = PageServer(content, url.set_result, port, hosts)
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
