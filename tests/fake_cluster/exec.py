"""The exec websocket: the real agent as a child process, with the subprotocols and failures of a real server.

End of input comes in two ways, as v5's close message or as the end of the connection, and both must reach the child, or
an agent would outlive its client.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from kubectl_gadget.agents.manifests import AGENT_COMMAND
from kubectl_gadget.agents.payload import PYTHON as PYTHON_WORDS
from kubectl_gadget.wire.frames import FrameType, encode
from tests.fake_cluster.faults import Faults
from tests.gadget_run import PROJECT

AGENT = (sys.executable, "-m", "kubectl_gadget.agent", "session")
PYTHON = "/usr/bin/python3"
"""The image's Python, which has none of our modules."""
BOOTSTRAP = (*PYTHON_WORDS, "-c")
"""The first words of the command of a session that brings its own agent."""
_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255
_PIECE = 32 << 10

ServeExec = Callable[[web.Request, str, Faults, tuple[str, ...], dict[str, str]], Awaitable[web.WebSocketResponse]]


async def serve_exec(
    request: web.Request, node: str, faults: Faults, agent: tuple[str, ...], environment: dict[str, str]
) -> web.WebSocketResponse:
    """Serves one exec on `node`, until process or client end. `agent` is run in place of the session's command."""
    await _until_thawed(faults, node)
    websocket = web.WebSocketResponse(protocols=faults.subprotocols, max_msg_size=0, compress=False)
    try:
        await websocket.prepare(request)
    except ConnectionError:
        return websocket  # the client did not wait
    command = tuple(request.query.getall("command"))
    if node in faults.silent_exec:
        await websocket.receive()
        return websocket
    if command[:3] == BOOTSTRAP:
        # Fake agents are in the image; the real one comes with the client, or is that of the source tree if
        # nothing was built that could be sent.
        if agent != AGENT or not command[4]:
            await _say(websocket, _STDOUT, encode(FrameType.BOOT, b"have"))
            command = (*AGENT_COMMAND, *command[5:])
        else:
            command = (PYTHON, *command[1:])
    # The machine's Python does not have our package.
    ours = [sys.executable, "-m", *command[3:]] if command[:3] == AGENT_COMMAND[:3] else command
    words = ours if agent == AGENT or command[:5] != (*AGENT_COMMAND, "session") else agent
    if words is agent:
        # The session's declared words; a command that does not end with "session" gets that word as well.
        words = (*agent, *command[5 if agent[-1] == "session" else 4 :])
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=PROJECT,
            env={**os.environ, "NODE_NAME": node, "POD_UID": f"agent-{node}", "KUBECTL_GADGET_HOST": "", **environment},
        )
    except OSError as error:
        message = f"error executing command in container: {error}"
        await _say(websocket, _ERROR, json.dumps({"status": "Failure", "message": message}).encode())
        await websocket.close()
        return websocket
    await _Exec(websocket, process, node, faults, request).run()
    return websocket


async def compile_modules(files: list[str], folder: Path) -> None:
    """What the main process of a resident pod, which does not run here, has done before the first session. `files` are
    those in its folder."""
    kept = [name for name in files if fnmatch(name, "kubectl-gadget." + 64 * "[0-9a-f]")]
    for path in [str(folder / name) for name in kept if not any(other.startswith(f"{name}.") for other in files)]:
        command = f"import sys; sys.path.append({path!r}); from kubectl_gadget.agent.pod import own_files; "
        await (
            await asyncio.create_subprocess_exec(PYTHON, "-I", "-c", command + f"own_files.compile_to_copy({path!r})")
        ).wait()


class _Exec:
    def __init__(
        self,
        websocket: web.WebSocketResponse,
        process: asyncio.subprocess.Process,
        node: str,
        faults: Faults,
        request: web.Request,
    ) -> None:
        self._websocket = websocket
        self._process = process
        self._node = node
        self._faults = faults
        self._request = request
        self._sent = 0

    async def run(self) -> None:
        reader = asyncio.create_task(self._read(), name="stdin")
        outputs = (self._write(self._process.stdout, _STDOUT), self._write(self._process.stderr, _STDERR))
        try:
            await asyncio.gather(*outputs)
            code = await self._process.wait()
            await _say(self._websocket, _ERROR, json.dumps(_status(code)).encode())
            await self._websocket.close()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        """Ends the process. A real runtime lets it continue with its input at the end; here it gets some seconds for
        that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.returncode is not None:
            return
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _read(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        async for message in self._websocket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            await _until_thawed(self._faults, self._node)
            channel, data = message.data[0], message.data[1:]
            if channel == _CLOSE and data == bytes([_STDIN]):
                stdin.close()
            elif channel == _STDIN:
                stdin.write(data)
                try:
                    await stdin.drain()
                except ConnectionError:
                    return  # the process has ended; its status tells the client
        stdin.close()

    async def _write(self, pipe: asyncio.StreamReader | None, channel: int) -> None:
        assert pipe is not None
        while data := await pipe.read(self._faults.piece or _PIECE):
            await _until_thawed(self._faults, self._node)
            if channel == _STDOUT and self._cuts(len(data)):
                assert self._request.transport is not None
                self._request.transport.abort()
            if not await _say(self._websocket, channel, data):
                assert self._process.stdin is not None
                self._process.stdin.close()
                while await pipe.read(_PIECE):  # so that the process does not block in a write
                    continue
                return
            if self._faults.slow:
                await asyncio.sleep(self._faults.slow)

    def _cuts(self, length: int) -> bool:
        limit = self._faults.cut_after.get(self._node)
        self._sent += length
        if limit is None or self._sent <= limit:
            return False
        del self._faults.cut_after[self._node]
        return True


async def _until_thawed(faults: Faults, node: str) -> None:
    while node in faults.frozen:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def _say(websocket: web.WebSocketResponse, channel: int, data: bytes) -> bool:
    """Sends one message; returns False if the client is gone."""
    try:
        await websocket.send_bytes(bytes([channel]) + data)
    except (ConnectionError, RuntimeError):
        return False
    return not websocket.closed


def _status(code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    message = f"command terminated with non-zero exit code: exit status {code}"
    return {"status": "Failure", "reason": "NonZeroExitCode", "message": message, "details": {"causes": causes}}
