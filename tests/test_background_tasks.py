"""Background tasks: none fails silently, and none outlives its owner."""

import asyncio

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError, GadgetError, InternalError


async def fails(error: Exception) -> None:
    raise error


async def test_the_error_of_a_task_reaches_its_owner_and_the_others_go_on() -> None:
    failures: list[GadgetError] = []
    done = asyncio.Event()
    async with Tasks(failures.append) as tasks:
        await asyncio.gather(tasks.start(fails(ClusterError("gone")), "one"), tasks.start(fails(KeyError("x")), "two"))
        other = tasks.start(done.wait(), "other")
        done.set()
        await other
    assert [type(error) for error in failures] == [ClusterError, InternalError]


async def test_no_task_outlives_the_block() -> None:
    async with Tasks(print) as tasks:
        task = tasks.start(asyncio.Event().wait(), "for ever")
    assert task.cancelled()


async def test_the_error_of_the_block_is_not_wrapped() -> None:
    async def refused() -> None:
        async with Tasks(print) as tasks:
            tasks.start(asyncio.Event().wait(), "for ever")
            raise ClusterError("refused")

    with pytest.raises(ClusterError, match="refused"):
        await refused()
