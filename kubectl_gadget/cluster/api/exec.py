"""The exec subresource of a pod as a stream to one node's agent.

Uses the subprotocols v5.channel.k8s.io and v4. Only closing the whole stream ends the process's input. Each message
starts with the number of its channel. The trap: an agent that cannot start is not an HTTP error; the reason comes
later, on the error channel and on stderr, so both are kept until the end of the stream.
"""

import json
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from kubectl_gadget.cluster.api.failure import Access
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import PODS
from kubectl_gadget.cluster.api.websocket import close_quietly, open_websocket
from kubectl_gadget.errors import ClusterError

SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDOUT, _STDERR, _ERROR = 1, 2, 3
_STDERR_BYTES = 64 << 10
_PIECE = 256 << 10


class ExecStream:
    """A byte stream to and from one process in a pod."""

    def __init__(self, websocket: ClientConnection, where: str) -> None:
        self._websocket = websocket
        self._where = where
        self._stderr = bytearray()
        self._status: dict[str, Any] | None = None
        self._closing = False
        self._unread = b""

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
        if self._unread:
            data, self._unread = self._unread, b""
            return data
        while True:
            try:
                message = await self._websocket.recv(decode=False)
            except ConnectionClosed as error:
                if self._status is not None or self._closing:
                    return b""
                raise ClusterError(f"the connection to {self._where} was lost{_why(error)}") from None
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel == _STDOUT and data:
                return data
            if channel == _STDERR:
                self._stderr += data
                del self._stderr[:-_STDERR_BYTES]
            elif channel == _ERROR:
                self._status = _parse_status(data)

    def unread(self, data: bytes) -> None:
        """Puts bytes back, in front of those that come next."""
        self._unread = data + self._unread

    async def send(self, data: bytes) -> None:
        """Writes to the process's input; waits while it is full. Raises ClusterError when the connection broke."""
        try:
            for start in range(0, len(data), _PIECE):
                await self._websocket.send(b"\0" + data[start : start + _PIECE])
        except ConnectionClosed as error:
            raise ClusterError(f"the connection to {self._where} was lost{_why(error)}") from None

    async def close(self) -> None:
        """Closes the stream, which ends the agent's input. Never raises."""
        self._closing = True
        await close_quietly(self._websocket)


async def open_exec(
    api: Api, namespace: str, pod: str, container: str, command: Sequence[str], where: str | None = None
) -> ExecStream:
    """Starts `command` in a container, with its standard input, output and error.

    Raises ForbiddenError, StatusError (404: no such pod or container) or UnreachableError.
    """
    query = tuple(("command", word) for word in command)
    query += (("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false"))
    access = Access("create", PODS.plural, namespace, "exec")
    websocket = await open_websocket(api, PODS.path(namespace, pod, "exec"), query, access, SUBPROTOCOLS)
    return ExecStream(websocket, where or f"pod {namespace}/{pod}")


def _why(error: ConnectionClosed) -> str:
    frame = error.rcvd
    return f" ({frame.code} {frame.reason})".replace(" )", ")") if frame is not None and frame.code != 1006 else ""


def _parse_status(data: bytes) -> dict[str, Any]:
    try:
        status = json.loads(data)
    except ValueError:
        status = None
    return status if isinstance(status, dict) else {"status": "Failure", "message": data.decode(errors="replace")}
