"""Runs share a namespace: none waits for another's end, none ends another's, and minutes after the last it is gone."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_gadget.agents import manifests, shared_namespace
from kubectl_gadget.agents.manifests import EXPIRY
from kubectl_gadget.agents.on_demand import OnDemandAgents
from kubectl_gadget.agents.resident_agents import deploy
from kubectl_gadget.agents.shared_namespace import SharedNamespace, until_gone
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import DeployError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import IP_ADDRESSES, JOBS, NAMESPACES, PODS
from tests.agents.leftovers import left
from tests.fake_cluster import FakeCluster
from tests.waiting import until

FIRST, SECOND = "kubectl-gadget", "kubectl-gadget-2"
Start = Callable[[], OnDemandAgents]


@pytest.fixture
def new_run(api: Api, tasks: Tasks, agent_options: AgentOptions) -> Start:
    return lambda: OnDemandAgents(api, agent_options, tasks, secrets.token_hex(4), lambda _node, _text: None)


def expires(cluster: FakeCluster, namespace: str = FIRST) -> bool:
    found = cluster.store.get("namespaces", "", namespace)
    return found is not None and shared_namespace.expires(found)


def uid(cluster: FakeCluster, namespace: str = FIRST) -> str:
    found = cluster.store.get("namespaces", "", namespace)
    assert found is not None
    assert "deletionTimestamp" not in found["metadata"]
    return str(found["metadata"]["uid"])


async def test_runs_one_after_the_other_use_one_namespace(cluster: FakeCluster, new_run: Start) -> None:
    before, uids = set(cluster.store.objects), set()
    for _ in range(3):
        agents = new_run()
        await agents.start("node-1")
        assert await agents.close() == []
        uids.add(uid(cluster))
        assert ("namespaces", "", SECOND) not in cluster.store.objects
    assert len(uids) == 1
    assert not left(cluster, before)


@pytest.mark.parametrize("is_killed", [False, True])
async def test_the_namespace_goes_by_itself_after_the_last_run(
    cluster: FakeCluster, new_run: Start, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    monkeypatch.setattr(shared_namespace, "KEPT_SECONDS", 2)
    before = set(cluster.store.objects)
    agents = new_run()
    await agents.start("node-1")
    await until(lambda: expires(cluster))
    if is_killed:  # with all its processes, as when the machine loses power
        for hold, task in agents.holds:
            assert hold
            task.cancel()
        agents.reapers[FIRST].process.kill()
        cluster.store.remove("jobs", FIRST, f"run-{agents.run}")
    else:
        assert await agents.close() == []
        assert ("namespaces", "", FIRST) in cluster.store.objects
    requests = len(cluster.server.requests)
    await until(lambda: set(cluster.store.objects) == before)
    if not is_killed:
        assert len(cluster.server.requests) == requests, "no client had to ask for that"
    else:
        await agents.close()


async def test_a_run_keeps_the_namespace_as_long_as_it_lives(
    cluster: FakeCluster, new_run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_namespace, "KEPT_SECONDS", 2)
    monkeypatch.setattr(shared_namespace, "SIGN_SECONDS", 0.2)
    agents = new_run()
    pod = await agents.start("node-1")
    await asyncio.sleep(4)
    assert pod["metadata"]["name"] in [found["metadata"]["name"] for found in cluster.pods(FIRST)]
    await agents.close()


async def test_a_wrong_clock_of_this_machine_ends_nothing_early(
    cluster: FakeCluster, new_run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    first, second = new_run(), new_run()
    await first.start("node-1")
    await until(lambda: expires(cluster))
    await second.start("node-2")
    job = cluster.store.objects["jobs", FIRST, EXPIRY]
    assert 180 <= job["spec"]["ttlSecondsAfterFinished"] < 240
    await asyncio.gather(first.close(), second.close())


async def test_a_run_that_begins_when_the_end_can_no_longer_be_stopped_goes_elsewhere(
    cluster: FakeCluster, new_run: Start, warnings: list[str]
) -> None:
    first, second = new_run(), new_run()
    await first.start("node-1")
    await until(lambda: expires(cluster))
    await first.close()
    del cluster.store.objects["jobs", FIRST, EXPIRY]  # the garbage collector has not yet seen it
    pod = await second.start("node-1")
    assert pod["metadata"]["namespace"] == SECOND
    assert not [key for key in cluster.store.objects if key[:2] == ("jobs", FIRST)]
    assert warnings == []
    await second.close()


@pytest.mark.parametrize("moment", [0, 1, 2])
async def test_a_namespace_that_begins_to_go_while_a_run_starts_is_left(
    cluster: FakeCluster,
    api: Api,
    new_run: Start,
    monkeypatch: pytest.MonkeyPatch,
    agent_options: AgentOptions,
    moment: int,
) -> None:
    """Before its job, after its job, and after it was found to stay."""
    await api.create(NAMESPACES, manifests.namespace(agent_options))
    cluster.faults.slow_namespaces = 60.0
    created, moments = api.create, iter(range(10))

    async def create(resource: Any, *words: Any, **named: Any) -> Any:
        now = next(moments)
        if moment == now == 0 or (moment == 2 and now == 1):
            cluster.kubelet.deleted("namespaces", "", FIRST)
        found = await created(resource, *words, **named)
        if moment == 1 and now == 0:
            cluster.kubelet.deleted("namespaces", "", FIRST)
        return found

    monkeypatch.setattr(api, "create", create)
    agents = new_run()
    pod = await agents.start("node-1")
    assert pod["metadata"]["namespace"] == SECOND
    assert await agents.close() == []


async def test_the_end_of_a_run_does_not_delete_the_namespace_of_one_that_begins(
    cluster: FakeCluster, api: Api, new_run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that ends has looked for others before, and deletes after."""
    cluster.faults.no_addresses = True
    first, second = new_run(), new_run()
    await first.start("node-1")
    deleted = api.delete
    pods: list[Any] = []

    async def delete(resource: Any, *words: Any, **named: Any) -> bool:
        if resource == NAMESPACES and not pods:
            pods.append(await second.start("node-2"))
        return await deleted(resource, *words, **named)

    monkeypatch.setattr(api, "delete", delete)
    assert await first.close() == []
    assert pods[0]["metadata"]["namespace"] == FIRST
    assert uid(cluster)
    assert [pod["spec"]["nodeName"] for pod in cluster.pods(FIRST)] == ["node-2"]
    await second.close()


