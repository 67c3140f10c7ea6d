"""A websocket to the API server, for watches and for exec.

The trap: the API server answers a websocket without an Origin header with 403 (it means a missing header, not a missing
right). And a keepalive that requires pongs would end a stream whose reader is slow, since pongs wait behind the data.
So pings are sent, but only the operating system and the session's own heartbeats decide that a peer is gone. A
session's heartbeats come more often, so it needs no pings, which each take a task of the connection.
"""

import asyncio
import asyncio.sslproto
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event
from websockets.typing import Origin, Subprotocol

from kubectl_gadget.kube.connection import CONNECT_SECONDS, ApiRoute, Query, encoded, in_thread
from kubectl_gadget.kube.failure import Access, from_exception, from_status
from kubectl_gadget.kube.requests import Api, warning_text

_PING_SECONDS = 20.0
_DEAD_SECONDS = 30
Made = TypeVar("Made", bound=ClientConnection)

asyncio.sslproto.SSLProtocol.max_size = 32 << 10
"""The size of a connection's buffer for reading. asyncio's own 256 KiB are filled with zeros, so 5,000 nodes take 1.3
GB."""
_shared_buffer = memoryview(bytearray(asyncio.sslproto.SSLProtocol.max_size))


async def open_websocket(
    api: Api,
    path: str,
    query: Query,
    access: Access,
    kind: type[Made],
    subprotocols: Sequence[str] = (),
    *,
    pings: bool = True,
) -> Made:
    """Opens a websocket. Raises ForbiddenError (a 403 refuses `access`), StatusError or UnreachableError.

    `pings`: nothing else is sent while the other side is silent.
    """
    connection = api.connection
    route = connection.known_route
    if route is None:
        route = await in_thread(connection.route)
    try:
        return await _attempt(api, route, path, query, kind, subprotocols, pings)
    except InvalidStatus as error:
        if error.response.status_code != 401 or not await in_thread(lambda: connection.renew(route)):
            raise _refused(api, error, access) from None
    try:
        return await _attempt(api, await in_thread(connection.route), path, query, kind, subprotocols, pings)
    except InvalidStatus as error:
        raise _refused(api, error, access) from None


def _refused(api: Api, error: InvalidStatus, access: Access) -> Exception:
    body = bytes(error.response.body or b"")
    return from_status(error.response.status_code, body, api.cluster.server, access, api.cluster.impersonate)


async def _attempt(
    api: Api, route: ApiRoute, path: str, query: Query, kind: type[Made], subprotocols: Sequence[str], pings: bool
) -> Made:
    connection = api.connection
    headers = connection.recent_headers(route)
    if headers is None:
        headers = await in_thread(lambda: connection.headers(route)) if route.may_block else connection.headers(route)
    user_agent = headers.pop("User-Agent")
    extra: dict[str, Any] = {} if route.ssl_context is None else {"server_hostname": connection.server_hostname(route)}

    def make(protocol: ClientProtocol, **named: Any) -> Made:
        # Not in the URL: each one that is parsed is kept in a cache, and this has the whole command of an exec.
        protocol.uri = replace(protocol.uri, query=encoded(query))
        return kind(protocol, **named)

    try:
        websocket = await connect(
            connection.websocket_url(path),
            ssl=route.ssl_context,
            origin=Origin(api.cluster.server),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            additional_headers=list(headers.iteritems()),
            user_agent_header=user_agent,
            proxy=route.proxy,
            compression=None,
            max_size=None,
            ping_interval=_PING_SECONDS if pings else None,
            ping_timeout=None,
            open_timeout=api.cluster.request_timeout or 3 * CONNECT_SECONDS,
            close_timeout=1.0,
            create_connection=make,  # type: ignore[arg-type]  # it may be a wrapper, by its documentation
            **extra,
        )
    except InvalidStatus:
        raise
    except (OSError, InvalidHandshake, ImportError, EOFError) as error:
        raise from_exception(error, api.cluster.server, route.proxy) from None
    assert isinstance(websocket, kind)
    _detect_dead_peer(websocket)
    for warning in websocket.response.headers.get_all("Warning") if websocket.response else ():
        api.warn_once(warning_text(warning))
    _forget_handshake(websocket)
    _share_buffer(websocket)
    return websocket


def _forget_handshake(websocket: ClientConnection) -> None:
    """Drops the headers and the URL, which has an exec's whole command: 12 KB for each of thousands of connections."""
    websocket.request = None
    if websocket.response is not None:
        websocket.response.headers = Headers()
    protocol = websocket.protocol
    assert isinstance(protocol, ClientProtocol)
    protocol.uri = replace(protocol.uri, path="", query="")


def _share_buffer(websocket: ClientConnection) -> None:
    """Lets connections with TLS read into one buffer. The event loop passes what it has read on before it reads again:
    it waits for sockets, and is not one whose reads go on in the kernel (Windows)."""
    protocol = getattr(websocket.transport, "_ssl_protocol", None)
    if protocol is not None and isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        protocol._ssl_buffer = protocol._ssl_buffer_view = _shared_buffer


def _detect_dead_peer(websocket: ClientConnection) -> None:
    """Makes the operating system end the connection when its packets are no longer acknowledged."""
    raw = websocket.transport.get_extra_info("socket")
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_SECONDS * 1000)


async def close_quietly(websocket: ClientConnection) -> None:
    """Closes it, waiting at most a second; data that the peer still sends is dropped."""
    try:
        async with asyncio.timeout(2.0):
            await websocket.close()
    except TimeoutError:
        websocket.transport.abort()


# A websocket that passes each binary message on as soon as the library has parsed it, without a task or queue of its
# own: queue and wake-up take some 25 µs for a message, parsing 3 µs, and a client of thousands of nodes gets ten
# thousand messages a second.


class MessageConnection(ClientConnection):
    """Messages that come before `listen` are kept for it."""

    # With more than 30 attributes, the dictionary of a connection takes 1.6 KB instead of 0.3.
    __slots__ = ("_early", "_fragments", "_lost", "_take")

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self._early: list[bytes] = []
        self._take: Callable[[bytes], object] = self._early.append
        self._lost: Callable[[], object] = lambda: None
        self._fragments: list[bytes] = []

    def listen(self, take: Callable[[bytes], object], lost: Callable[[], object]) -> None:
        """Pass each message on, first the earlier ones, and call `lost` when no more will come."""
        self._take, self._lost = take, lost
        for message in self._early:
            take(message)
        self._early.clear()
        if self.connection_lost_waiter.done():
            lost()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._lost()
        # The listener refers to this connection, and garbage may not be looked for where it is (run/live_run.py).
        self._take, self._lost = self._early.append, lambda: None

    def process_event(self, event: Event) -> None:
        """See the library: takes a frame that it has parsed."""
        if self.response is None or not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and not self._fragments:
            self._take(bytes(event.data))
        else:
            self._fragments.append(bytes(event.data))
            if event.fin:
                message = b"".join(self._fragments)
                self._fragments.clear()
                self._take(message)
