"""Several nodes that are asked first, and lines that begin with their nodes' names."""

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_gadget.errors import AgentError
from kubectl_gadget.other_tools.run import BccNode, BccRun, Printed, ask
from kubectl_gadget.run.participants import NodeChange
from kubectl_gadget.run.progress import Progress

GOOD: dict[str, Any] = {"tools": ["execsnoop"], "problems": []}
BAD = {"tools": [], "problems": [{"what": "kernel headers are missing", "why": "they are", "try": "install them"}]}


class Scripted:
    """A stream that sends the given lines, in pieces of any length."""

    stderr_tail = ""
    take: Callable[[bytes], bool] | None = None

    def __init__(self, *lines: dict[str, Any]) -> None:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        self.pieces = [data[start : start + 7] for start in range(0, len(data), 7)]
        self.heard = b""

    async def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def send(self, data: bytes) -> None:
        self.heard += data

    async def close(self) -> None:
        self.pieces.clear()


def run(streams: dict[str, Scripted]) -> tuple[int, str, str]:
    async def work() -> int:
        def opener(stream: Scripted) -> Any:
            async def open() -> Scripted:
                return stream

            return open

        change = NodeChange(add={name: opener(stream) for name, stream in streams.items()})
        nodes = await ask(change, lambda _: {"tool": "execsnoop"})
        return await BccRun([*nodes], Printed(out, err, str), Progress(err, quiet=True)).run(None, "bcc")

    out, err = io.StringIO(), io.StringIO()
    return asyncio.run(work()), out.getvalue(), err.getvalue()


def test_each_line_follows_its_nodes_name_and_cannot_send_escapes() -> None:
    a = Scripted(GOOD, {"out": "x\ty\x1b[2J"}, {"exit": 0})
    b = Scripted(GOOD, {"err": "z"}, {"exit": 0})
    code, out, err = run({"a": a, "b": b})
    assert (code, out, err) == (0, "a x       y\\x1b[2J\n", "b z\n")


def test_nothing_starts_anywhere_when_one_node_lacks_something() -> None:
    a, b = Scripted(GOOD), Scripted(BAD)
    with pytest.raises(AgentError, match="b: kernel headers are missing") as error:
        run({"a": a, "b": b})
    assert error.value.remedy == "install them; --node a, where nothing is missing"
    assert b"go" not in a.heard + b.heard


def test_a_tool_that_fails_on_one_node_is_named_and_the_others_are_shown() -> None:
    code, out, err = run({"a": Scripted(GOOD, {"out": "x"}, {"exit": 0}), "b": Scripted(GOOD, {"exit": 2})})
    assert (code, out) == (1, "a x\n")
    assert "b: the tool failed: exit code 2" in err


def test_an_agent_that_knows_no_bcc_is_named() -> None:
    node = BccNode("a", Scripted())
    node._rest = b"usage: session\n"
    with pytest.raises(AgentError, match="a: the agent does not support bcc"):
        asyncio.run(node.next())
