"""A node's agent that follows a script: real frames without BPF, so that every turn of a session can be forced."""

import asyncio
from collections.abc import Callable
from typing import Any

from kubectl_gadget import __version__
from kubectl_gadget.wire.frames import Frame, FrameDecoder, FrameType
from kubectl_gadget.wire.message import parse
from tests.json_frames import encode_json

HELLO = {
    "protocol": 1,
    "agent": __version__,
    "node": "n1",
    "architecture": "x86_64",
    "kernel": "6.1",
    "boot_ns": 5,
    "realtime_ns": 9,
}

Reaction = Callable[["ScriptedStream", Frame], None]


class ScriptedStream:
    """Says hello at once and reacts to each frame from the client as the script says."""

    stderr_tail = ""
    take: Callable[[bytes], bool] | None = None

    def __init__(self, react: Reaction) -> None:
        self._react = react
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._decoder = FrameDecoder()
        self.received: list[Frame] = []
        self.closed = False
        self.say(FrameType.HELLO, HELLO)

    def say(self, type_: int, value: dict[str, Any]) -> None:
        self._out.put_nowait(encode_json(type_, value))

    def say_bytes(self, data: bytes) -> None:
        self._out.put_nowait(data)

    def hang_up(self) -> None:
        self._out.put_nowait(b"")

    async def receive(self) -> bytes:
        return await self._out.get()

    async def send(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self.received.append(frame)
            self._react(self, frame)

    async def close(self) -> None:
        self.closed = True
        self.hang_up()


def obedient(stream: ScriptedStream, frame: Frame) -> None:
    """Starts at RUN, ends at STOP, answers heartbeats."""
    match frame.type:
        case FrameType.RUN:
            stream.say(FrameType.STARTED, {"gadgets": []})
        case FrameType.STOP:
            stream.say(FrameType.END, {"reason": "stop", "stats": {"gadgets": [{"events": 7, "lost": {}}]}})
        case FrameType.HEARTBEAT:
            stream.say(FrameType.PONG, {"id": parse(frame.payload)["id"], "boot_ns": 6, "realtime_ns": 10})
