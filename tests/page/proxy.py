"""A small reverse proxy, as a development environment in a cluster has one: another name, and below a path."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

PATH = "/user/jo/proxy"
NAME = "code.localhost"
"""Browsers look for it on this machine, and it is none of the page's own names."""


@contextmanager
def proxy(port: int, *, strips: bool, keeps_host: bool) -> Iterator[int]:
    """The port of a proxy of http://127.0.0.1:`port`/. `strips`: it takes the path off; `keeps_host`: it passes on the
    Host header that the browser sent."""
    ready, stop = Future[int](), Future[None]()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            writer.close()
            return
        first, *headers = head.removesuffix("\r\n\r\n").split("\r\n")
        if strips:
            first = first.replace(f" {PATH}/", " /", 1)
        if not keeps_host:
            headers = [f"Host: 127.0.0.1:{port}" if each.lower().startswith("host:") else each for each in headers]
        own_reader, own_writer = await asyncio.open_connection("127.0.0.1", port)
        own_writer.write("\r\n".join([first, *headers, "", ""]).encode("latin-1"))
        await asyncio.gather(copy(reader, own_writer), copy(own_reader, writer))

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            ready.set_result(server.sockets[0].getsockname()[1])
            await asyncio.wrap_future(stop)
            server.close_clients()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="proxy")
    thread.start()
    try:
        yield ready.result()
    finally:
        stop.set_result(None)
        thread.join()
