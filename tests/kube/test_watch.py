"""Watches that last."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from kubectl_gadget.errors import ForbiddenError
from kubectl_gadget.kube import informer as watch_module
from kubectl_gadget.kube.failure import StatusError
from kubectl_gadget.kube.informer import Changed, Synced, WatchScope, follow
from kubectl_gadget.kube.requests import Api, Listing
from kubectl_gadget.kube.resources import NODES, PODS
from tests.fake_cluster import FakeCluster

SCOPE = WatchScope(PODS, "default")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "RETRY_SECONDS", (0.0,))


async def following(changes: AsyncGenerator[Synced | Changed, None]) -> Synced | Changed:
    return await asyncio.wait_for(anext(changes), 10)


def told(change: Synced | Changed) -> tuple[bool, str]:
    """(deleted, name) of a change."""
    assert isinstance(change, Changed)
    return change.deleted, change.object["metadata"]["name"]


async def test_a_watch_begins_with_existing_objects_and_continues_with_changes(cluster: FakeCluster, api: Api) -> None:
    cluster.add_pod("a", "node-1")
    async with aclosing(follow(api, SCOPE)) as changes:
        first = await following(changes)
        assert isinstance(first, Synced)
        assert [pod["metadata"]["name"] for pod in first.items] == ["a"]
        cluster.add_pod("b", "node-1")
        assert told(await following(changes)) == (False, "b")
        cluster.delete_pod("a")
        assert told(await following(changes)) == (True, "a")


async def test_parts_that_no_follower_reads_are_not_kept(cluster: FakeCluster, api: Api) -> None:
    cluster.store.change("nodes", "", "node-1", lambda node: node["status"].update(images=[{"names": ["a"]}]))
    async with aclosing(follow(api, WatchScope(NODES))) as changes:
        first = await anext(changes)
    assert isinstance(first, Synced)
    assert ["images" in node["status"] for node in first.items] == [False, False]


async def test_a_malformed_message_breaks_a_watch_as_a_cut_does_and_is_reported(
    cluster: FakeCluster, api: Api, warnings: list[str]
) -> None:
    cluster.faults.babbling_watches = 4
    async with aclosing(follow(api, SCOPE)) as changes:
        await following(changes)
        cluster.add_pod("a", "node-1")
        assert told(await following(changes)) == (False, "a")
    assert any('not a watch event: "<html>the proxy\'s own page"' in text for text in warnings)


async def test_a_pod_that_comes_between_list_and_watch_is_not_missed(cluster: FakeCluster, api: Api) -> None:
    async with aclosing(follow(api, SCOPE)) as changes:
        await following(changes)
        cluster.add_pod("early", "node-1")  # the watch begins with the next step
        assert told(await following(changes)) == (False, "early")


async def test_a_watch_that_breaks_goes_on_where_it_was(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.broken_watches = 2
    async with aclosing(follow(api, SCOPE)) as changes:
        await following(changes)
        cluster.add_pod("a", "node-1")
        assert told(await following(changes)) == (False, "a")
    assert cluster.server.requests.count(("list", "pods")) == 1


async def test_a_version_that_is_too_old_leads_to_a_new_list(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.expire_watches = True
    async with aclosing(follow(api, SCOPE)) as changes:
        await following(changes)
        cluster.add_pod("a", "node-1")
        second = await following(changes)
        assert isinstance(second, Synced)
        assert [pod["metadata"]["name"] for pod in second.items] == ["a"]


async def test_a_server_that_is_just_starting_is_asked_again(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.expire_watches = True
    async with aclosing(follow(api, SCOPE)) as changes:
        await following(changes)
        cluster.add_pod("a", "node-1")
        cluster.faults.starting = 3
        assert isinstance(await following(changes), Synced)
    assert not cluster.faults.starting


async def test_a_forbidden_watch_is_an_error_at_once(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.forbidden.add(("watch", "pods"))
    async with aclosing(follow(api, SCOPE)) as changes:
        await following(changes)
        with pytest.raises(ForbiddenError, match='cannot watch resource "pods"'):
            await following(changes)


async def test_an_object_that_stops_matching_is_reported_as_deleted(cluster: FakeCluster, api: Api) -> None:
    cluster.add_pod("a", "node-1", labels={"app": "x"})
    async with aclosing(follow(api, WatchScope(PODS, "default", labels="app=x"))) as changes:
        await following(changes)
        cluster.store.change("pods", "default", "a", lambda pod: pod["metadata"].update(labels={}))
        assert told(await following(changes)) == (True, "a")


async def test_a_busy_api_server_is_asked_again_for_the_list_after_a_lost_past(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, busy = api.find, [StatusError(429, "TooManyRequests", "too busy")]

    async def is_busy_once(*arguments: Any) -> Listing:
        if busy:
            raise busy.pop()
        return await find(*arguments)

    async with aclosing(follow(api, SCOPE)) as changes:
        await following(changes)
        monkeypatch.setattr(api, "find", is_busy_once)
        cluster.faults.expire_watches = True
        assert isinstance(await following(changes), Synced)
    assert not busy
