"""live_run.py with an agent that follows a script: what a run does before its rows can be shown."""

import asyncio
import gc
import io
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.run import live_run
from kubectl_gadget.run.backlog import Backlog
from kubectl_gadget.run.node import NodeState
from kubectl_gadget.run.participants import LocalNodes, NodeChange
from kubectl_gadget.run.preparation import Preparation, prepare
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import FrameType, encode
from tests.run.scripted import ScriptedStream, obedient

OPENS = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True)


class ScriptedNodes(LocalNodes):
    """This machine, with an agent that follows a script."""

    def __init__(self) -> None:
        super().__init__(OPENS.selection, True)
        self.stream = ScriptedStream(obedient)

    async def begin(self, tasks: Tasks) -> None:
        """The agent runs already."""

    async def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        async def opened() -> ScriptedStream:
            return self.stream

        yield NodeChange(add={"n1": opened}, filters={"n1": FilterSpec()})


class ManyNodes(ScriptedNodes):
    """So many nodes, whose agents follow one script."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self.streams: list[ScriptedStream] = []

    async def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        async def opened() -> ScriptedStream:
            self.streams.append(ScriptedStream(obedient))
            return self.streams[-1]

        names = [f"n{number}" for number in range(self._count)]
        yield NodeChange(add=dict.fromkeys(names, opened), filters=dict.fromkeys(names, FilterSpec()))


class Said(Progress):
    """Sets an event once everything is attached."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.attached = threading.Event()

    def say(self, message: str) -> None:
        if message.startswith("trace open on"):
            self.attached.set()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> ScriptedNodes:
    nodes = ScriptedNodes()
    monkeypatch.setattr(live_run, "choose_nodes", lambda *_: nodes)
    return nodes


async def test_nodes_attach_before_rows_can_be_shown(nodes: ScriptedNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()

    def slow(options: RunOptions, shown: io.StringIO) -> Preparation:
        assert said.attached.wait(60)
        return prepare(options, shown)

    monkeypatch.setattr(live_run, "_prepare", slow)
    async with live_run.begin(replace(OPENS, timeout=0.01), said, io.StringIO()) as run:
        assert await run.main() == 0
    assert nodes.stream.closed


async def test_a_run_whose_rows_cannot_be_shown_ends(nodes: ScriptedNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()

    def broken(options: RunOptions, shown: io.StringIO) -> Preparation:
        assert said.attached.wait(60)
        raise GadgetError("no terminal")

    monkeypatch.setattr(live_run, "_prepare", broken)
    async with live_run.begin(OPENS, said, io.StringIO()) as run:
        with pytest.raises(GadgetError, match="no terminal"):
            await run.main()
    assert nodes.stream.closed


async def test_what_was_discarded_at_the_end_is_missing_in_the_coverage(
    nodes: ScriptedNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no feature says that nothing was lost."""

    class Discarding(Backlog):
        def close(self) -> None:
            self.left_out["n1"] = 5_000_000
            super().close()

    monkeypatch.setattr(live_run, "Backlog", Discarding)
    async with live_run.begin(replace(OPENS, timeout=0.01), Said(), io.StringIO()) as run:
        assert await run.main() == 1
    assert "5.0 MB from it were not read" in run.coverage.nodes[0].why


async def test_what_the_user_gave_is_checked_before_an_agent_is_asked(nodes: ScriptedNodes) -> None:
    with pytest.raises(GadgetError, match="nothing_like_this"):
        async with live_run.begin(replace(OPENS, filter="nothing_like_this == 1"), Said(), io.StringIO()):
            pass
    assert nodes.stream.received == []


async def test_a_run_looks_for_garbage_as_often_as_usual(nodes: ScriptedNodes) -> None:
    before = gc.get_threshold()
    gc.set_threshold(100_000)
    try:
        async with live_run.begin(replace(OPENS, timeout=0.01), Said(), io.StringIO()) as run:
            assert gc.get_threshold()[0] < 10_000
            await run.main()
    finally:
        gc.set_threshold(*before)


async def test_each_of_many_nodes_is_looked_at_a_few_times_until_all_are_attached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = 0

    def is_pending(state: NodeState) -> bool:
        nonlocal looked
        looked += 1
        return not state.attached and state.error is None

    monkeypatch.setattr(live_run, "choose_nodes", lambda *_: ManyNodes(100))
    monkeypatch.setattr(NodeState, "is_pending", property(is_pending))
    said = Said()
    async with live_run.begin(replace(OPENS, timeout=0.5), said, io.StringIO()) as run:
        assert await run.main() == 0
    assert said.attached.is_set()
    assert looked < 1000


async def test_nodes_that_are_attached_are_not_looked_through_for_garbage_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = ManyNodes(250)
    monkeypatch.setattr(live_run, "choose_nodes", lambda *_: many)
    gc.unfreeze()
    try:
        async with live_run.begin(replace(OPENS, timeout=0.1), Said(), io.StringIO()) as run:
            assert await run.main() == 0
            streams = {id(stream) for stream in many.streams}
            left = {id(one) for one in gc.get_objects() if id(one) in streams}
            assert len(left) < 150
    finally:
        gc.unfreeze()


class Flood(ScriptedStream):
    """After STARTED, frames of this type without end, whatever the client says."""

    def __init__(self, frame: bytes) -> None:
        super().__init__(obedient)
        self._frame = frame

    async def receive(self) -> bytes:
        if self.closed:
            return b""
        await asyncio.sleep(0)
        return await super().receive() if self._out.qsize() else self._frame

    def say(self, type_: int, value: dict[str, Any]) -> None:
        if type_ != FrameType.END:
            super().say(type_, value)


CGROUPS = b",".join(b'"%d":null' % number for number in range(100_000))
FLOODS = {
    "containers": encode(FrameType.CONTAINERS, b'{"cgroups":{' + CGROUPS + b"}}"),
    "warnings": encode(FrameType.WARNING, b'{"message":"a\\n42 events; lost: 0"}'),
    "statistics": encode(FrameType.STATS, b'{"gadgets":[{"events":1}]}'),
    "pieces": b"kg",
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_run_ends_on_time_whatever_an_agent_sends(nodes: ScriptedNodes, flood: str) -> None:
    nodes.stream = Flood(FLOODS[flood])
    errors = io.StringIO()
    progress = Progress(errors)
    async with live_run.begin(replace(OPENS, timeout=0.5), progress) as run:
        began = time.monotonic()
        code = await run.main()
    assert time.monotonic() - began < 30, "60 s without the limit, and 5 s on a machine that is not busy"
    assert code == 1
    assert not [line for line in errors.getvalue().splitlines() if line.startswith("42 events")]
