"""A run that starts while the namespace of an earlier run is being deleted uses a second one, if it may."""

import asyncio
import secrets

import pytest

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.on_demand import OnDemandAgents
from kubectl_gadget.agents.per_node import Agents
from kubectl_gadget.agents.resident_agents import undeploy
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import DeployError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import NAMESPACES
from tests.agents.leftovers import left
from tests.fake_cluster import FakeCluster
from tests.waiting import until

FIRST, SECOND = "kubectl-gadget", "kubectl-gadget-2"
WAITING = ["waiting until Kubernetes has deleted the namespace kubectl-gadget of earlier runs"]


@pytest.fixture
async def before(cluster: FakeCluster, api: Api, agent_options: AgentOptions) -> set[tuple[str, str, str]]:
    """What there is while the namespace of an earlier run is being deleted for 60 s."""
    await api.create(NAMESPACES, manifests.namespace(agent_options))
    cluster.faults.slow_namespaces = 60.0
    await api.delete(NAMESPACES, FIRST)
    cluster.faults.slow_namespaces = 0.0
    return set(cluster.store.objects)


@pytest.fixture
def agents(api: Api, tasks: Tasks, agent_options: AgentOptions) -> OnDemandAgents:
    return OnDemandAgents(api, agent_options, tasks, secrets.token_hex(4), lambda _node, _text: None)


async def starts_when_the_first_is_gone(cluster: FakeCluster, agents: OnDemandAgents, warnings: list[str]) -> None:
    starting = asyncio.create_task(agents.start("node-1"))
    await until(lambda: warnings == WAITING)
    assert not starting.done()
    cluster.store.remove("namespaces", "", FIRST)
    pod = await starting
    assert pod["metadata"]["namespace"] == FIRST


@pytest.mark.slow
async def test_runs_one_after_the_other_do_not_wait(
    cluster: FakeCluster,
    api: Api,
    tasks: Tasks,
    agent_options: AgentOptions,
    before: set[tuple[str, str, str]],
    warnings: list[str],
) -> None:
    agents = Agents(api, agent_options, tasks)
    await agents.look_ahead()
    for stream in await asyncio.gather(*map(agents.open, cluster.nodes)):
        await stream.close()
    assert len(cluster.pods(SECOND)) == 2
    assert cluster.pods(FIRST) == []
    await (await agents.open("node-1")).close()
    assert await agents.close() == []
    await until(lambda: not left(cluster, before))
    assert warnings == []


@pytest.mark.usefixtures("before")
async def test_a_run_waits_if_both_are_being_deleted(
    cluster: FakeCluster, api: Api, agents: OnDemandAgents, agent_options: AgentOptions, warnings: list[str]
) -> None:
    found = manifests.namespace(agent_options)
    found["metadata"]["name"] = SECOND
    await api.create(NAMESPACES, found)
    cluster.faults.slow_namespaces = 60.0
    await api.delete(NAMESPACES, SECOND)
    await starts_when_the_first_is_gone(cluster, agents, warnings)
    await agents.close()


@pytest.mark.usefixtures("before")
async def test_a_run_waits_without_rights_in_the_second(
    cluster: FakeCluster, agents: OnDemandAgents, warnings: list[str]
) -> None:
    cluster.faults.foreign.add(SECOND)
    await starts_when_the_first_is_gone(cluster, agents, warnings)
    assert await agents.close() == []


@pytest.mark.usefixtures("before")
async def test_a_second_namespace_that_no_run_created_is_left_alone(
    cluster: FakeCluster, agents: OnDemandAgents, warnings: list[str]
) -> None:
    cluster.add_namespace(SECOND)
    await starts_when_the_first_is_gone(cluster, agents, warnings)
    await agents.close()
    assert ("namespaces", "", SECOND) in cluster.store.objects


async def test_a_policy_that_refuses_agents_in_the_second_makes_the_run_wait(
    cluster: FakeCluster, agents: OnDemandAgents, before: set[tuple[str, str, str]], warnings: list[str]
) -> None:
    cluster.faults.admission, cluster.faults.admission_namespaces = "denied the request", {SECOND}
    await starts_when_the_first_is_gone(cluster, agents, warnings)
    assert await agents.close() == []
    await until(lambda: not left(cluster, before))


@pytest.mark.usefixtures("before")
async def test_a_policy_that_refuses_agents_everywhere_is_reported(
    cluster: FakeCluster, agents: OnDemandAgents, warnings: list[str]
) -> None:
    cluster.faults.admission = "admission webhook denied the request"
    starting = asyncio.create_task(agents.start("node-1"))
    await until(lambda: warnings == WAITING)
    cluster.store.remove("namespaces", "", FIRST)
    with pytest.raises(DeployError, match="denied the request"):
        await starting
    assert await agents.close() == []


@pytest.mark.usefixtures("before")
async def test_two_runs_share_the_second_and_the_last_one_removes_it(
    cluster: FakeCluster, api: Api, tasks: Tasks, agents: OnDemandAgents, agent_options: AgentOptions
) -> None:
    cluster.faults.no_addresses = True
    other = OnDemandAgents(api, agent_options, tasks, "other", lambda _node, _text: None)
    await asyncio.gather(agents.start("node-1"), other.start("node-2"))
    assert await agents.close() == []
    await until(lambda: [pod["spec"]["nodeName"] for pod in cluster.pods(SECOND)] == ["node-2"])
    assert ("namespaces", "", SECOND) in cluster.store.objects
    assert await other.close() == []
    await until(lambda: ("namespaces", "", SECOND) not in cluster.store.objects)


@pytest.mark.usefixtures("before")
async def test_a_living_client_puts_the_end_of_its_pods_off_there_too(
    cluster: FakeCluster, agents: OnDemandAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.on_demand.SIGN_SECONDS", 0.01)
    await agents.start("node-1")
    (key,) = [key for key in cluster.store.objects if key[:2] == ("jobs", SECOND) and key[2].startswith("run-")]
    version = cluster.store.objects[key]["metadata"]["resourceVersion"]
    await until(lambda: cluster.store.objects[key]["metadata"]["resourceVersion"] != version)
    await agents.close()


@pytest.mark.usefixtures("before")
async def test_the_cleanup_process_knows_the_second(cluster: FakeCluster, agents: OnDemandAgents) -> None:
    cluster.faults.no_addresses = True
    await agents.start("node-1")
    process = agents.reapers[SECOND].process
    assert process.stdin is not None
    process.stdin.close()  # as when the client was killed
    assert await asyncio.to_thread(process.wait, 60) == 0
    await until(lambda: ("namespaces", "", SECOND) not in cluster.store.objects)


async def test_undeploy_removes_what_a_run_left_in_the_second(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    found = manifests.namespace(agent_options)
    found["metadata"]["name"] = SECOND
    await api.create(NAMESPACES, found)
    said: list[str] = []
    await undeploy(api, agent_options, said.append)
    assert f"namespace/{SECOND} deleted" in said
    cluster.add_namespace(SECOND)
    await undeploy(api, agent_options, lambda _: None)
    assert ("namespaces", "", SECOND) in cluster.store.objects


def test_the_deployers_role_names_both() -> None:
    (role,) = manifests.documents("rbac-deployer")
    (rule,) = [rule for rule in role["rules"] if rule["resources"] == ["namespaces"] and "resourceNames" in rule]
    assert rule["resourceNames"] == [FIRST, SECOND]
