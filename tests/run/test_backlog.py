import asyncio
import os
from pathlib import Path

import pytest

from kubectl_gadget.python_process import give_memory_back
from kubectl_gadget.run import backlog as backlog_module
from kubectl_gadget.run.backlog import (
    Backlog,
    Content,
    Detached,
    Events,
    Item,
    LiveFrames,
    RunningTime,
    coalesced,
    together,
)
from kubectl_gadget.run.coverage import Gap
from kubectl_gadget.wire.agent_messages import ContainerChanges, Stats
from kubectl_gadget.wire.frames import LAST, EventsHeader, split_events


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


async def test_freed_memory_is_given_back_once_after_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(backlog_module, "give_memory_back", lambda: given.append(None))
    backlog = Backlog(1 << 30)
    for size in (1 << 20, 80 << 20, 1 << 20):
        backlog.add(item(size))
    while backlog.take(0):
        assert not given, "while frames wait, their memory is in use"
    backlog.add(item(1 << 20))
    assert (len(backlog.take(0) or []), len(backlog.take(0) or []), len(given)) == (1, 0, 1)


def test_memory_that_is_in_use_does_not_keep_what_was_freed_around_it() -> None:
    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    blocks = [bytes(2000) for _ in range(50_000)]
    kept = blocks[::50]
    del blocks
    before = memory()
    give_memory_back()
    assert before - memory() > 50_000_000, len(kept)


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


# test_coalesce


CONTAINERS = ContainerChanges()


def events(data: bytes, until: int, gadget: int = 0, flags: int = 0) -> Events:
    return Events(EventsHeader(gadget, until, until, flags).encode() + data)


def of(node: str, *frames: Content) -> list[Item]:
    return [Item(node, frame) for frame in frames]


def told(items: list[Item]) -> list[tuple[str, int, bytes, int]]:
    """Of EVENTS frames: node, gadget, records, complete_until; of others -1."""
    found = []
    for item in coalesced(items):
        if not isinstance(item.content, Events):
            found.append((item.node, -1, b"", -1))
            continue
        head, data = split_events(item.content.payload)
        found.append((item.node, head.gadget, bytes(data), head.complete_until))
    return found


def test_events_of_one_node_become_one_frame_that_is_complete_until_the_last_one_is() -> None:
    assert told(of("a", events(b"1", 5), events(b"2", 6), events(b"", 7))) == [("a", 0, b"12", 7)]


def test_events_of_different_nodes_stay_apart() -> None:
    one, two = of("a", events(b"1", 5), events(b"2", 6)), of("b", events(b"3", 7), events(b"4", 8))
    mixed = [one[0], two[0], one[1], two[1]]
    assert told(mixed) == [("a", 0, b"12", 6), ("b", 0, b"34", 8)]


def test_events_do_not_move_past_a_frame_with_containers() -> None:
    frames = of("a", events(b"1", 5), CONTAINERS, events(b"2", 6), events(b"3", 7))
    assert told(frames) == [("a", 0, b"1", 5), ("a", -1, b"", -1), ("a", 0, b"23", 7)]


def test_events_of_different_gadgets_stay_apart_and_in_order() -> None:
    frames = of("a", events(b"1", 5), events(b"2", 6, gadget=1), events(b"3", 7, gadget=1), events(b"4", 8))
    assert told(frames) == [("a", 0, b"1", 5), ("a", 1, b"23", 7), ("a", 0, b"4", 8)]


def test_parts_of_totals_stay_as_they_are() -> None:
    frames = of("a", events(b"1", 5, flags=LAST), events(b"2", 6, flags=LAST))
    assert told(frames) == [("a", 0, b"1", 5), ("a", 0, b"2", 6)]


def test_a_frame_that_is_too_short_is_passed_on_for_the_reader_to_refuse() -> None:
    short = Item("a", Events(b"x"))
    assert list(coalesced([*of("a", events(b"1", 5)), short]))[1] == short


def grouped(items: list[Item], can_join: bool = True) -> list[list[tuple[str, int]]]:
    """Node and complete_until (-1: no events) of what comes together."""
    found = []
    for one in together(items, lambda node, gadget: can_join):
        if isinstance(one, Item):
            payload = one.content.payload if isinstance(one.content, Events) else None
            found.append([(one.node, -1 if payload is None else split_events(payload)[0].complete_until)])
        else:
            found.append([(frame.item.node, frame.head.complete_until) for frame in one])
    return found


A, B, C = (of(name, events(bytes(8), until))[0] for name, until in (("a", 1), ("b", 2), ("c", 3)))


def test_small_frames_of_several_nodes_come_together() -> None:
    assert grouped([A, B, C]) == [[("a", 1), ("b", 2), ("c", 3)]]
    assert grouped([A, B, C], can_join=False) == [[("a", 1)], [("b", 2)], [("c", 3)]]


def test_what_a_node_announces_stays_between_its_frames_and_those_of_others_go_on() -> None:
    announced = Item("a", CONTAINERS)
    assert grouped([A, B, announced, A, C]) == [[("a", 1), ("b", 2)], [("a", -1)], [("a", 1), ("c", 3)]]
    assert grouped([B, announced, A, C]) == [[("a", -1)], [("b", 2), ("a", 1), ("c", 3)]]


def test_two_frames_of_a_node_are_never_in_one_group() -> None:
    assert grouped([A, B, A]) == [[("a", 1), ("b", 2)], [("a", 1)]]


def test_gadgets_are_apart_and_large_frames_alone() -> None:
    other, large = of("a", events(bytes(8), 5, gadget=1), events(bytes(16 << 10), 6))
    assert grouped([A, other, B]) == [[("a", 1), ("b", 2)], [("a", 5)]]
    assert grouped([A, large, B]) == [[("a", 1)], [("a", 6)], [("b", 2)]]


def test_a_gap_comes_after_all_frames_before_it() -> None:
    assert grouped([A, B, Item("c", Gap(1.0, 2)), C]) == [[("a", 1), ("b", 2)], [("c", -1)], [("c", 3)]]


async def test_a_step_has_all_that_came_joined_and_one_time_for_all_of_it() -> None:
    backlog, times = Backlog(1 << 20), iter((7, 8))
    for number in range(3):
        backlog.add(Item("n1", Events(EventsHeader(0, number, number).encode() + bytes([number]))))
    backlog.add(Item("n1", Stats()))
    step = LiveFrames(backlog, lambda: next(times)).take(None)
    assert step is not None
    first, second = (item.content for item in step.items)
    assert isinstance(first, Events)
    assert first.payload.endswith(b"\x00\x01\x02")
    assert second == Stats()
    assert step.now_ns == 7


async def test_nothing_came_is_a_step_without_items_at_the_time_that_is_due() -> None:
    frames = LiveFrames(Backlog(1 << 20), lambda: 100)
    step = frames.take(100)
    assert step is not None
    assert (list(step.items), step.now_ns) == ([], 100)


async def test_the_end_of_the_backlog_is_the_end_of_the_steps() -> None:
    backlog = Backlog(1 << 20)
    backlog.close()
    frames = LiveFrames(backlog)
    assert frames.take(None) is None
    frames.drain()


# Time in which this process runs


def test_time_in_which_the_process_stood_still_is_not_counted() -> None:
    moments = iter([0, 100_000_000, 600_000_000, 30_600_000_000, 30_700_000_000])
    now = RunningTime(lambda: next(moments))
    assert [now() for _ in range(4)] == [100_000_000, 600_000_000, 1_100_000_000, 1_200_000_000]
