"""Contained agents: in which order observers get and lose their right, and what agents' pods may do."""

import sys
from dataclasses import replace

import pytest

from kubectl_gadget import gadgets
from kubectl_gadget.agents import manifests, resident_agents
from kubectl_gadget.agents.node_status import status
from kubectl_gadget.agents.per_node import Agents
from kubectl_gadget.agents.resident_agents import deploy, undeploy
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import DeployError, GadgetError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import CONFIG_MAPS, Object
from kubectl_gadget.wire.session_command import SessionCommand
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.server import RESOURCES
from tests.waiting import until

OPTIONS = AgentOptions(start_timeout=10, contained=True)
PLAIN = AgentOptions(start_timeout=10)
ROLE = "role/kubectl-gadget-observer"
POLICY = "validatingadmissionpolicy/kubectl-gadget-observer"


async def test_observers_get_their_right_after_the_policy_was_seen_and_lose_it_before_it_goes(
    cluster: FakeCluster, api: Api
) -> None:
    before = set(cluster.store.objects)
    said: list[str] = []
    await deploy(api, OPTIONS, said.append)
    order = [f"{POLICY} applied", "verified: in namespace/kubectl-gadget exec starts", f"{ROLE} applied"]
    assert sorted(order, key=lambda text: place(said, text)) == order
    assert not any("kubectl-gadget-user" in line for line in said)
    said.clear()
    await undeploy(api, OPTIONS, said.append)
    assert place(said, f"{ROLE} deleted") < place(said, "namespace/kubectl-gadget deleted") < place(said, POLICY)
    assert set(cluster.store.objects) == before


def place(said: list[str], text: str) -> int:
    return next(number for number, line in enumerate(said) if line.startswith(text))


