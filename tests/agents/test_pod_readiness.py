"""The pods of a run are followed by one watch while they start."""

import asyncio
from contextlib import aclosing

import pytest

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.on_demand import OnDemandAgents
from kubectl_gadget.agents.pod_readiness import StartingPods
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import DeployError, ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from tests.fake_cluster import FakeCluster
from tests.waiting import until

NAMESPACE = "kubectl-gadget"


def add(cluster: FakeCluster, name: str, run: str = "one") -> None:
    metadata = {"name": name, "labels": manifests.run_labels(run)}
    cluster.store.add("pods", NAMESPACE, {"metadata": metadata, "spec": {"nodeName": "node-1"}})


@pytest.fixture
def agents(api: Api, tasks: Tasks, agent_options: AgentOptions) -> OnDemandAgents:
    return OnDemandAgents(api, agent_options, tasks, "one", lambda _node, _text: None)


async def test_one_watch_serves_all_pods_and_ends_when_all_have_started(
    cluster: FakeCluster, agents: OnDemandAgents
) -> None:
    cluster.server.requests.clear()
    await asyncio.gather(*map(agents.start, cluster.nodes))
    assert cluster.server.requests.count(("watch", "pods")) == 1
    assert cluster.server.requests.count(("list", "pods")) == 1
    await until(lambda: not cluster.server.watches)
    await agents.start("node-1")
    assert cluster.server.requests.count(("watch", "pods")) == 2
    await agents.close()


async def test_states_are_kept_until_they_are_asked_for(cluster: FakeCluster, api: Api, tasks: Tasks) -> None:
    pods = StartingPods(api, tasks, NAMESPACE, "one")
    add(cluster, "of-this-run")
    add(cluster, "of-another-run", "two")
    await until(lambda: "of-this-run" in pods._queues)
    async with aclosing(pods.states("of-this-run")) as states:
        pod = await anext(states)
        assert pod is not None
        assert pod["metadata"]["name"] == "of-this-run"
        cluster.store.remove("pods", NAMESPACE, "of-this-run")
        assert await anext(states) is None
    assert not pods._queues
    pods.end()


async def test_a_pod_that_was_deleted_while_the_history_was_lost_is_reported(
    cluster: FakeCluster, api: Api, tasks: Tasks
) -> None:
    pods = StartingPods(api, tasks, NAMESPACE, "one")
    add(cluster, "agent")
    async with aclosing(pods.states("agent")) as states:
        assert await anext(states) is not None
        await until(lambda: bool(cluster.server.watches))
        cluster.faults.expire_watches = True
        cluster.break_watches()
        cluster.store.remove("pods", NAMESPACE, "agent")
        while await anext(states) is not None:
            pass
    pods.end()


async def test_a_watch_that_fails_is_reported_for_every_pod(cluster: FakeCluster, api: Api, tasks: Tasks) -> None:
    pods = StartingPods(api, tasks, NAMESPACE, "one")
    cluster.faults.forbidden.add(("list", "pods"))
    for name in ("one", "another"):
        with pytest.raises(ForbiddenError):
            await anext(pods.states(name))


async def test_a_pod_that_is_deleted_while_it_starts_is_reported(cluster: FakeCluster, agents: OnDemandAgents) -> None:
    cluster.faults.waiting["node-1"] = ("ContainerCreating", "")
    starting = asyncio.create_task(agents.start("node-1"))
    await until(lambda: bool(cluster.pods(NAMESPACE)))
    cluster.delete_pod(cluster.pods(NAMESPACE)[0]["metadata"]["name"], NAMESPACE)
    with pytest.raises(DeployError, match="was deleted while it started"):
        await starting
    await agents.close()


async def test_what_was_found_ahead_is_not_asked_again(cluster: FakeCluster, agents: OnDemandAgents) -> None:
    before = set(cluster.store.objects)
    agents.look_ahead()
    await until(lambda: agents.found is not None)
    assert set(cluster.store.objects) == before
    cluster.server.requests.clear()
    await agents.start("node-1")
    assert ("create", "selfsubjectaccessreviews") not in cluster.server.requests
    before_the_job = cluster.server.requests[: cluster.server.requests.index(("create", "jobs"))]
    assert ("get", "namespaces") not in before_the_job
    await agents.close()


async def test_what_was_found_long_ago_is_asked_again(
    cluster: FakeCluster, agents: OnDemandAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.on_demand.FRESH_SECONDS", 0)
    agents.look_ahead()
    await until(lambda: agents.found is not None)
    cluster.faults.forbidden.add(("create", "jobs"))
    with pytest.raises(ForbiddenError, match=r"create jobs\.batch"):
        await agents.start("node-1")
    assert await agents.close() == []


async def test_a_run_that_only_looked_ahead_removes_nothing(cluster: FakeCluster, agents: OnDemandAgents) -> None:
    agents.look_ahead()
    await until(lambda: agents.found is not None)
    assert await agents.close() == []
    assert await asyncio.to_thread(agents.reapers[NAMESPACE].process.wait, 60) == 0
    assert {verb for verb, resource in cluster.server.requests} <= {"get", "create"}
    assert ("create", "jobs") not in cluster.server.requests
