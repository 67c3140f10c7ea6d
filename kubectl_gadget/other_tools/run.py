"""Runs a bcc tool or a bpftrace program on several nodes, and prefixes each line with the node's name.

Each node first reports what it lacks, and nothing starts anywhere before all have answered. At the end every node is
asked to stop and is then waited for, since many tools print their sums only then.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TextIO

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import AgentError, GadgetError
from kubectl_gadget.other_tools.bpftrace_program import limited
from kubectl_gadget.output.escape import escape
from kubectl_gadget.run.local_node import open_local
from kubectl_gadget.run.node import NodeStream, Open
from kubectl_gadget.run.participants import NodeChange, local_node
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import local_filter
from kubectl_gadget.run.run_options import RunOptions
from kubectl_gadget.run.services import Interrupts, catch, how_to_end, release
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wording import count

Line = dict[str, Any]
"""A line of JSON, to an agent or from one."""

_END_SECONDS = 15.0
_MOST_LINE_BYTES = 1 << 20


class Printer(Protocol):
    """Shows one line of a node; `error` when the tool wrote it to standard error."""

    def __call__(self, node: str, line: str, error: bool) -> None: ...


class BccNode:
    """A connection to one node's agent."""

    def __init__(self, name: str, stream: NodeStream) -> None:
        self.name = name
        self.stream = stream
        self._rest = b""

    async def say(self, **members: object) -> None:
        """Sends one line to the agent."""
        await self.stream.send(json.dumps(members).encode() + b"\n")

    async def lines(self) -> AsyncIterator[Line]:
        """Yields the agent's messages until its end. Raises GadgetError when one is not JSON."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                yield self._parse(line)
                continue
            data = await self.stream.receive()
            if not data:
                return
            self._rest += data
            if len(self._rest) > _MOST_LINE_BYTES:
                raise AgentError(f"{self.name}: the tool printed a line of more than 1 MB")

    async def next(self) -> Line:
        """Returns the next message. Raises GadgetError at the end."""
        async for line in self.lines():
            return line
        why = self.stream.stderr_tail or "it printed nothing"
        raise AgentError(f"{self.name}: the agent ended: {why}", "an image with bcc: the agents' own ends with -bcc")

    def _parse(self, line: bytes) -> dict[str, object]:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise AgentError(
                f"{self.name}: the agent does not support bcc", "kubectl gadget deploy, which updates the agents"
            )
        return found


async def ask(change: NodeChange, request_of: Callable[[FilterSpec], Line]) -> dict[BccNode, Line]:
    """Connects to all nodes that are added, and asks each what it lacks for its request, which `request_of` makes for
    its filter (docs/protocol.md). Returns the answers. Raises GadgetError if a node fails or lacks something."""
    nodes: list[BccNode] = []

    async def one(name: str, open: Open) -> tuple[BccNode, Line]:
        node = BccNode(name, await open())
        nodes.append(node)
        await node.say(**request_of(change.filters.get(name) or FilterSpec()))
        return node, await node.next()

    results = await asyncio.gather(*(one(name, open) for name, open in change.add.items()), return_exceptions=True)
    try:
        for result in results:
            if isinstance(result, BaseException):
                raise result
        found = dict(result for result in results if not isinstance(result, BaseException))
        _refuse(found)
    except BaseException:
        await asyncio.gather(*(node.stream.close() for node in nodes))
        raise
    return found


def _refuse(answers: Mapping[BccNode, Line]) -> None:
    """Raises AgentError that lists everything that is missing, by node, if anything is."""
    by_problem: dict[tuple[str, str, str], list[str]] = {}
    for node, answer in answers.items():
        for problem in answer.get("problems") or []:
            key = (str(problem.get("what")), str(problem.get("why")), str(problem.get("try")))
            by_problem.setdefault(key, []).append(node.name)
    if not by_problem:
        return
    lines = [f"{', '.join(names)}: {what}: {why}" for (what, why, _), names in by_problem.items()]
    lacking = {name for names in by_problem.values() for name in names}
    good = [node.name for node in answers if node.name not in lacking]
    remedies = [remedy for _, _, remedy in by_problem if remedy]
    if good:
        remedies.append(f"--node {','.join(good)}, where nothing is missing")
    raise AgentError("nothing was started\n" + "\n".join(lines), "; ".join(remedies))


class BccRun:
    """The tool running on all nodes. `changes`, if given, runs beside them and may add nodes with join()."""

    def __init__(
        self,
        nodes: list[BccNode],
        show: Printer,
        progress: Progress,
        changes: Callable[["BccRun"], Coroutine[object, object, None]] | None = None,
    ) -> None:
        self._nodes = nodes
        self._changes = changes
        self._work: list[asyncio.Task[None]] = []
        self._failed = 0
        """nodes where the tool failed"""
        self._tasks = Tasks(self._fail)
        self._failure: GadgetError | None = None
        self._show = show
        self._progress = progress
        self._interrupts = Interrupts()
        self._stopped = asyncio.Event()

    async def run(self, seconds: float | None, tool: str, whom: str = "") -> int:
        """Runs until the tool has ended on all nodes. Exit code: 0, 1 when it failed on a node, 130 after Ctrl-C.
        `tool` and `whom` are only for the message at the start."""
        self._progress.say(f"running {tool} on {count(len(self._nodes), 'node')}{whom}; {how_to_end()}")
        loop = asyncio.get_running_loop()
        catch(self._interrupt, "SIGINT", "SIGTERM")
        if seconds is not None:
            loop.call_later(seconds, self._stopped.set)
        try:
            async with self._tasks as tasks:
                tasks.start(self._stop(), "end of bcc")
                if self._changes:
                    tasks.start(self._changes(self), "changes of nodes")
                for node in self._nodes:
                    self._begin(node)
                while under_way := [task for task in self._work if not task.done()]:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            release("SIGINT", "SIGTERM")
            await asyncio.gather(*(node.stream.close() for node in self._nodes))
        if self._failure is not None:
            raise self._failure
        if self._interrupts.signal is not None:
            return 128 + self._interrupts.signal
        return 0 if self._failed == 0 else 1

    def _fail(self, error: GadgetError) -> None:
        """Ends the run with an error of one of its background tasks."""
        self._failure = self._failure or error
        self._stopped.set()

    def join(self, node: BccNode) -> None:
        """Adds a node that lacks nothing."""
        self._nodes.append(node)
        self._begin(node)

    def _begin(self, node: BccNode) -> None:
        self._work.append(self._tasks.start(self._work_on(node), f"bcc on {node.name}"))

    async def _work_on(self, node: BccNode) -> None:
        if not await self._follow(node):
            self._failed += 1

    async def _follow(self, node: BccNode) -> bool:
        """Shows a node's output. Returns whether the tool succeeded."""
        try:
            await node.say(go=True)
            async for line in node.lines():
                if "out" in line or "err" in line:
                    self._show(node.name, str(line.get("out", line.get("err"))), "err" in line)
                if "warning" in line:
                    self._progress.warn(f"{node.name}: {line['warning']}")
                if "exit" in line:
                    return self._ended(node, int(line["exit"]), str(line.get("error", "")))
        except GadgetError as error:
            self._progress.warn(str(error))
            return False
        self._progress.warn(f"{node.name}: the agent ended: {node.stream.stderr_tail or 'it printed nothing'}")
        return False

    def _ended(self, node: BccNode, code: int, error: str) -> bool:
        # A tool that was asked to stop may end with any exit code.
        if code == 0 or self._stopped.is_set():
            return True
        why = error or (f"signal {-code}" if code < 0 else f"exit code {code}")
        self._progress.warn(f"{node.name}: the tool failed: {why}")
        return False

    async def _stop(self) -> None:
        await self._stopped.wait()
        for node in self._nodes:
            try:
                await node.say(stop=True)
            except GadgetError as error:
                self._progress.detail(node.name, str(error))
        await asyncio.sleep(_END_SECONDS)
        for node in self._nodes:
            await node.stream.close()

    def _interrupt(self, number: int) -> None:
        if self._interrupts.take(number):
            raise KeyboardInterrupt
        self._stopped.set()


