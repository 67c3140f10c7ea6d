"""Whatever a node sends ends that node at most: the others go on, and the summary is written."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kubectl_gadget.errors import FrameError
from kubectl_gadget.run import node as node_module
from kubectl_gadget.run import summary
from kubectl_gadget.run.backlog import Content, Events
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats, from_agent
from kubectl_gadget.wire.frames import Frame, FrameType, encode
from tests.examples import examples
from tests.rows.records import record
from tests.run import test_node, test_pipeline
from tests.run.scripted import ScriptedStream, obedient
from tests.spoilt import as_json, spoilt

CLOCKS = {"boot_ns": 1, "realtime_ns": 2}
LOSER = {"namespace": "default", "pod": "xwing", "container": "main", "lost": 1}
GADGET = {"events": 3, "bytes": 4, "lost": {"ring_full": {"0": 1}}, "cut_strings": 0, "lost_by": [LOSER]}
STATS = {"gadgets": [GADGET], "agent": {"cpu_ns": 1, "rss_bytes": 2}, **CLOCKS}
PROGRAM = {"chosen": ["a"], "hooks": ["b"], "skipped": [{"program": "p", "why": "w"}], "method": "denies"}
FRAMES: dict[FrameType, dict[str, Any]] = {
    FrameType.HELLO: {"architecture": "x86_64", "kinds": ["stream"], "agent": "0.1.0", **CLOCKS},
    FrameType.STARTED: {"gadgets": [{"name": "trace_open", "programs": [PROGRAM]}], **CLOCKS},
    FrameType.CONTAINERS: test_pipeline.CONTAINERS | {"removed": [11]},
    FrameType.STATS: STATS,
    FrameType.WARNING: {"message": "m"},
    FrameType.PONG: {"id": 1, **CLOCKS},
    FrameType.STACKS: {"gadget": 0, "first": 1, "frames": ["a\tb\t0x1"], "stacks": {"1": [1]}},
    FrameType.END: {"reason": "stop", "error": {"what": "w", "why": "y", "try": "t"}, "stats": STATS},
}
SPOILT = st.sampled_from(list(FRAMES)).flatmap(
    lambda type_: st.builds(Frame, st.just(type_), spoilt(FRAMES[type_]).map(as_json))
)
many = settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "RETRY_SECONDS", (0.0,))


@given(SPOILT)
@example(Frame(FrameType.HELLO, b'{"kinds":5}'))
@example(Frame(FrameType.PONG, b'{"id":"x"}'))
@example(Frame(FrameType.STATS, b'{"gadgets":[{"lost":{"ring_full":[]}}]}'))
@example(Frame(FrameType.END, b'{"reason":"stop","stats":{"gadgets":7}}'))
@many
def test_no_frame_ends_more_than_its_nodes_connection(frame: Frame) -> None:
    def react(stream: ScriptedStream, received: Frame) -> None:
        obedient(stream, received)
        if received.type == FrameType.RUN:
            stream.say_bytes(encode(*frame))
            stream.hang_up()

    async def session() -> test_node.Bench:
        bench = test_node.Bench(react, obedient)
        task = asyncio.create_task(bench.session.run())
        await bench.until(lambda: task.done() or (len(bench.streams) > 1 and bench.state.attached))
        bench.session.stop()
        await task
        return bench

    bench = asyncio.run(session())
    node = bench.state.covered(time.time_ns(), summary.lost(bench.state))
    said = list(summary.lines(Coverage(nodes=(node,)), {"n1": bench.state}, Counter(), {}))
    assert said
    assert Coverage.from_json(Coverage(nodes=(node,)).to_json()).nodes == (node,)


def read(frame: Frame) -> Content | None:
    """What a node session puts into the backlog."""
    try:
        found = from_agent(frame)
    except FrameError:
        return None
    return found if isinstance(found, Hello | Started | ContainerChanges | StackNames | Stats) else None


@given(SPOILT.map(read) | st.builds(Events, st.binary(max_size=60)))
@many
def test_nothing_that_a_node_sends_hides_what_other_nodes_send(content: Content | None) -> None:
    async def fed() -> test_pipeline.Bench:
        bench = test_pipeline.Bench()
        await bench.attach("n1")
        await bench.attach("n2")
        await bench.feed("n1", *([] if content is None else [content]))
        await bench.feed("n2", test_pipeline.events(record(cgroup=11)))
        return bench

    assert [row["node"] for row in asyncio.run(fed()).finish()] == ["n2"]
