"""Deletions that events of policies lead to, at the end of a run."""

import asyncio

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.policies.run.delete_pods import PodDeleter
from kubectl_gadget.run.services import Surroundings


class SlowApi:
    """Of an API server that answers late, or never."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = asyncio.Event()

    async def require(self, *_: object) -> None:
        pass

    async def delete(self, resource: object, name: str, *_: object, **__: object) -> bool:
        self.asked.append(name)
        await self.answer.wait()
        return True


async def test_an_api_server_that_does_not_answer_is_named_and_not_waited_for_for_ever() -> None:
    said: list[str] = []
    failures: list[GadgetError] = []
    api, deleter = SlowApi(), PodDeleter("default", said.append, end_seconds=0.0)
    async with Tasks(failures.append) as tasks, deleter.serve(Surroundings(tasks, api)):  # type: ignore[arg-type]
        deleter.delete("default", "xwing", "u1", "it did it")
        while not api.asked:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert said == ["default/xwing may still exist: the API server did not answer in 0 s"]
    assert failures == []


async def test_the_run_waits_for_deletions_that_rows_led_to_in_another_thread() -> None:
    said: list[str] = []
    api, deleter = SlowApi(), PodDeleter("default", said.append)
    async with Tasks(print) as tasks, deleter.serve(Surroundings(tasks, api)):  # type: ignore[arg-type]
        for _ in range(2):
            await asyncio.to_thread(deleter.delete, "default", "xwing", "u1", "it did it")
        asyncio.get_running_loop().call_later(0, api.answer.set)
    assert (api.asked, said) == (["xwing"], ["default/xwing deleted: it did it"])
