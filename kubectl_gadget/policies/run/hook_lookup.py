"""Asks nodes which hooks they have: HELLO, LOOK_UP, HOOKS, and the end of the session.

A node that does not answer must not hide the others' answers, so each has its own time limit and error.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from kubectl_gadget.agents.per_node import Agents
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import AgentError, GadgetError, UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import NODES
from kubectl_gadget.run.local_node import open_local
from kubectl_gadget.run.node import NodeStream, Open
from kubectl_gadget.wire.agent_messages import End, Hello, Hooks, WarningText, from_agent
from kubectl_gadget.wire.client_messages import LookUp
from kubectl_gadget.wire.frames import FrameDecoder, FrameType, encode

_SECONDS = 30.0
"""Time limit for an answer, once the agent runs."""
_PARALLEL = 16


@dataclass(frozen=True)
class NodeHooks:
    """The answer of one node."""

    node: str
    hello: Hello = field(default_factory=Hello)
    hooks: Hooks = field(default_factory=Hooks)
    labels: Mapping[str, str] | None = None
    """None: this machine, which has no labels of a cluster"""
    problem: str = ""
    """why there is no answer"""


async def ask_local(asked: LookUp) -> list[NodeHooks]:
    """Returns this machine's answer. Raises AgentError when there is none."""
    hello, hooks = await _ask(open_local, asked)
    return [NodeHooks(hello.node, hello, hooks)]


async def ask_cluster(
    api: Api, asked: LookUp, names: Sequence[str], tell: Callable[[str, str], None], options: AgentOptions
) -> list[NodeHooks]:
    """Returns the answers of the nodes `names`, or of all. Agents are started where none is resident, then removed.

    `tell` is called with a node, "" for all, and a text about its agent.
    """
    async with Tasks(lambda error: tell("", f"agents may stop before the run ends: {error}")) as tasks:
        agents = Agents(api, options, tasks, tell, note=partial(tell, ""))
        try:
            return await _ask_nodes(api, agents, asked, names, options.start_timeout + _SECONDS)
        finally:
            for remaining in await agents.close():
                tell("", f"could not be removed: {remaining}")


async def _ask_nodes(api: Api, agents: Agents, asked: LookUp, names: Sequence[str], seconds: float) -> list[NodeHooks]:
    await agents.require([Access("list", NODES.plural)])
    nodes = (await api.find(NODES)).items
    labels = {node["metadata"]["name"]: node["metadata"].get("labels") or {} for node in nodes}
    for name in names:
        if name not in labels:
            raise UsageError(f"there is no node {name!r}", f"one of {', '.join(sorted(labels))}")
    slots = asyncio.Semaphore(_PARALLEL)

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

    return list(await asyncio.gather(*map(one, sorted(names or labels))))


async def _ask(open_stream: Open, asked: LookUp) -> tuple[Hello, Hooks]:
    stream: NodeStream = await open_stream()
    hello = Hello()
    try:
        decoder = FrameDecoder()
        await stream.send(encode(FrameType.LOOK_UP, asked.to_bytes()))
        while data := await stream.receive():
            for frame in decoder.feed(data):
                match from_agent(frame):
                    case Hello() as hello:
                        pass
                    case Hooks() as hooks:
                        return hello, hooks
                    case WarningText(message=text) if "unknown type" in text:
                        raise AgentError("its agent is too old to answer", "kubectl gadget deploy, for the newest")
                    case End(error=error) if error is not None:
                        raise AgentError(f"{error.what}: {error.why}", error.try_ or None)
        raise AgentError(f"its agent ended: {stream.stderr_tail or 'it printed nothing'}")
    finally:
        await stream.close()