class Printed:
    """Prints a tool's lines, with the node's name in front, unless `paint` is None."""

    def __init__(self, out: TextIO, err: TextIO, paint: Callable[[str], str] | None) -> None:
        self._out, self._err, self._paint = out, err, paint

    def __call__(self, node: str, line: str, error: bool) -> None:
        stream = self._err if error else self._out
        prefix = f"{self._paint(node)} " if self._paint else ""
        # Expanding tabs keeps the tool's columns aligned.
        stream.write(prefix + escape(line.expandtabs()) + "\n")
        stream.flush()


async def _changes(options: RunOptions, progress: Progress, tasks: Tasks) -> AsyncGenerator[NodeChange]:
    """Yields this machine, or the cluster's nodes that host the chosen pods, as these change. Closing it removes
    everything that was started for them. Raises GadgetError."""
    if options.local:
        name = local_node()
        yield NodeChange(add={name: lambda: open_local("bcc")}, filters={name: local_filter(options.selection)})
        return
    from kubectl_gadget.run.cluster_nodes import ClusterNodes

    nodes = ClusterNodes(options, progress)
    try:
        async for change in nodes.watch(tasks):
            yield change
    finally:
        await nodes.close()


@asynccontextmanager
async def first_nodes(
    options: RunOptions, request_of: Callable[[FilterSpec], Line], progress: Progress
) -> AsyncIterator[tuple[dict[BccNode, Line], AsyncIterator[NodeChange]]]:
    """Waits for nodes, and asks them as ask() does; also yields all later changes."""
    tasks = Tasks(lambda error: progress.warn(f"agents may stop before the run ends: {error}"))
    async with tasks, aclosing(_changes(options, progress, tasks)) as found:
        while not (change := await anext(found)).add:
            progress.say("no node is selected yet; waiting for one")
        yield await ask(change, request_of), found


