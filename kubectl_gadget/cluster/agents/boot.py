"""Starts an agent in a pod, and sends it there first when the pod has not got it (docs/protocol.md, BOOT).

The trap: whatever keeps Python or the agent from starting is said on the process' standard error or by the runtime, not
by the API server, so the stream ends before it has begun; the last line then is the reason, and what follows "try:" in
it is the remedy.
"""

import asyncio
import struct
from collections.abc import Sequence

from kubectl_gadget.cluster.agents.image import DEFAULT_IMAGE
from kubectl_gadget.cluster.agents.payload import PYTHON, payload, payload_bytes
from kubectl_gadget.cluster.api.exec import ExecStream, open_exec
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.errors import AgentError, ClusterError
from kubectl_gadget.wire import MAGIC, VERSION, FrameType, encode

_SECONDS = 20.0
"""Until Python has started; and that a payload may take for its next piece."""
_HEAD = struct.Struct("<2sBBI")
_MOST = 64
"""Bytes of BOOT's payload."""
_BOOTSTRAP = (*PYTHON, "-c")
"""How a command begins that brings the agent or takes the deployment's."""
NO_PYTHON = "the image has no python3"
OTHER_IMAGE = f"--image {DEFAULT_IMAGE}, or another with Python 3.11 or newer and glibc"


def command(words: Sequence[str]) -> tuple[str, ...]:
    """What starts the agent with `words` in a pod that may have none."""
    return (*payload().start, *words)


async def open_agent(
    api: Api, namespace: str, pod: str, container: str, words: Sequence[str], where: str | None = None
) -> ExecStream:
    """Starts the agent with `words` (after `python3 -I -m kubectl_gadget.agent`) and returns its stream before HELLO.

    Raises what open_exec raises, and AgentError when it cannot be started there.
    """
    return await open_command(api, namespace, pod, container, command(words), where)


async def open_command(
    api: Api, namespace: str, pod: str, container: str, words: Sequence[str], where: str | None = None
) -> ExecStream:
    """The same for a whole command, also one that starts the agent of the pod's image."""
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
        raise AgentError(f"its bootstrap says {text[:_MOST]!r}, which is not in docs/protocol.md")


async def _answer(stream: ExecStream) -> str:
    """BOOT's payload; what comes after it stays in the stream."""
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
    """Why an agent ended, from what it wrote to its standard error."""
    lines = said.strip().splitlines()
    last = lines[-1].strip() if lines else "it said nothing"
    if is_without_python(said):
        return AgentError(NO_PYTHON, OTHER_IMAGE)
    what, _, remedy = last.partition(". try: ")
    return AgentError(f"its agent ended: {what}", remedy or None)


def is_without_python(said: str) -> bool:
    """Whether a runtime, or a shell, says that there is no python3."""
    absent = ("executable file not found", "no such file or directory", "not found")
    return "python3" in said and any(text in said.lower() for text in absent)
