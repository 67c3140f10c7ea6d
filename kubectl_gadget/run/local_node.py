"""The agent of this machine, as a child process over pipes.

It is the same program that runs in a pod. The traps: a terminal's Ctrl-C goes to the whole process group, so the child
gets a session of its own and learns of the end from its input. And each system call gives the interpreter to the thread
that prints, which may keep it for long on a busy machine: so the pipe is large, and few calls read much.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from kubectl_gadget import background_tasks
from kubectl_gadget.errors import AgentError, GadgetError
from kubectl_gadget.run.local_agent import LocalAgent, take

_LEAST, _MOST = 256 << 10, 16 << 20
"""Bytes that one read takes: the size grows while reads are full."""
_END_SECONDS = 3.0


class LocalStream:
    """A child process that runs one agent session, with a writer to its input."""

    def __init__(self, agent: LocalAgent, input: asyncio.StreamWriter) -> None:
        self._process = agent.process
        self._input = input
        self._output = agent.output
        self.is_asked = agent.is_asked
        """the agent was already sent the request"""
        self._most = _LEAST
        if agent.unsent:
            input.write(agent.unsent)
        self.take: Callable[[bytes], bool] | None = None
        self._stderr = bytearray()
        self._collector = background_tasks.start(self._collect_stderr(), "stderr of the local agent", self._unheard)

    @property
    def stderr_tail(self) -> str:
        return self._stderr[-2000:].decode(errors="replace").strip()

    async def receive(self) -> bytes:
        await asyncio.sleep(0)  # other tasks have their turn, also while there is always something to read
        data = await _read(self._output, self._most)
        self._most = min(4 * self._most, _MOST) if len(data) == self._most else _LEAST
        return data

    async def send(self, data: bytes) -> None:
        # If the agent has ended, its reason is still in its output or standard error, where the reader finds it.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._input.write(data)
            await self._input.drain()

    async def close(self) -> None:
        self._input.close()
        exit = os.pidfd_open(self._process.pid)
        try:
            await asyncio.wait_for(_readable(exit), _END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await _readable(exit)
        finally:
            os.close(exit)
        self._process.wait()
        await self._collector
        os.close(self._output)

    def _unheard(self, error: GadgetError) -> None:
        self._stderr += f"\nits output cannot be read: {error}".encode()

    async def _collect_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            os.set_blocking(stderr.fileno(), False)
            while piece := await _read(stderr.fileno(), 4096):
                self._stderr += piece
                del self._stderr[:-65536]


async def open_local(what: str = "session") -> LocalStream:
    """Starts the agent on this machine, for a session or for another of its commands.

    Raises AgentError when this machine does not run Linux.
    """
    if sys.platform != "linux":
        raise AgentError(
            f"this machine runs {sys.platform}, and only Linux has eBPF",
            "use a cluster: set KUBECONFIG or --kubeconfig and leave out --local",
        )
    agent = take(what)
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())  # for its flow control
    transport, _ = await loop.connect_write_pipe(lambda: protocol, agent.process.stdin)
    return LocalStream(agent, asyncio.StreamWriter(transport, protocol, None, loop))


async def _read(fd: int, most: int) -> bytes:
    while True:
        try:
            return os.read(fd, most)
        except BlockingIOError:
            await _readable(fd)


async def _readable(fd: int) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(fd)