async def test_many_runs_that_begin_and_end_at_any_moment_harm_none(cluster: FakeCluster, new_run: Start) -> None:
    for older in (False, True):
        cluster.faults.no_addresses, cluster.faults.slow_namespaces = older, 0.3

        async def one(number: int) -> None:
            for turn in range(3):
                await asyncio.sleep((number * 7 + turn * 3) % 5 / 50)
                agents = new_run()
                pod = await agents.start(f"node-{number % 2 + 1}")
                metadata = pod["metadata"]
                await asyncio.sleep((number + turn) % 3 / 20)
                found = cluster.store.get("pods", metadata["namespace"], metadata["name"])
                assert found is not None, "its pod is still there"
                assert "deletionTimestamp" not in found["metadata"]
                assert await agents.close() == []

        await asyncio.gather(*map(one, range(5)))


async def test_a_deployment_stays_where_runs_have_been(
    cluster: FakeCluster, api: Api, new_run: Start, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_namespace, "KEPT_SECONDS", 1)
    agents = new_run()
    await agents.start("node-1")
    await until(lambda: expires(cluster))
    await deploy(api, agent_options, lambda _: None)
    await agents.close()
    found = cluster.store.objects["namespaces", "", FIRST]
    assert not found["metadata"].get("ownerReferences")
    assert not manifests.is_on_demand(found)
    await until(lambda: not [key for key in cluster.store.objects if EXPIRY in key])
    await asyncio.sleep(0.5)
    assert uid(cluster)
    assert len(cluster.pods(FIRST)) == 2


