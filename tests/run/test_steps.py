from kubectl_gadget.run.backlog import Backlog, Events, Item, LiveFrames, RunningTime
from kubectl_gadget.wire.agent_messages import Stats
from kubectl_gadget.wire.frames import EventsHeader


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


# test_running_time


def test_time_in_which_the_process_stood_still_is_not_counted() -> None:
    moments = iter([0, 100_000_000, 600_000_000, 30_600_000_000, 30_700_000_000])
    now = RunningTime(lambda: next(moments))
    assert [now() for _ in range(4)] == [100_000_000, 600_000_000, 1_100_000_000, 1_200_000_000]