async def run(options: RunOptions, request: Line, show: Printer, progress: Progress) -> int:
    """Runs everything and returns the exit code. Raises GadgetError when nothing was started."""
    async with first_nodes(options, lambda _: request, progress) as (nodes, _):
        return await BccRun([*nodes], show, progress).run(options.timeout, "bcc")


async def list_tools(options: RunOptions, progress: Progress) -> dict[str, list[str]]:
    """Returns the available tools, by node."""
    async with first_nodes(options, lambda _: {"list": True}, progress) as (answers, _):
        await asyncio.gather(*(node.stream.close() for node in answers))
        return {node.name: list(answer["tools"]) for node, answer in answers.items()}


# bpftrace: nodes may join while the program runs, and agents receive changes of the chosen pods. A node that joins late
# and lacks something does not end the program on the others.


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

    def request(self, filter: FilterSpec) -> dict[str, object]:
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

    async def _say(self, node: BccNode, **members: object) -> None:
        if not self._script.map_name and "filter" in members:
            return
        try:
            await node.say(**members)
        except GadgetError as error:
            self._progress.warn(str(error))


async def run_script(options: RunOptions, script: Script, show: Printer, progress: Progress) -> int:
    """Runs everything and returns the exit code. Raises GadgetError when nothing was started."""
    async with first_nodes(options, script.request, progress) as (nodes, changes):
        filters = NodeFilters(script, progress, nodes)

        async def follow(run: BccRun) -> None:
            async for change in changes:
                await filters.apply(change, run)

        whom = options.selection.described(options.local) if script.map_name else "everything there"
        run = BccRun([*nodes], show, progress, follow)
        return await run.run(options.timeout, "bpftrace", f", for {whom}")