async def test_a_deployment_between_a_runs_look_and_its_request_gets_no_end(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.create(NAMESPACES, manifests.namespace(agent_options))
    anchor = await api.create(JOBS, manifests.anchor_job(agent_options, "one", 20), FIRST)
    got = api.get

    async def get(resource: Any, *words: Any, **named: Any) -> Any:
        if resource == IP_ADDRESSES:
            await deploy(api, agent_options, lambda _: None)
        return await got(resource, *words, **named)

    monkeypatch.setattr(api, "get", get)
    keeping = asyncio.create_task(SharedNamespace(api, FIRST, anchor).keep())
    await until(lambda: len(cluster.pods(FIRST)) == 2 and ("get", "ipaddresses") in cluster.server.requests)
    await asyncio.sleep(0.1)
    keeping.cancel()
    assert not cluster.store.objects["namespaces", "", FIRST]["metadata"].get("ownerReferences")


async def test_a_service_of_an_earlier_time_does_not_end_the_namespace(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    """Its job is gone, and the garbage collector is about to remove it, with its address."""
    await api.create(NAMESPACES, manifests.namespace(agent_options))
    former = {"metadata": {"name": EXPIRY, "uid": "of-one-that-is-gone"}}
    cluster.server.add("services", FIRST, manifests.expiry_service(FIRST, former))
    anchor = await api.create(JOBS, manifests.anchor_job(agent_options, "one", 20), FIRST)
    hold = SharedNamespace(api, FIRST, anchor)
    assert await hold.hold()
    keeping = asyncio.create_task(hold.keep())
    await hold.settle()
    keeping.cancel()
    assert not expires(cluster)


@pytest.mark.parametrize("right", [("create", "services"), ("get", "ipaddresses"), ("patch", "namespaces")])
async def test_without_the_rights_for_it_the_last_run_removes_the_namespace(
    cluster: FakeCluster, new_run: Start, right: tuple[str, str]
) -> None:
    before = set(cluster.store.objects)
    cluster.faults.forbidden.add(right)
    agents = new_run()
    await agents.start("node-1")
    assert await agents.close() == []
    await until(lambda: set(cluster.store.objects) == before)


async def test_a_namespace_that_expires_is_not_deleted_by_a_run(cluster: FakeCluster, api: Api, new_run: Start) -> None:
    agents = new_run()
    await agents.start("node-1")
    await until(lambda: expires(cluster))
    assert await shared_namespace.remove(api, FIRST, agents.run) == []
    assert ("delete", "namespaces") not in cluster.server.requests
    assert uid(cluster)
    await agents.close()


async def test_a_namespace_that_another_run_has_made_anew_is_not_waited_for(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.slow_namespaces = 60.0
    cluster.add_namespace("other")
    await api.delete(NAMESPACES, "other")
    waiting = asyncio.create_task(until_gone(api, "other", 20.0))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    cluster.store.remove("namespaces", "", "other")
    cluster.add_namespace("other")
    await waiting


async def test_what_keeps_kubernetes_from_deleting_a_namespace_is_said(cluster: FakeCluster, api: Api) -> None:
    cluster.faults.slow_namespaces = 60.0
    cluster.add_namespace("stuck")
    await api.delete(NAMESPACES, "stuck")
    message = "Discovery failed for some groups, 1 failing: metrics.k8s.io/v1beta1: stale"
    condition = {"type": "NamespaceDeletionDiscoveryFailure", "status": "True", "message": message}
    cluster.store.change("namespaces", "", "stuck", lambda found: found.update(status={"conditions": [condition]}))
    with pytest.raises(DeployError, match=r"has not deleted the namespace stuck after 0 s; Discovery failed .* stale"):
        await until_gone(api, "stuck", 0.3)


# Its removal with the last run that uses it, and with nothing else


NAMESPACE = "kubectl-gadget"


@pytest.fixture
async def made(cluster: FakeCluster, api: Api, agent_options: AgentOptions) -> None:
    """The namespace of a run, and the anchor jobs of two."""
    await api.create(NAMESPACES, manifests.namespace(agent_options))
    for run in ("one", "two"):
        await api.create(JOBS, manifests.anchor_job(agent_options, run, 20), NAMESPACE)


def is_there(cluster: FakeCluster) -> bool:
    found = cluster.store.get("namespaces", "", NAMESPACE)
    return found is not None and "deletionTimestamp" not in found["metadata"]


@pytest.mark.usefixtures("made")
async def test_the_last_of_two_runs_that_end_at_once_removes_the_namespace(cluster: FakeCluster, api: Api) -> None:
    for run in ("one", "two"):
        metadata = {"name": f"agent-{run}", "labels": manifests.run_labels(run)}
        cluster.store.add("pods", NAMESPACE, {"metadata": metadata, "spec": {}})
        cluster.store.change(
            "pods", NAMESPACE, metadata["name"], lambda pod: pod["metadata"].update(deletionTimestamp="now")
        )
    assert await asyncio.gather(*(shared_namespace.remove(api, NAMESPACE, run) for run in ("one", "two"))) == [[], []]
    await until(lambda: not is_there(cluster))


@pytest.mark.usefixtures("made")
async def test_a_run_that_has_no_pod_yet_keeps_the_namespace(cluster: FakeCluster, api: Api) -> None:
    assert await shared_namespace.remove(api, NAMESPACE, "one") == []
    assert is_there(cluster)
    assert [job["metadata"]["name"] for job in cluster.store.list("jobs", NAMESPACE)] == ["run-two"]


@pytest.mark.usefixtures("made")
async def test_a_pod_that_no_run_started_keeps_the_namespace(cluster: FakeCluster, api: Api) -> None:
    cluster.add_pod("of-somebody", "node-1", namespace=NAMESPACE)
    for run in ("one", "two"):
        assert await shared_namespace.remove(api, NAMESPACE, run) == []
    assert is_there(cluster)


@pytest.mark.usefixtures("made")
async def test_a_deploy_between_the_check_and_the_deletion_keeps_the_namespace(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.store.remove("jobs", NAMESPACE, "run-two")
    found = api.find

    async def find(resource: Any, *words: Any, **named: Any) -> Any:
        listing = await found(resource, *words, **named)
        if resource == PODS:
            annotation = {"metadata": {"annotations": {manifests.ON_DEMAND_ANNOTATION: None}}}
            await api.patch(NAMESPACES, NAMESPACE, annotation)
        return listing

    monkeypatch.setattr(api, "find", find)
    assert await shared_namespace.remove(api, NAMESPACE, "one") == []
    assert is_there(cluster)


@pytest.mark.usefixtures("made")
async def test_a_namespace_that_changes_at_the_same_time_is_examined_again(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.store.remove("jobs", NAMESPACE, "run-two")
    found, looks = api.find, iter(range(100))

    async def find(resource: Any, *words: Any, **named: Any) -> Any:
        if resource == PODS and next(looks) == 0:
            await api.patch(NAMESPACES, NAMESPACE, {"metadata": {"labels": {"of": "somebody"}}})
        return await found(resource, *words, **named)

    monkeypatch.setattr(api, "find", find)
    assert await shared_namespace.remove(api, NAMESPACE, "one") == []
    await until(lambda: not is_there(cluster))
