"""Starts an agent in a pod, after sending it there if the pod does not have it (docs/protocol.md, BOOT).

When Python or the agent cannot start, the reason comes from the process's standard error or from the container runtime,
not from the API server, and the stream ends before the session begins. The last line is then the reason, and the text
after "try:" in it is the remedy.
"""

import asyncio
import struct
from collections.abc import Sequence

from kubectl_gadget.agents.payload import DEFAULT_IMAGE, PYTHON, payload, payload_bytes
from kubectl_gadget.errors import AgentError, ClusterError
from kubectl_gadget.kube.exec import ExecStream, open_exec
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.wire.frames import MAGIC, VERSION, FrameType, encode

_SECONDS = 20.0
"""Time limit for the start of Python, and for each chunk of a payload."""
_HEAD = struct.Struct("<2sBBI")
_MOST = 64
"""Maximum size in bytes of BOOT's payload."""
_BOOTSTRAP = (*PYTHON, "-c")
"""The first words of a command that either receives the agent or uses the deployment's."""
NO_PYTHON = "the image has no python3"
OTHER_IMAGE = f"--image {DEFAULT_IMAGE}, or another with Python 3.9 or newer"


def command(words: Sequence[str]) -> tuple[str, ...]:
    """Returns the command that starts the agent with `words` in a pod that may not have one."""
    return (*payload().start, *words)


async def open_agent(
    api: Api, namespace: str, pod: str, container: str, words: Sequence[str], where: str | None = None
) -> ExecStream:
    """Starts the agent with `words` (after `python3 -I -m kubectl_gadget.agent`) and returns its stream before HELLO.

    Raises the errors of open_exec, and AgentError when the agent cannot be started there.
    """
    return await open_command(api, namespace, pod, container, command(words), where)


async def open_command(
    api: Api, namespace: str, pod: str, container: str, words: Sequence[str], where: str | None = None
) -> ExecStream:
    """Like open_agent, for a complete command, which may also start the agent of the pod's image."""
    stream = await open_exec(api, namespace, pod, container, words, where)
    try:
        if tuple(words[: len(_BOOTSTRAP)]) == _BOOTSTRAP:
            await _boot(stream)
    except BaseException:
        await stream.close()
        raise
    return stream


async def _boot(stream: ExecStream) -> None:
    text = await _answer(stream)
    word, _, machine = text.partition(" ")
    if word == "send":
        await stream.send(encode(FrameType.PAYLOAD, payload_bytes(machine)))
    elif word != "have":
        raise AgentError(f"its bootstrap printed {text[:_MOST]!r}, which no agent prints")


async def _answer(stream: ExecStream) -> str:
    """Returns BOOT's payload; later bytes stay in the stream."""
    found = b""
    while True:
        if len(found) >= _HEAD.size:
            magic, version, type, length = _HEAD.unpack_from(found)
            if (magic, version, type) != (MAGIC, VERSION, FrameType.BOOT) or length > _MOST:
                raise AgentError(f"its image prints {found[:_MOST]!r} before the agent starts", OTHER_IMAGE)
            if len(found) >= _HEAD.size + length:
                stream.unread(found[_HEAD.size + length :])
                return found[_HEAD.size : _HEAD.size + length].decode(errors="replace")
        try:
            async with asyncio.timeout(_SECONDS):
                data = await stream.receive()
        except TimeoutError:
            raise ClusterError(f"its Python has not started within {_SECONDS:.0f} s") from None
        if not data:
            raise ended(stream.stderr_tail)
        found += data


def ended(said: str) -> AgentError:
    """Builds the error for an agent that ended, from its standard error."""
    lines = said.strip().splitlines()
    last = lines[-1].strip() if lines else "it printed nothing"
    if is_without_python(said):
        return AgentError(NO_PYTHON, OTHER_IMAGE)
    what, _, remedy = last.partition(". try: ")
    return AgentError(f"its agent ended: {what}", remedy or None)


def is_without_python(said: str) -> bool:
    """True if a container runtime or a shell reports that there is no python3."""
    absent = ("executable file not found", "no such file or directory", "not found")
    return "python3" in said and any(text in said.lower() for text in absent)
