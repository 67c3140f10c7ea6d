"""Runs a bpftrace program on several nodes at once, limited to chosen pods as these come and go.

It works like the bcc tools (other_tools/bcc_run.py), but nodes may join while it runs, and agents receive
changes of the chosen pods. The trap: a node that joins late and lacks something must not end the program on other
nodes.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.other_tools.bcc_run import BccNode, BccRun, Printer, ask, first_nodes
from kubectl_gadget.other_tools.bpftrace_program import limited
from kubectl_gadget.run.participants import NodeChange
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import RunOptions
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

    def __init__(self, script: Script, progress: Progress, nodes: Iterable[BccNode]) -> None:
        self._script, self._progress = script, progress
        self._by_name = {node.name: node for node in nodes}

    async def apply(self, change: NodeChange, run: BccRun) -> None:
        """Applies a change while the program runs. A node's failure is reported, and the others go on."""
        for name, filter in change.filters.items():
            if name in self._by_name and name not in change.add:
                await self._say(self._by_name[name], filter=filter.to_json())
        for name in change.remove:
            if node := self._by_name.pop(name, None):
                await self._say(node, stop=True)
        for name, open in change.add.items():
            try:
                for node in await ask(replace(change, add={name: open}), self._script.request):
                    self._by_name[name] = node
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
    async with first_nodes(options, script.request, progress) as (nodes, changes):
        filters = NodeFilters(script, progress, nodes)

        async def follow(run: BccRun) -> None:
            async for change in changes:
                await filters.apply(change, run)

        whom = options.selection.described(options.local) if script.map_name else "everything there"
        run = BccRun([*nodes], show, progress, follow)
        return await run.run(options.timeout, "bpftrace", f", for {whom}")
