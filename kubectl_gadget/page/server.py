"""Serves the page of a run that goes on, on this machine's loopback interface.

Opening it requires the random token in its URL. The page and its data come from one websocket server and nothing comes
from elsewhere. Any page in the user's browser can connect to loopback, and a name of its own may lead there (DNS
rebinding), so besides the token, the Host and Origin headers have to be ours, or of a proxy that the user named. A
proxy may serve the page below a path: the page asks for what is beside it, and only the last part of a path counts.
"""

import asyncio
import hmac
import http
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Protocol

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.run.services import Surroundings

_TICK_SECONDS = 0.25
_LOOPBACK = ("127.0.0.1", "localhost")
_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)


class Content(Protocol):
    """The contents of a server. All methods may be called from any thread."""

    def document(self) -> tuple[str, str]:
        """Return the page, and its policy (CSP)."""

    def all(self) -> str:
        """Return a message with everything, for a page that was just opened."""

    def updates(self) -> str | None:
        """Return a message with the changes since the last call; None when there are none."""

    def saved(self, name: str) -> tuple[bytes, str] | None:
        """Return a file that the page offers, and the name to save it under; None: there is none."""

    def begin(self, run: Surroundings) -> None:
        """Called when the page is served: `run` tells how far the run is."""


class PageServer:
    """A service of a run (`serve`): the page on a port of this machine. `opened` is called with its URL."""

    def __init__(
        self, page: Content, opened: Callable[[str], object], port: int = 0, hosts: Collection[str] = ()
    ) -> None:
        """`port` 0: any free port. `hosts`: further names, HOST or HOST:PORT, by which a proxy is asked for it."""
        self._page = page
        self._opened = opened
        self._port = port
        self._hosts = frozenset(host.lower() for host in hosts)
        self._token = secrets.token_urlsafe(24)

    @asynccontextmanager
    async def serve(self, run: Surroundings) -> AsyncIterator[None]:
        """Raises GadgetError when the port is taken."""
        try:
            server = await serve(
                self._follow,
                "127.0.0.1",
                self._port,
                process_request=lambda _, request: self._answer(request),
                max_size=1 << 16,
                ping_interval=None,
            )
        except OSError as error:
            raise GadgetError(
                f"the page cannot be served on port {self._port}: {error.strerror}", "another --web-port"
            ) from None
        async with server:
            port = next(iter(server.sockets)).getsockname()[1]
            self._page.begin(run)
            self._opened(f"http://127.0.0.1:{port}/?token={self._token}")
            run.tasks.start(self._broadcast(server), "updates of the web page")
            yield

    async def _broadcast(self, server: Server) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            # In a thread, since this takes a while for a large map.
            if changes := await asyncio.to_thread(self._page.updates):
                broadcast(server.connections, changes)

    async def _follow(self, connection: ServerConnection) -> None:
        """Sends everything; updates follow by broadcast until the page is closed."""
        await connection.send(await asyncio.to_thread(self._page.all))
        await connection.wait_closed()

    async def _answer(self, request: Request) -> Response | None:
        """Return the page, a file, an error response, or None to go on with the websocket."""
        path, _, query = request.path.partition("?")
        host, named_origin = (_only(request.headers.get_all(name)) for name in ("Host", "Origin"))
        if not (_name(host) in _LOOPBACK or self._is_named(host)):
            return _refuse("this page is for this machine only. try: --allow-host HOST, for a proxy of your own")
        if not hmac.compare_digest(query.encode(), f"token={self._token}".encode()):
            return _refuse("the token is missing or wrong: open the whole URL that kubectl gadget printed")
        name = path.rpartition("/")[2]
        if name == "live":
            _, _, origin = named_origin.partition("://")
            is_own = origin != "" and (origin.lower() == host.lower() or self._is_named(origin))
            return None if is_own else _refuse("the request comes from another page")
        if not name:
            text, policy = await asyncio.to_thread(self._page.document)
            return _respond(http.HTTPStatus.OK, "text/html; charset=utf-8", text.encode(), policy)
        found = await asyncio.to_thread(self._page.saved, name)
        if found is None:
            return _respond(http.HTTPStatus.NOT_FOUND, "text/plain", b"there is only one page\n")
        answer = _respond(http.HTTPStatus.OK, "application/octet-stream", found[0])
        answer.headers["Content-Disposition"] = f'attachment; filename="{found[1]}"'
        return answer

    def _is_named(self, host: str) -> bool:
        """True if the user named this host, with its port or without any."""
        return not self._hosts.isdisjoint({host.lower(), _name(host)})


def _only(values: list[str]) -> str:
    return values[0] if len(values) == 1 else ""


def _name(host: str) -> str | None:
    """Return a host's name without its port; None: it is no host."""
    found = _HOST.fullmatch(host)
    return found and found["name"].lower()


def _refuse(why: str) -> Response:
    return _respond(http.HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", f"{why}\n".encode())


def _respond(status: http.HTTPStatus, kind: str, body: bytes, policy: str = "default-src 'none'") -> Response:
    headers = Headers(
        {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, body)
