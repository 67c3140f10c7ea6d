"""The exec subresource of a pod as a stream to one node's agent.

Uses the subprotocols v5.channel.k8s.io and v4. Only closing the whole stream ends the process's input. Each message
starts with the number of its channel. An agent that cannot start is not an HTTP error; the reason comes
later, on the error channel and on stderr, so both are kept until the end of the stream.
"""

import asyncio
import json
from collections.abc import Callable, Sequence

from websockets.exceptions import ConnectionClosed

from kubectl_gadget.errors import ClusterError
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.read_turns import wait_for_turn
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import PODS, Object
from kubectl_gadget.kube.websocket import MessageConnection, close_quietly, open_websocket

SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDOUT, _STDERR, _ERROR = b"\1", b"\2", b"\3"
_STDERR_BYTES = 64 << 10
_PIECE = 256 << 10
_UNREAD_BYTES = 256 << 10
"""Once this much was not asked for, nothing more is read from the connection."""


class ExecStream:
    """A byte stream to and from one process in a pod."""

    def __init__(self, websocket: MessageConnection, where: str) -> None:
        self.websocket = websocket
        self._where = where
        self._stderr = bytearray()
        self._status: Object | None = None
        self._closing = False
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._is_paused = self._is_lost = self._takes_turns = False
        self._waiter: asyncio.Future[None] | None = None
        """of a caller of `receive`"""
        self.take: Callable[[bytes], bool] | None = None
        websocket.listen(self._message, self._ended)

    @property
    def stderr_tail(self) -> str:
        """The end of the process's standard error, and why it ended if the API server reported that."""
        text = self._stderr[-2000:].decode(errors="replace").strip()
        if text or self._status is None or self._status.get("status") == "Success":
            return text
        code = self.exit_code
        if code is None:
            return str(self._status.get("message", ""))
        return f"exit code {code}" if code <= 128 else f"killed by signal {code - 128}"

    @property
    def exit_code(self) -> int | None:
        """Exit code of the process; None while it runs, or when it never did."""
        if self._status is None:
            return None
        if self._status.get("status") == "Success":
            return 0
        for cause in (self._status.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode":
                return int(cause.get("message", 1))
        return None

    async def receive(self) -> bytes:
        """Returns the next chunk of the process's output, b"" at its end. Raises ClusterError when the connection
        broke.

        Cancelling it loses no data. A slow caller slows the process down, through the whole connection.
        """
        while not self._unread:
            if self._is_lost:
                if self._status is not None or self._closing:
                    return b""
                raise self._lost(self.websocket.close_exc)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._unread[0] if len(self._unread) == 1 else b"".join(self._unread)
        self._unread.clear()
        self._unread_bytes = 0
        if self._is_paused:
            self._is_paused = self._takes_turns = False
            self.websocket.transport.resume_reading()
        return data

    def unread(self, data: bytes) -> None:
        """Puts bytes back, in front of those that come next."""
        if data:
            self._unread.insert(0, data)

    def _message(self, message: bytes) -> None:
        """Takes a message of the connection."""
        channel, data = message[:1], message[1:]
        if channel == _STDOUT and data and not self._closing:
            waiter = self._waiter
            if waiter is not None and not self._unread and self.take is not None and self.take(data):
                if not self._takes_turns:
                    self._takes_turns = True
                    wait_for_turn(self.websocket.transport)
                return
            self._unread.append(data)
            self._unread_bytes += len(data)
            if self._unread_bytes > _UNREAD_BYTES and not self._is_paused:
                self._is_paused = True
                self.websocket.transport.pause_reading()
            self._wake()
        elif channel == _STDERR:
            self._stderr += data
            del self._stderr[:-_STDERR_BYTES]
        elif channel == _ERROR:
            self._status = _parse_status(data)

    def _ended(self) -> None:
        self._is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lost(self, error: ConnectionClosed) -> ClusterError:
        return ClusterError(f"the connection to {self._where} was lost{_why(error)}")

    async def send(self, data: bytes) -> None:
        """Writes to the process's input; waits while it is full. Raises ClusterError when the connection broke."""
        try:
            for start in range(0, len(data), _PIECE):
                await self.websocket.send(b"\0" + data[start : start + _PIECE])
        except ConnectionClosed as error:
            raise self._lost(error) from None

    async def close(self) -> None:
        """Closes the stream, which ends the agent's input. Never raises."""
        self._closing = True
        self._unread.clear()
        if self._is_paused:
            self._is_paused = False
            self.websocket.transport.resume_reading()
        await close_quietly(self.websocket)


async def open_exec(
    api: Api, namespace: str, pod: str, container: str, command: Sequence[str], where: str | None = None
) -> ExecStream:
    """Starts `command` in a container, with its standard input, output and error.

    Raises ForbiddenError, StatusError (404: no such pod or container) or UnreachableError.
    """
    query = tuple(("command", word) for word in command)
    query += (("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false"))
    access = Access("create", PODS.plural, namespace, "exec")
    websocket = await open_websocket(
        api, PODS.path(namespace, pod, "exec"), query, access, MessageConnection, SUBPROTOCOLS, pings=False
    )
    return ExecStream(websocket, where or f"pod {namespace}/{pod}")


def _why(error: ConnectionClosed) -> str:
    frame = error.rcvd
    return f" ({frame.code} {frame.reason})".replace(" )", ")") if frame is not None and frame.code != 1006 else ""


def _parse_status(data: bytes) -> dict[str, object]:
    try:
        status = json.loads(data)
    except ValueError:
        status = None
    return status if isinstance(status, dict) else {"status": "Failure", "message": data.decode(errors="replace")}
