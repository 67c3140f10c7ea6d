"""What is kept of a cluster's objects beside a run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import NODES, PODS, Resource
from kubectl_gadget.cluster.inventory import InventoryWatch
from tests.fake_cluster import FakeCluster


def name_of(found: dict[str, Any]) -> str:
    return str(found["metadata"]["name"])


@asynccontextmanager
async def watching(
    api: Api, told: list[str], namespace: str | None = "default", everywhere: bool = True
) -> AsyncIterator[InventoryWatch]:
    keep: dict[Resource, Callable[[dict[str, Any]], Any]] = {PODS: name_of, NODES: name_of}
    inventory = InventoryWatch(api, keep, namespace, told.append, everywhere)
    task = asyncio.create_task(inventory.watch())
    try:
        async with asyncio.timeout(30):
            await inventory.listed()
        yield inventory
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(inventory: InventoryWatch, names: list[str]) -> None:
    async with asyncio.timeout(30):
        while inventory.found(PODS) != names:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_objects_that_went_are_still_known_and_the_last_that_changed_comes_last(
    cluster: FakeCluster, api: Api
) -> None:
    told: list[str] = []
    for name in ("a", "b", "c"):
        cluster.add_pod(name, "node-1", namespace="other" if name == "c" else "default")
    async with watching(api, told) as inventory:
        assert inventory.found(PODS) == ["a", "b", "c"]
        assert inventory.found(NODES) == cluster.nodes
        cluster.delete_pod("b")
        cluster.store.change("pods", "default", "a", lambda pod: pod["metadata"].update(labels={"x": "y"}))
        await until(inventory, ["c", "b", "a"])
    assert told == []


async def test_without_the_right_to_all_namespaces_those_of_one_are_known(cluster: FakeCluster, api: Api) -> None:
    told: list[str] = []
    cluster.faults.forbidden |= {("list", "nodes")}
    cluster.add_pod("a", "node-1")
    async with watching(api, told) as inventory:
        assert (inventory.found(PODS), inventory.found(NODES)) == (["a"], [])
    assert told == ["nodes may not be listed, so they are not known by name"]


async def test_only_one_namespace_is_asked_for_when_that_is_enough(cluster: FakeCluster, api: Api) -> None:
    cluster.add_pod("a", "node-1")
    cluster.add_pod("b", "node-1", namespace="other")
    async with watching(api, [], everywhere=False) as inventory:
        assert inventory.found(PODS) == ["a"]