async def test_without_a_policy_in_force_observers_get_no_right(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.faults.policy_not_in_force = True
    monkeypatch.setattr(resident_agents, "IN_FORCE_SECONDS", 0.5)
    said: list[str] = []
    with pytest.raises(DeployError, match="other commands are still allowed"):
        await deploy(api, OPTIONS, said.append)
    assert not [key for key in cluster.store.objects if key[0] in ("roles", "rolebindings", "clusterrolebindings")]


async def test_an_older_api_server_gets_no_contained_agents(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(RESOURCES, "validatingadmissionpolicies")
    before = set(cluster.store.objects)
    with pytest.raises(DeployError, match="has no ValidatingAdmissionPolicy"):
        await deploy(api, OPTIONS, lambda _: None)
    assert set(cluster.store.objects) == before
    await deploy(api, PLAIN, lambda _: None)


async def test_agents_that_are_not_contained_come_after_observers_lost_their_right(
    cluster: FakeCluster, api: Api
) -> None:
    await deploy(api, OPTIONS, lambda _: None)
    said: list[str] = []
    await deploy(api, PLAIN, said.append)
    assert place(said, f"{ROLE} deleted") < place(said, f"{POLICY} deleted") < place(said, "daemonset/")
    assert not [key for key in cluster.store.objects if "observer" in key[2]]


async def test_a_deployer_who_may_not_examine_the_policy_leaves_it_in_force(cluster: FakeCluster, api: Api) -> None:
    await deploy(api, OPTIONS, lambda _: None)
    cluster.faults.forbidden |= {("get", "validatingadmissionpolicies")}
    await deploy(api, PLAIN, lambda _: None)
    assert ("validatingadmissionpolicies", "", "kubectl-gadget-observer") in cluster.store.objects


async def test_a_deployment_in_another_namespace_leaves_observers_confined(cluster: FakeCluster, api: Api) -> None:
    """The policy is for one namespace: without it, observers of that namespace would be root."""
    await deploy(api, OPTIONS, lambda _: None)
    before = set(cluster.store.objects)
    other = AgentOptions(start_timeout=10, namespace="tools")
    with pytest.raises(DeployError, match="namespace kubectl-gadget has contained agents") as error:
        await deploy(api, replace(other, contained=True), lambda _: None)
    assert error.value.remedy == "kubectl gadget undeploy --agent-namespace kubectl-gadget"
    await deploy(api, other, lambda _: None)
    assert before <= set(cluster.store.objects)
    await undeploy(api, other, lambda _: None)
    await until(lambda: {key for key in cluster.store.objects if key[1] != "tools"} >= before)
    await undeploy(api, OPTIONS, lambda _: None)
    assert not cluster.store.list("validatingadmissionpolicies")


async def test_installed_policies_and_contained_agents_exclude_each_other(cluster: FakeCluster, api: Api) -> None:
    await deploy(api, PLAIN, lambda _: None)
    body: Object = {"metadata": {"name": manifests.POLICIES, "namespace": PLAIN.namespace}}
    await api.create(CONFIG_MAPS, body, PLAIN.namespace)
    with pytest.raises(DeployError, match="policies are installed"):
        await deploy(api, OPTIONS, lambda _: None)


@pytest.mark.skipif(sys.platform != "linux", reason="the agent runs on Linux")
@pytest.mark.usefixtures("catalogue_built")
async def test_sessions_in_contained_agents_are_contained(cluster: FakeCluster, api: Api, tasks: Tasks) -> None:
    await deploy(api, OPTIONS, lambda _: None)
    # The fake API server refuses every other command.
    found = await status(api, OPTIONS)
    assert all(node.hello is not None for node in found)
    agents = Agents(api, OPTIONS, tasks, session=SessionCommand(("trace_open",), namespace="shop"))
    stream = await agents.open("node-1")
    assert await stream.receive()
    await stream.close()
    await agents.close()


async def test_tools_of_bcc_do_not_run_where_agents_are_contained(cluster: FakeCluster, api: Api, tasks: Tasks) -> None:
    await deploy(api, OPTIONS, lambda _: None)
    agents = Agents(api, AgentOptions(start_timeout=10, bcc=True, bcc_tool="opensnoop"), tasks)
    with pytest.raises(GadgetError, match="agents are contained"):
        await agents.open("node-1")
    await agents.close()


def template(options: AgentOptions) -> Object:
    objects = manifests.deployment(options)
    found: Object = next(found for found in objects if found["kind"] == "DaemonSet")["spec"]["template"]
    return found


def test_a_contained_agent_has_neither_policies_nor_the_right_to_kill() -> None:
    pod = template(OPTIONS)
    (container,) = pod["spec"]["containers"]
    assert pod["metadata"]["labels"]["kubectl-gadget/contained"] == "true"
    assert {"name": "KUBECTL_GADGET_CONTAINED", "value": "1"} in container["env"]
    assert "KILL" not in container["securityContext"]["capabilities"]["add"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {"cgroup", "tracing", "run", "agent"}
    assert "KILL" in template(PLAIN)["spec"]["containers"][0]["securityContext"]["capabilities"]["add"]


def test_no_folder_of_a_runtime_is_mounted() -> None:
    paths = {volume["hostPath"]["path"] for volume in template(PLAIN)["spec"]["volumes"] if "hostPath" in volume}
    assert paths == {"/sys/fs/cgroup", "/sys/kernel/tracing", "/sys/fs/bpf"}


def test_seccomp_is_off_for_privileged_agents_alone() -> None:
    def profile(options: AgentOptions) -> str:
        return str(template(options)["spec"]["containers"][0]["securityContext"]["seccompProfile"]["type"])

    assert profile(PLAIN) == profile(OPTIONS) == "RuntimeDefault"
    assert profile(AgentOptions(privileged=True)) == "Unconfined"


def test_agents_that_policies_depend_on_are_not_evicted() -> None:
    assert "priorityClassName" not in template(PLAIN)["spec"]
    assert template(AgentOptions(enforcing=True))["spec"]["priorityClassName"] == "system-node-critical"


def test_a_resident_agent_is_asked_whether_it_is_alive() -> None:
    for options in (PLAIN, OPTIONS):
        probe = template(options)["spec"]["containers"][0]["livenessProbe"]
        assert probe["exec"]["command"][-1] == "alive"
        assert probe["timeoutSeconds"] > 5  # what it waits for itself


def test_gadgets_that_show_contents_need_a_right_of_their_own(catalogue_built: object) -> None:
    names = [summary.name for summary in gadgets.load_index()]
    contents = [name for name in names if gadgets.load_gadget(name).shows_contents]
    assert {"tcpdump", "trace_http", "trace_ssl", "trace_tty", "trace_syscalls", "traceloop"} == set(contents)
    objects = manifests.deployment(OPTIONS, contents=contents)
    policy = next(found for found in objects if found["kind"] == "ValidatingAdmissionPolicy")
    expression = policy["spec"]["validations"][-1]["expression"]
    assert "CONTENTS" not in expression
    assert all(f"'{name}'" in expression for name in contents)
    for role in (found for found in objects if found["kind"] in ("Role", "ClusterRole")):
        assert not any("traces/contents" in rule["resources"] for rule in role["rules"])


def test_selinux_does_not_hide_other_containers_from_the_agent() -> None:
    for options in (PLAIN, OPTIONS):
        (container,) = template(options)["spec"]["containers"]
        assert container["securityContext"]["seLinuxOptions"]["type"] == "spc_t"
