"""A client for tests: starts the real agent as a child process and speaks the protocol with it, frame by frame.

It reads only when asked, so a test decides how slow the reader is.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from kubectl_gadget.wire.frames import Frame, FrameDecoder, FrameType, encode, split_events
from kubectl_gadget.wire.message import parse
from tests.gadget_run import PROJECT
from tests.json_frames import encode_json
from tests.waiting import PATIENCE, source_of


class Client:
    """One session. `frames` are all frames so far; `ring` the ring buffer bytes of each gadget."""

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
        command: tuple[str, ...] = (sys.executable, "-m", "kubectl_gadget.agent", "session"),
    ) -> None:
        self.frames: list[Frame] = []
        self.ring: dict[int, bytearray] = {}
        self.complete_until: dict[int, int] = {}
        self._decoder = FrameDecoder()
        self._next_heartbeat = time.monotonic() + 5
        self.process = subprocess.Popen(
            [*wrapper, *command],
            cwd=PROJECT,
            env=os.environ | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin
        assert self.process.stdout
        self.input = self.process.stdin
        self.output = self.process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()
        with suppress(BrokenPipeError):  # what was not yet flushed to an agent that has ended
            self.input.close()

    def send(self, type: FrameType, value: dict[str, Any] | None = None) -> None:
        self.send_bytes(encode_json(type, value or {}))

    def send_bytes(self, data: bytes) -> None:
        self.input.write(data)
        self.input.flush()

    def run(self, elf: bytes, gadget: dict[str, Any], filter: dict[str, Any] | None = None) -> None:
        """Sends OBJECT and RUN for one gadget and waits until it has started."""
        self.send_bytes(encode(FrameType.OBJECT, elf))
        self.send(FrameType.RUN, {"gadgets": [{"object": 0, **gadget}], "filter": filter or {"host": True}})
        self.wait_for(FrameType.STARTED)

    def read(self, timeout: float = 0.1) -> bool:
        """Reads what is there, and keeps the session alive. False at the end of the stream."""
        if time.monotonic() > self._next_heartbeat and not self.input.closed:
            self._next_heartbeat = time.monotonic() + 5
            with suppress(BrokenPipeError):  # the stream's end tells why
                self.send(FrameType.HEARTBEAT, {"id": 0})
        # Not select(), which takes no descriptor above 1023: a process that runs many tests may have such.
        waiting = select.poll()
        waiting.register(self.output, select.POLLIN)
        if not waiting.poll(timeout * 1000):
            return True
        data = os.read(self.output.fileno(), 1 << 20)
        for frame in self._decoder.feed(data):
            if frame.type == FrameType.EVENTS:
                head, ring = split_events(frame.payload)
                self.ring.setdefault(head.gadget, bytearray()).extend(ring)
                self.complete_until[head.gadget] = head.complete_until
            self.frames.append(frame)
        return bool(data)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Reads until `condition` holds. Fails when the stream ends, or brings no new
        events for a while, before that."""
        end = time.monotonic() + PATIENCE
        bytes_before = 0
        while not condition():
            if (bytes_now := sum(map(len, self.ring.values()))) > bytes_before:
                bytes_before = bytes_now
                end = time.monotonic() + PATIENCE
            assert time.monotonic() < end, f"waited in vain for: {source_of(condition)}\n{self._last_frames()}"
            assert self.read(), f"the stream ended before: {source_of(condition)}\n{self._last_frames()}"

    def wait_for(self, type: FrameType, after: int = 0) -> dict[str, Any]:
        """The first frame of `type` from frame number `after` on."""
        self.wait_until(lambda: any(frame.type == type for frame in self.frames[after:]))
        return parse(next(frame for frame in self.frames[after:] if frame.type == type).payload)

    def finish(self) -> dict[str, Any]:
        """Reads to the end of the stream. The END frame's object."""
        end = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < end, f"the agent does not end; {self._last_frames()}"
        assert self.process.wait(PATIENCE) == 0
        self._decoder.close()
        assert self.frames[-1].type == FrameType.END
        return parse(self.frames[-1].payload)

    def stop(self) -> dict[str, Any]:
        """STOP, and to the end. The END frame's object."""
        self.send(FrameType.STOP)
        return self.finish()

    def _last_frames(self) -> str:
        return f"the last frames: {self.types()[-9:]} {self.frames[-1:]}"

    def types(self) -> list[str]:
        return [FrameType(frame.type).name for frame in self.frames]

    def containers(self) -> dict[str, dict[str, Any]]:
        """All containers that were named so far, by id."""
        return {container["id"]: container for frame in self._changes() for container in frame["containers"]}

    def owners(self) -> dict[int, str | None]:
        """Container id by cgroup id, as told so far."""
        return {int(cgroup): owner for frame in self._changes() for cgroup, owner in frame["cgroups"].items()}

    def removed(self) -> set[int]:
        return {cgroup for frame in self._changes() for cgroup in frame["removed"]}

    def _changes(self) -> list[dict[str, Any]]:
        return [parse(frame.payload) for frame in self.frames if frame.type == FrameType.CONTAINERS]
