"""Runs a bpftrace program on several nodes at once, limited to chosen pods as these come and go.

It works like the bcc tools (session/other_tools/bcc_run.py), but nodes may join while it runs, and agents receive
changes of the chosen pods. The trap: a node that joins late and lacks something must not end the program on other
nodes.
"""

import asyncio
import secrets
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.errors import AgentError, GadgetError
from kubectl_gadget.session.nodes.participants import NodeChange
from kubectl_gadget.session.other_tools.bcc_run import BccNode, BccRun, Printer, ask, changes, cluster_tasks, refuse
from kubectl_gadget.session.other_tools.bpftrace_program import limited
from kubectl_gadget.session.progress import Progress
from kubectl_gadget.session.run_options import RunOptions
from kubectl_gadget.wire.client_messages import FilterSpec

DECLARED = "own:bpftrace"
"""The name in the agents' command line."""


@dataclass(frozen=True)
class Script:
    """The program to run."""

    text: str
    """as bpftrace receives it"""
    arguments: tuple[str, ...] = ()
    map_name: str = ""
    """the map with the cgroups of the chosen pods; "": the whole node is traced"""

    def request(self, filter: FilterSpec) -> dict[str, Any]:
        chosen = {"map": self.map_name, "filter": filter.to_json()} if self.map_name else {}
        return {"bpftrace": self.text, "arguments": list(self.arguments), **chosen}


def script(program: str, arguments: tuple[str, ...], whole_node: bool, file: str = "program") -> Script:
    """Limits the program to chosen pods, unless the whole node is wanted. Raises UsageError when impossible."""
    if whole_node:
        return Script(program, arguments)
    name = f"pods_{secrets.token_hex(3)}"
    return Script(limited(program, name, file), arguments, name)


class NodeFilters:
    """The nodes of a run by name, with the filter of each one's agent."""

    def __init__(self, script: Script, progress: Progress) -> None:
        self._script, self._progress = script, progress
        self.by_name: dict[str, BccNode] = {}

    async def open(self, change: NodeChange) -> list[BccNode]:
        """Connects to the nodes that are added, once none of them lacks anything. Raises GadgetError."""
        requests = {name: self._script.request(change.filters.get(name) or FilterSpec()) for name in change.add}
        nodes, answers = await ask(change.add, requests)
        try:
            refuse(nodes, answers)
        except AgentError:
            await asyncio.gather(*(node.stream.close() for node in nodes))
            raise
        self.by_name |= {node.name: node for node in nodes}
        return nodes

    async def apply(self, change: NodeChange, run: BccRun) -> None:
        """Applies a change while the program runs. A node's failure is reported, and the others go on."""
        for name, filter in change.filters.items():
            if name in self.by_name and name not in change.add:
                await self._say(self.by_name[name], filter=filter.to_json())
        for name in change.remove:
            if node := self.by_name.pop(name, None):
                await self._say(node, stop=True)
        for name, open in change.add.items():
            alone = NodeChange(add={name: open}, filters={name: change.filters.get(name) or FilterSpec()})
            try:
                for node in await self.open(alone):
                    run.join(node)
            except GadgetError as error:
                self._progress.warn(f"{name} is left out: {error}")

    async def _say(self, node: BccNode, **members: Any) -> None:
        if not self._script.map_name and "filter" in members:
            return
        try:
            await node.say(**members)
        except GadgetError as error:
            self._progress.warn(str(error))


async def run(options: RunOptions, script: Script, show: Printer, progress: Progress) -> int:
    """Runs everything and returns the exit code. Raises GadgetError when nothing was started."""
    nodes = NodeFilters(script, progress)
    async with (
        cluster_tasks(progress) as tasks,
        aclosing(changes(options, progress, tasks)) as found,
    ):
        first: list[BccNode] = []
        async for change in found:
            first = await nodes.open(change)
            if first:
                break
            progress.say("no node is selected yet; waiting for one")

        async def follow(run: BccRun) -> None:
            async for change in found:
                await nodes.apply(change, run)

        count = f"{len(first)} {'node' if len(first) == 1 else 'nodes'}"
        whom = options.selection.described(options.local) if script.map_name else "everything there"
        progress.say(f"running bpftrace on {count}, for {whom}; Ctrl-C ends")
        try:
            return await BccRun(first, show, progress, follow).run(options.timeout)
        finally:
            await asyncio.gather(*(node.stream.close() for node in nodes.by_name.values()))
