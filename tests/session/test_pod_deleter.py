import asyncio

from kubectl_gadget.session.policies.delete_pods import PodDeleter


class DeafApi:
    """Of an API server that does not answer."""

    async def delete(self, *_: object, **__: object) -> bool:
        await asyncio.Event().wait()
        return True


async def test_an_api_server_that_does_not_answer_is_named_and_not_waited_for_for_ever() -> None:
    said: list[str] = []
    deleter = PodDeleter(DeafApi(), asyncio.get_running_loop(), said.append, end_seconds=0.0)  # type: ignore[arg-type]
    deleter.delete("default", "xwing", "u1", "it did it")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await deleter.finish()
    assert said == ["default/xwing may not be deleted: the API server did not answer in 0 s"]
