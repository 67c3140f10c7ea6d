"""Asks nodes which hooks they have: HELLO, LOOK_UP, HOOKS, and the end of the session.

The trap: one node that does not answer must not hide the others, so each has its own time limit and its own error.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kubectl_gadget.cluster.agents.per_node import Agents
from kubectl_gadget.cluster.api.failure import Access
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import NODES
from kubectl_gadget.cluster.options import AgentOptions
from kubectl_gadget.errors import AgentError, GadgetError, UsageError
from kubectl_gadget.session.nodes.local import open_local
from kubectl_gadget.session.nodes.stream import NodeStream, Open
from kubectl_gadget.wire import FrameDecoder, FrameType, encode_json

_SECONDS = 30.0
"""For an answer, once the agent runs."""
_PARALLEL = 16


@dataclass(frozen=True)
class NodeHooks:
    """What one node answered."""

    node: str
    hello: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] | None = None
    """None: this machine, which no cluster labels"""
    problem: str = ""
    """why there is no answer"""


async def ask_local(asked: Mapping[str, Any]) -> list[NodeHooks]:
    """This machine's answer. Raises AgentError when there is none."""
    hello, hooks = await _ask(open_local, asked)
    return [NodeHooks(str(hello.get("node", "")), hello, hooks)]


async def ask_cluster(
    api: Api,
    asked: Mapping[str, Any],
    names: Sequence[str],
    tell: Callable[[str, str], None],
    options: AgentOptions,
) -> list[NodeHooks]:
    """The answers of the nodes `names`, or of all; agents are started where none is resident, and removed again.

    `tell` gets a node, empty for all, and a text about its agent.
    """
    agents = Agents(api, options, tell, note=partial(tell, ""))
    await agents.require([Access("list", NODES.plural)])
    nodes = (await api.find(NODES)).items
    labels = {node["metadata"]["name"]: node["metadata"].get("labels") or {} for node in nodes}
    for name in names:
        if name not in labels:
            raise UsageError(f"there is no node {name!r}", f"one of {', '.join(sorted(labels))}")
    slots = asyncio.Semaphore(_PARALLEL)
    seconds = options.start_timeout + _SECONDS

    async def one(node: str) -> NodeHooks:
        async with slots:
            try:
                async with asyncio.timeout(seconds):
                    hello, hooks = await _ask(lambda: agents.open(node), asked)
            except TimeoutError:
                return NodeHooks(node, labels=labels[node], problem=f"no answer within {seconds:.0f} s")
            except GadgetError as error:
                return NodeHooks(node, labels=labels[node], problem=str(error))
            return NodeHooks(node, hello, hooks, labels[node])

    try:
        return list(await asyncio.gather(*map(one, sorted(names or labels))))
    finally:
        for remaining in await agents.close():
            tell("", f"may remain: {remaining}")


async def _ask(open_stream: Open, asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    stream: NodeStream = await open_stream()
    hello: dict[str, Any] = {}
    try:
        decoder = FrameDecoder()
        await stream.send(encode_json(FrameType.LOOK_UP, dict(asked)))
        while data := await stream.receive():
            for frame in decoder.feed(data):
                if frame.type == FrameType.HELLO:
                    hello = frame.json()
                elif frame.type == FrameType.HOOKS:
                    return hello, frame.json()
                elif frame.type == FrameType.WARNING and "unknown type" in str(frame.json().get("message")):
                    raise AgentError("its agent is too old to be asked", "kubectl gadget deploy, for the newest one")
                elif frame.type == FrameType.END and (error := frame.json().get("error")):
                    raise AgentError(f"{error.get('what')}: {error.get('why')}", error.get("try"))
        raise AgentError(f"its agent ended: {stream.stderr_tail or 'it said nothing'}")
    finally:
        await stream.close()
