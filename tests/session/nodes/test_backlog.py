import asyncio

from kubectl_gadget.session.nodes.backlog import Backlog, Events, Item


def item(size: int) -> Item:
    return Item("n1", Events(b""), size)


async def test_a_reader_waits_when_the_backlog_is_full_and_goes_on_when_there_is_room() -> None:
    backlog = Backlog(100)
    await backlog.put(item(80))
    waiting = asyncio.create_task(backlog.put(item(80)))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(backlog.take(0) or []) == 1
    async with asyncio.timeout(5):
        await waiting
    assert backlog.bytes == 80


async def test_one_frame_that_is_larger_than_the_bound_still_passes() -> None:
    backlog = Backlog(10)
    async with asyncio.timeout(5):
        await backlog.put(item(500))
    assert backlog.bytes == 500


async def test_what_is_held_can_be_taken_after_close_and_then_it_ends() -> None:
    backlog = Backlog(100)
    await backlog.put(item(1))
    backlog.close()
    assert len(backlog.take(0) or []) == 1
    assert backlog.take(0) is None


async def test_nothing_within_the_timeout_is_an_empty_list_and_not_the_end() -> None:
    assert Backlog(100).take(0) == []
