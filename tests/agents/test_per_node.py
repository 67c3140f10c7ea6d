"""Resident and on-demand agents, up to the HELLO of the real agent."""

import asyncio
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents import per_node as agents_module
from kubectl_gadget.agents.per_node import Agents, _kept
from kubectl_gadget.agents.pod_readiness import is_running, trouble
from kubectl_gadget.agents.resident_agents import deploy
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import DeployError, ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.exec import ExecStream
from kubectl_gadget.kube.failure import Access, UnreachableError
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import PODS
from kubectl_gadget.wire.frames import FrameDecoder, FrameType
from kubectl_gadget.wire.message import parse
from tests.agents.leftovers import left
from tests.fake_cluster import FakeCluster
from tests.waiting import until

pytestmark = pytest.mark.slow

NAMESPACE = "kubectl-gadget"


async def hello(stream: ExecStream) -> dict[str, object]:
    decoder = FrameDecoder()
    while data := await stream.receive():
        for frame in decoder.feed(data):
            if frame.type == FrameType.HELLO:
                await stream.close()
                return parse(frame.payload)
    raise AssertionError(f"no HELLO: {stream.stderr_tail}")


@pytest.mark.skipif(sys.platform != "linux", reason="the agent runs on Linux")
async def test_an_on_demand_agent_says_hello_and_leaves_nothing(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    before = set(cluster.store.objects)
    agents = Agents(api, agent_options, tasks)
    streams = await asyncio.gather(*map(agents.open, cluster.nodes))
    greetings = [await hello(stream) for stream in streams]
    assert [greeting["node"] for greeting in greetings] == cluster.nodes
    assert len(cluster.pods(NAMESPACE)) == 2
    assert await agents.close() == []
    await until(lambda: not left(cluster, before))


async def test_a_resident_agent_is_used_and_stays(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    await deploy(api, agent_options, lambda _: None)
    pods = {pod["metadata"]["name"] for pod in cluster.pods(NAMESPACE)}
    agents = Agents(api, agent_options, tasks)
    for stream in await asyncio.gather(*map(agents.open, cluster.nodes)):
        await stream.close()
    assert await agents.close() == []
    assert {pod["metadata"]["name"] for pod in cluster.pods(NAMESPACE)} == pods
    assert ("create", "jobs") not in cluster.server.requests


async def test_flags_that_cannot_change_resident_agents_are_reported_once(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    await deploy(api, agent_options, lambda _: None)
    notes: list[str] = []
    for options in (agent_options, replace(agent_options, image="another", privileged=True)):
        agents = Agents(api, options, tasks, note=notes.append)
        for stream in await asyncio.gather(*map(agents.open, cluster.nodes)):
            await stream.close()
        await agents.close()
    (note,) = notes
    assert "--image and --privileged have no effect on them (try: kubectl gadget deploy --image" in note


async def test_the_resident_agents_are_listed_once_for_all_nodes(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.per_node.FRESH_SECONDS", 0)  # as if a list took longer
    await deploy(api, agent_options, lambda _: None)
    agents = Agents(api, agent_options, tasks)
    cluster.server.requests.clear()
    streams = await asyncio.gather(*[agents.open(node) for node in ("node-1", "node-2") * 10])
    for stream in streams:
        await stream.close()
    assert cluster.server.requests.count(("list", "pods")) == 1


async def test_what_the_pods_of_a_daemon_set_have_in_common_is_kept_once(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    await deploy(api, agent_options, lambda _: None)
    pods = (await api.find(PODS, NAMESPACE, keep=partial(_kept, []))).items
    first, second = pods
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1", "node-2"}
    assert all(map(is_running, pods))
    assert first["spec"]["containers"][0] is second["spec"]["containers"][0]
    assert first["metadata"]["labels"] is second["metadata"]["labels"]
    assert first["status"] is second["status"]


async def test_agents_that_were_listed_ahead_are_not_listed_again(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.per_node.FRESH_SECONDS", 60)
    await deploy(api, agent_options, lambda _: None)
    agents = Agents(api, agent_options, tasks)
    await agents.look_ahead()
    cluster.server.requests.clear()
    await (await agents.open("node-1")).close()
    assert ("list", "pods") not in cluster.server.requests


async def test_a_right_that_is_missing_ahead_is_reported_by_the_session(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    cluster.faults.forbidden.add(("list", "pods"))
    agents = Agents(api, agent_options, tasks)
    await agents.look_ahead()
    with pytest.raises(ForbiddenError):
        await agents.open("node-1")


async def test_reconnecting_waits_for_the_resident_pod_that_replaces_another(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.per_node.FRESH_SECONDS", 0.01)
    await deploy(api, agent_options, lambda _: None)
    agents = Agents(api, agent_options, tasks)
    await (await agents.open("node-1")).close()
    (old,) = [pod for pod in cluster.pods(NAMESPACE) if pod["spec"]["nodeName"] == "node-1"]
    cluster.store.remove("pods", NAMESPACE, old["metadata"]["name"])
    cluster.server.requests.clear()
    again = asyncio.create_task(agents.open("node-1"))
    await until(lambda: cluster.server.requests.count(("list", "pods")) >= 3)
    new = {"metadata": {"name": "new", "labels": old["metadata"]["labels"]}, "spec": old["spec"]}
    cluster.kubelet.created("pods", cluster.store.add("pods", NAMESPACE, new))
    await (await again).close()
    assert ("create", "pods") not in cluster.server.requests


async def test_a_resident_pod_that_does_not_come_back_is_replaced_by_one_on_demand(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.per_node.FRESH_SECONDS", 0.01)
    monkeypatch.setattr("kubectl_gadget.agents.per_node.RETURN_SECONDS", 0.1)
    await deploy(api, agent_options, lambda _: None)
    agents = Agents(api, agent_options, tasks)
    await (await agents.open("node-1")).close()
    for pod in cluster.pods(NAMESPACE):
        cluster.store.remove("pods", NAMESPACE, pod["metadata"]["name"])
    await (await agents.open("node-1")).close()
    assert [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in cluster.pods(NAMESPACE)] == [
        "on-demand"
    ]
    assert await agents.close() == []


async def test_everything_that_is_missing_is_reported_before_anything_is_created(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    cluster.faults.forbidden |= {("create", "pods"), ("create", "jobs"), ("create", "namespaces")}
    before = set(cluster.store.objects)
    agents = Agents(api, agent_options, tasks)
    with pytest.raises(ForbiddenError) as error:
        await agents.open("node-1")
    for missing in ("create pods in namespace", "create jobs.batch in namespace", "create namespaces in the whole"):
        assert missing in str(error.value)
    assert await agents.close() == []
    assert set(cluster.store.objects) == before


async def test_rights_to_start_agents_are_asked_for_where_none_is_resident(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    cluster.faults.forbidden |= {("watch", "nodes"), ("create", "pods/exec"), ("create", "jobs")}
    before = set(cluster.store.objects)
    with pytest.raises(ForbiddenError) as error:
        await Agents(api, agent_options, tasks).require([Access("list", "nodes"), Access("watch", "nodes")])
    missing = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert missing == [
        "watch nodes in the whole cluster",
        "create pods/exec in namespace kubectl-gadget",
        "create jobs.batch in namespace kubectl-gadget",
    ]
    assert "rbac-deployer" in str(error.value.remedy)
    assert set(cluster.store.objects) == before


async def test_rights_to_start_agents_are_not_asked_for_where_they_are_resident(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    await deploy(api, agent_options, lambda _: None)
    cluster.faults.forbidden |= {("create", "pods"), ("create", "jobs")}
    await Agents(api, agent_options, tasks).require([Access("list", "nodes")])
    cluster.faults.forbidden.add(("list", "nodes"))
    with pytest.raises(ForbiddenError) as error:
        await Agents(api, agent_options, tasks).require([Access("list", "nodes")])
    assert "jobs" not in str(error.value)
    assert "kubectl-gadget-users" in str(error.value.remedy)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"])
async def test_a_pod_that_cannot_start_fails_with_its_reason(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, reason: str
) -> None:
    cluster.faults.waiting["node-1"] = (reason, "no such thing")
    agents = Agents(api, agent_options, tasks)
    with pytest.raises(DeployError, match=rf"on node-1 does not start: {reason} .*no such thing"):
        await agents.open("node-1")
    await agents.close()


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        ("ghcr.io/kubectl-gadget/agent:1-bcc", "quay.io/iovisor/bpftrace"),
        ("docker.io/library/python:3.13-slim", "--image-mirror"),
    ],
)
def test_an_image_that_cannot_be_pulled_has_a_remedy_for_what_it_is_for(image: str, remedy: str) -> None:
    state = {"image": image, "state": {"waiting": {"reason": "ErrImagePull", "message": "denied"}}}
    found = trouble({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"containerStatuses": [state]}})

    assert found is not None
    assert remedy in str(found.remedy)


async def test_a_pod_that_crashes_fails_with_the_last_line_of_its_log(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    cluster.faults.crash["node-2"] = (3, "Traceback\nImportError: libbpf.so.1 is missing\n")
    agents = Agents(api, agent_options, tasks)
    good, bad = await asyncio.gather(*map(agents.open, cluster.nodes), return_exceptions=True)
    assert isinstance(good, ExecStream)
    await good.close()
    assert isinstance(bad, DeployError)
    assert "on node-2 ended with exit code 3: ImportError: libbpf.so.1 is missing" in str(bad)
    await agents.close()


async def test_pod_security_is_named_with_its_remedy(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    cluster.faults.pod_security = True
    cluster.add_namespace(NAMESPACE)
    agents = Agents(api, agent_options, tasks)
    with pytest.raises(DeployError, match="Pod Security of namespace kubectl-gadget") as error:
        await agents.open("node-1")
    assert "pod-security.kubernetes.io/enforce=privileged" in str(error.value.remedy)
    await agents.close()


@pytest.mark.parametrize(
    "message",
    [
        'admission webhook "validate.kyverno.svc-fail" denied the request: privileged pods cannot be created here',
        "pods \"agent\" is forbidden: ValidatingAdmissionPolicy 'no-root' with binding 'all' denied request: hostPID",
    ],
)
async def test_a_pod_that_an_admission_policy_refuses_is_reported_with_ways_that_are_left(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, message: str
) -> None:
    cluster.faults.admission = message
    cluster.add_namespace(NAMESPACE)
    agents = Agents(api, agent_options, tasks)
    with pytest.raises(DeployError, match=r"was refused: .*denied") as error:
        await agents.open("node-1")
    assert "kubectl gadget deploy" in str(error.value.remedy)
    assert "ephemeral containers" in str(error.value.remedy)
    await agents.close()


async def test_a_pod_that_never_starts_is_given_up_with_its_state(cluster: FakeCluster, api: Api, tasks: Tasks) -> None:
    cluster.faults.waiting["node-1"] = ("ContainerCreating", "")
    agents = Agents(api, AgentOptions(start_timeout=0.3), tasks)
    with pytest.raises(DeployError, match="on node-1 is not running after 0 s: ContainerCreating"):
        await agents.open("node-1")
    await agents.close()


async def test_a_container_that_could_not_be_created_in_time_is_tried_again(
    cluster: FakeCluster, api: Api, tasks: Tasks
) -> None:
    cluster.faults.waiting["node-1"] = ("CreateContainerError", "context deadline exceeded")
    agents = Agents(api, AgentOptions(start_timeout=0.3), tasks)
    with pytest.raises(DeployError, match="on node-1 is not running after 0 s: CreateContainerError"):
        await agents.open("node-1")
    await agents.close()


async def test_where_namespaces_cannot_expire_the_last_run_removes_it(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    cluster.faults.no_addresses = True
    first, second = Agents(api, agent_options, tasks), Agents(api, agent_options, tasks)
    for agents in (first, second):
        await (await agents.open("node-1")).close()
    assert await first.close() == []
    await until(lambda: len(cluster.pods(NAMESPACE)) == 1)
    assert cluster.store.get("namespaces", "", NAMESPACE) is not None
    assert await second.close() == []
    await until(lambda: cluster.store.get("namespaces", "", NAMESPACE) is None)


async def test_the_cluster_removes_the_pods_of_a_client_that_is_gone(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    agents = Agents(api, agent_options, tasks)
    await (await agents.open("node-1")).close()
    job = cluster.store.objects["jobs", NAMESPACE, f"run-{agents.run}"]
    assert job["spec"]["completions"] == 0
    assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 25
    cluster.store.remove("jobs", NAMESPACE, job["metadata"]["name"])  # as the TTL controller does
    assert cluster.pods(NAMESPACE) == []
    await agents.close()


async def test_a_living_client_puts_the_end_of_its_pods_off(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.on_demand.SIGN_SECONDS", 0.01)
    agents = Agents(api, agent_options, tasks)
    await (await agents.open("node-1")).close()
    await until(lambda: ("patch", "jobs") in cluster.server.requests)
    await agents.close()


async def test_pods_that_went_while_the_client_slept_are_started_again(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.agents.on_demand.SIGN_SECONDS", 0.01)
    agents = Agents(api, agent_options, tasks)
    await (await agents.open("node-1")).close()
    job = cluster.store.objects["jobs", NAMESPACE, f"run-{agents.run}"]
    cluster.store.remove("jobs", NAMESPACE, job["metadata"]["name"])
    await until(lambda: cluster.server.requests[-1] == ("patch", "jobs"))
    await (await agents.open("node-1")).close()
    assert len(cluster.pods(NAMESPACE)) == 1
    await agents.close()


def test_pods_on_demand_are_made_of_the_daemon_sets_template() -> None:
    options = AgentOptions(image="my/agent:1", idle_timeout=300)
    owner = {"metadata": {"name": "run-x", "uid": "u"}}
    pod = manifests.on_demand_pod(options, "node-1", "x", owner)
    (daemon_set,) = [found for found in manifests.deployment(options) if found["kind"] == "DaemonSet"]
    resident = daemon_set["spec"]["template"]["spec"]
    mine, theirs = pod["spec"]["containers"][0], resident["containers"][0]
    assert mine["command"][-1] == "300"
    of_residents = ("policies", "bpf", "agent")
    for place in (theirs["volumeMounts"], resident["volumes"]):
        place[:] = [one for one in place if one["name"] not in of_residents]
    del theirs["livenessProbe"]
    assert mine | {"command": theirs["command"]} == theirs
    assert pod["spec"]["volumes"] == resident["volumes"]
    del resident["nodeSelector"]
    assert set(pod["spec"]) - set(resident) == {"nodeName", "restartPolicy"}
    assert pod["spec"]["terminationGracePeriodSeconds"] == 0


async def test_a_handshake_that_times_out_beside_others_that_do_not_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    failures = iter([True, False, True, False, True])
    opened = agents_module.open_agent

    async def sometimes(*words: Any, **named: Any) -> ExecStream:
        if next(failures, True):
            raise UnreachableError("timed out")
        return await opened(*words, **named)

    await deploy(api, agent_options, lambda _: None)
    agents = Agents(api, agent_options, tasks)
    monkeypatch.setattr(agents_module, "open_agent", sometimes)
    with pytest.raises(UnreachableError):
        await agents.open("node-1")
    for _ in range(2):
        await (await agents.open("node-1")).close()
    with pytest.raises(UnreachableError):
        await agents.open("node-1")
