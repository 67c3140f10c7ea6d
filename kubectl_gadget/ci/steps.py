"""The socket through which `ci step` and `ci stop` reach a run, and the marks that steps leave in the stream.

A mark has the time at which it was received, in the clock that the rows' times are corrected to. `ci step` returns only
after that, so what runs before it is older than the mark and what runs after it is younger, whatever clocks say. Any
process of the job may connect and send anything, or nothing, so requests are small and have a limit of time.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from kubectl_gadget.errors import GadgetError, UsageError

ENVIRONMENT = "KUBECTL_GADGET_CI"
"""The folder of the run, for `ci step`"""
_SOCKET = "socket"
_LONGEST = 4096
_LONGEST_NAME = 200
_MOST = 10_000
_SECONDS = 10.0
_STOP_SECONDS = 120.0
_UNKNOWN = -1
"""the user of a process, on systems that do not say it"""


class Marks:
    """The steps of a run. Added by the event loop, read by the pipeline's thread."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.times_ns: list[int] = []

    def add(self, name: str, wall_ns: int | None = None) -> None:
        """Begins a step, at this time or now."""
        self.names.append(name)
        self.times_ns.append(time.time_ns() if wall_ns is None else wall_ns)

    def at(self, wall_ns: int) -> str:
        """The step at a time; empty before the first one."""
        number = bisect_right(self.times_ns, wall_ns)
        return self.names[number - 1] if number else ""


Request = dict[str, object]
Answer = Callable[[Request], Awaitable[dict[str, object]]]


@contextlib.asynccontextmanager
async def serving(folder: Path, answer: Answer, users: frozenset[int] | None = None) -> AsyncIterator[None]:
    """Answers requests at the socket in `folder` while the block runs. `users`: only theirs; None: everyone's."""
    path = folder / _SOCKET

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                line = await reader.readline()
            request = _parse(line)
            user = _user_of(writer)
            if "stop" in request and user != os.geteuid():
                raise ValueError("only the user of the run may end it")
            if users is not None and user not in (_UNKNOWN, *users):
                raise ValueError("only root and the user who called kubectl gadget ci start may mark steps")
            found = await answer(request)
        except (GadgetError, TimeoutError, ValueError) as error:
            found = {"error": str(error) or "no request was received"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(found).encode() + b"\n")
            await writer.drain()
        writer.close()

    listener = _bound(path)
    server = await asyncio.start_unix_server(serve, sock=listener, limit=_LONGEST)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def _user_of(writer: asyncio.StreamWriter) -> int:
    """The user of the process at the other end."""
    if not hasattr(socket, "SO_PEERCRED"):
        return _UNKNOWN
    size = struct.calcsize("3i")
    found = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", found)[1])


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as name:
        listener.bind(name)
    # COMMAND may run as another user; the folder decides who can get here.
    path.chmod(0o666)
    return listener


@contextlib.contextmanager
def _short(path: Path) -> Any:
    """A name of the path that fits into the address of a socket, which has 108 bytes."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _parse(line: bytes) -> Request:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("a request must be a JSON object")
    return found


def step_answer(marks: Marks, request: Request) -> dict[str, object]:
    """Begins the step of a request. Raises ValueError."""
    name = request.get("step")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("a step needs a name")
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"the name of a step must have at most {_LONGEST_NAME} characters, all printable")
    if len(marks.names) >= _MOST:
        raise ValueError(f"a run can have at most {_MOST} steps")
    marks.add(name)
    return {"step": name}


def ask(folder: Path, request: Request, seconds: float = _SECONDS) -> dict[str, object]:
    """Sends a request to the run of this folder and returns its answer. Raises GadgetError: no run, or refused."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(seconds)
    try:
        with client, _short(folder / _SOCKET) as name:
            client.connect(name)
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as stream:
                found = _parse(stream.readline(_LONGEST))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        remedy = "kubectl gadget ci start first; or call this in COMMAND of kubectl gadget ci run"
        raise NoRun(f"no run of kubectl gadget ci answers in {folder}: {why}", remedy) from None
    if "error" in found:
        raise UsageError(str(found["error"]))
    return found


class NoRun(GadgetError):
    """Nothing answers at the socket."""


def stop(folder: Path) -> bool:
    """Ask the run of this folder to end; the answer comes before it has. Return True if another request had ended it
    already. Raise NoRun."""
    return bool(ask(folder, {"stop": True}, _STOP_SECONDS).get("earlier"))
