import asyncio

import pytest

from kubectl_gadget.run.nodes import backlog as backlog_module
from kubectl_gadget.run.nodes.backlog import Backlog, Detached, Events, Item


def item(size: int) -> Item:
    return Item("n1", Events(b""), size)


async def test_a_reader_waits_when_the_backlog_is_full_and_goes_on_when_there_is_room() -> None:
    backlog = Backlog(100)
    await backlog.put(item(80))
    waiting = asyncio.create_task(backlog.put(item(80)))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(backlog.take(0) or []) == 1
    async with asyncio.timeout(60):
        await waiting
    assert backlog._bytes == 80


async def test_one_frame_that_is_larger_than_the_bound_still_passes() -> None:
    backlog = Backlog(10)
    async with asyncio.timeout(60):
        await backlog.put(item(500))
    assert backlog._bytes == 500


async def test_what_is_held_can_be_taken_after_close_and_then_it_ends() -> None:
    backlog = Backlog(100)
    await backlog.put(item(1))
    backlog.close()
    assert len(backlog.take(0) or []) == 1
    assert backlog.take(0) is None


async def test_nothing_within_the_timeout_is_an_empty_list_and_not_the_end() -> None:
    assert Backlog(100).take(0) == []


async def test_a_thousand_small_frames_leave_half_of_the_interpreter_to_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the streams of other nodes are never opened."""
    used, slept = 0.0, list[float]()
    monkeypatch.setattr(backlog_module.time, "thread_time", lambda: used)
    monkeypatch.setattr(backlog_module.time, "sleep", slept.append)
    backlog = Backlog(100_000)

    async def pause_after(frames: int, seconds: float) -> float:
        nonlocal used
        for _ in range(frames):
            await backlog.put(item(10))
        assert len(backlog.take(0) or []) == frames
        used += seconds
        backlog.take(0)
        return slept[-1]

    assert await pause_after(1000, 0.002) == pytest.approx(0.05)  # so that reads are large
    assert await pause_after(1000, 0.2) == pytest.approx(0.2)
    assert await pause_after(1000, 30.0) == pytest.approx(1.0)
    assert await pause_after(1, 0.05) < 0.01  # one busy node is read at full speed


async def test_at_the_end_a_node_that_floods_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    used = 0.0
    monkeypatch.setattr(backlog_module.time, "thread_time", lambda: used)
    backlog = Backlog(100 << 20)
    for _ in range(20):
        backlog.add(Item("flood", Events(b""), 4 << 20))
    backlog.add(Item("quiet", Events(b""), 10))
    backlog.add(Item("flood", Detached(), 0))
    backlog.end_within(4.0)
    assert [each.node for each in backlog.take(0) or []] == ["flood"]
    used = 1.9
    assert [each.node for each in backlog.take(0) or []] == ["flood"]
    used = 2.1
    assert [(each.node, each.size) for each in backlog.take(0) or []] == [("quiet", 10), ("flood", 0)]
    assert backlog.left_out == {"flood": 18 * (4 << 20)}
    backlog.add(Item("quiet", Events(b""), 10))
    used = 4.1
    assert backlog.take(0) == []
    assert backlog.left_out["quiet"] == 10
    assert backlog.has_room(100 << 20)
