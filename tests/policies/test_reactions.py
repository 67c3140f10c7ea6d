"""Deletions that events of policies lead to: those that fail, and those at the end of a run."""

import asyncio
from typing import Any

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ForbiddenError, GadgetError
from kubectl_gadget.kube.failure import UnreachableError
from kubectl_gadget.policies import reactions
from kubectl_gadget.policies.reactions import PodDeleter
from kubectl_gadget.run.services import Surroundings
from tests.waiting import until


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
        await until(lambda: api.asked)
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


class FailingApi(SlowApi):
    """Of an API server whose next answers are these: an error, or whether it had the pod."""

    def __init__(self, *answers: GadgetError | bool, pod: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._answers = list(answers)
        self._pod = pod

    async def delete(self, resource: object, name: str, *_: object, **__: object) -> bool:
        self.asked.append(name)
        answer = self._answers.pop(0)
        if isinstance(answer, GadgetError):
            raise answer
        return answer

    async def get(self, *_: object) -> dict[str, Any] | None:
        return self._pod


DOWN = UnreachableError("the API server is down")
DENIED = ForbiddenError("Forbidden: no")


async def test_a_deletion_that_fails_is_tried_again_until_the_pod_is_gone() -> None:
    said: list[str] = []
    api, deleter = FailingApi(DOWN, DOWN, True), PodDeleter("default", said.append, pause=0.001)
    async with Tasks(print) as tasks, deleter.serve(Surroundings(tasks, api)):  # type: ignore[arg-type]
        deleter.delete("default", "xwing", "u1", "it did it")
        await until(lambda: len(api.asked) >= 3)
        deleter.delete("default", "xwing", "u1", "it did it")
    assert len(api.asked) == 3
    assert said == ["default/xwing is not deleted yet: the API server is down", "default/xwing deleted: it did it"]


async def test_at_the_end_of_the_run_a_deletion_that_failed_is_tried_once_more() -> None:
    said: list[str] = []
    api, deleter = FailingApi(DOWN, DOWN), PodDeleter("default", said.append, pause=1000.0)
    async with Tasks(print) as tasks, deleter.serve(Surroundings(tasks, api)):  # type: ignore[arg-type]
        deleter.delete("default", "xwing", "u1", "it did it")
        await until(lambda: api.asked)
    assert len(api.asked) == 2
    assert said[-1] == "default/xwing is not deleted: the API server is down"


async def test_a_refusal_is_not_retried_but_a_later_violation_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactions, "LONGEST_PAUSE", 0.001)
    said: list[str] = []
    api, deleter = FailingApi(DENIED, True), PodDeleter("default", said.append)
    async with Tasks(print) as tasks, deleter.serve(Surroundings(tasks, api)):  # type: ignore[arg-type]
        deleter.delete("default", "xwing", "u1", "it did it")
        await until(lambda: api.asked)
        await asyncio.sleep(0.05)
        assert len(api.asked) == 1

        def is_asked_again() -> bool:
            deleter.delete("default", "xwing", "u1", "it did it")
            return len(api.asked) >= 2

        await until(is_asked_again)
    assert said == ["default/xwing is not deleted: Forbidden: no", "default/xwing deleted: it did it"]


async def test_a_static_pod_is_not_said_to_be_gone() -> None:
    hash = {"kubernetes.io/config.hash": "u1", "kubernetes.io/config.mirror": "u1"}
    owner = {"kind": "Node", "apiVersion": "v1", "name": "node-1", "controller": True}
    pod = {"metadata": {"annotations": hash, "ownerReferences": [owner]}, "spec": {"nodeName": "node-1"}}
    said: list[str] = []
    api, deleter = FailingApi(False, pod=pod), PodDeleter("kube-system", said.append)
    async with Tasks(print) as tasks, deleter.serve(Surroundings(tasks, api)):  # type: ignore[arg-type]
        deleter.delete("kube-system", "etcd", "u1", "it did it")
        await until(lambda: api.asked)
    assert said == ["kube-system/etcd is not deleted: it is a static pod, which only a file on its node can end"]


async def test_without_a_uid_no_pod_is_deleted() -> None:
    said: list[str] = []
    api, deleter = FailingApi(), PodDeleter("default", said.append)
    async with Tasks(print) as tasks, deleter.serve(Surroundings(tasks, api)):  # type: ignore[arg-type]
        for _ in range(2):
            deleter.delete("default", "xwing", "", "it did it")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert api.asked == []
    assert said == ["default/xwing is not deleted: its UID is not known, and another pod of this name might be deleted"]
