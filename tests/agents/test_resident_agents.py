"""Deploy, undeploy, status, and the manifests they apply."""

import asyncio
import base64
import dataclasses
import json
import os
import sys
from typing import Any

import pytest
import yaml

from kubectl_gadget.agents import deployments, manifests, payload
from kubectl_gadget.agents.node_status import status
from kubectl_gadget.agents.per_node import Agents
from kubectl_gadget.agents.resident_agents import deploy, render, undeploy
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import DeployError, ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import CLUSTER_ROLES, CONFIG_MAPS, Resource
from kubectl_gadget.wire.agent_messages import OwnedPins
from tests.fake_cluster import FakeCluster
from tests.waiting import until

pytestmark = pytest.mark.slow

NAMESPACE = "kubectl-gadget"


async def test_deploy_counts_the_nodes_and_undeploy_leaves_nothing(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    before = set(cluster.store.objects)
    said: list[str] = []
    await deploy(api, agent_options, said.append)
    assert said[-1] == "agents running: 2/2 nodes"
    await undeploy(api, agent_options, said.append)
    assert set(cluster.store.objects) == before
    await undeploy(api, agent_options, said.append)
    assert said[-1] == "nothing was deployed"


async def test_deploying_again_changes_nothing(cluster: FakeCluster, api: Api, agent_options: AgentOptions) -> None:
    await deploy(api, agent_options, lambda _: None)
    names = set(cluster.store.objects)
    await deploy(api, agent_options, lambda _: None)
    assert set(cluster.store.objects) == names


@pytest.mark.compiled
async def test_the_agent_lies_in_config_maps_that_a_newer_client_replaces(
    monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    """So the image needs Python and nothing of ours."""

    def deployed() -> tuple[dict[str, bytes], list[str]]:
        maps = {
            name: base64.b64decode(found["binaryData"]["payload"])
            for (plural, _, name), found in cluster.store.objects.items()
            if plural == "configmaps"
        }
        (pods,) = [found for (plural, _, _), found in cluster.store.objects.items() if plural == "daemonsets"]
        return maps, pods["spec"]["template"]["spec"]["containers"][0]["command"]

    await deploy(api, agent_options, lambda _: None)
    maps, command = deployed()
    names = {"x86_64": "kubectl-gadget-agent-x86-64", "aarch64": "kubectl-gadget-agent-aarch64"}
    assert maps == {name: payload.payload_bytes(machine) for machine, name in names.items()}
    assert command[:5] == list(payload.payload().start)
    newer = dataclasses.replace(payload.payload(), offer="x86_64=1:00,aarch64=1:00")
    monkeypatch.setattr(manifests, "payload", lambda: newer)
    monkeypatch.setattr(manifests, "config_map", lambda machine: {"payload": "bmV3"})
    await deploy(api, agent_options, lambda _: None)
    maps, command = deployed()
    assert set(maps.values()) == {b"new"}
    assert command[4] == newer.offer


async def test_a_run_says_that_the_resident_agents_are_of_another_client(
    monkeypatch: pytest.MonkeyPatch, api: Api, agent_options: AgentOptions, tasks: Tasks
) -> None:
    await deploy(api, agent_options, lambda _: None)
    newer = dataclasses.replace(payload.payload(), offer="x86_64=1:00,aarch64=1:00")
    monkeypatch.setattr(manifests, "payload", lambda: newer)
    notes: list[str] = []
    agents = Agents(api, agent_options, tasks, note=notes.append)
    for node in ("node-1", "node-2"):
        await (await agents.open(node)).close()
    await agents.close()
    (note,) = notes
    assert "have another version" in note
    assert "try: kubectl gadget deploy" in note


async def test_a_namespace_that_was_there_before_is_kept(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.add_namespace(NAMESPACE)
    before = set(cluster.store.objects)
    said: list[str] = []
    await deploy(api, agent_options, said.append)
    assert "namespace/kubectl-gadget exists and is left as it is" in said
    await undeploy(api, agent_options, said.append)
    assert said[-1] == "namespace/kubectl-gadget is kept: it was not created by kubectl gadget"
    await until(lambda: set(cluster.store.objects) == before)


@pytest.mark.root  # who is not may not look at what is pinned
@pytest.mark.skipif(os.geteuid() != 0, reason="the agents look for pinned programs, which needs root")
async def test_undeploy_names_nodes_that_it_could_not_search_for_policies(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.add_node("node-3", ready=False)
    cluster.faults.waiting["node-2"] = ("ErrImagePull", "manifest unknown")
    await deploy(api, AgentOptions(start_timeout=10, image="mine:1"), lambda _: None, wait=False)
    cluster.store.remove("namespaces", "", NAMESPACE)
    images: set[str] = set()
    created = cluster.kubelet.created

    def note(plural: str, found: dict[str, Any]) -> None:
        if plural == "pods":
            images.add(found["spec"]["containers"][0]["image"])
        created(plural, found)

    cluster.kubelet.created = note  # type: ignore[method-assign]
    said: list[str] = []
    await undeploy(api, agent_options, said.append)
    assert "node-1: no installed policies were in force" in said
    for node, why in (("node-2", "ErrImagePull"), ("node-3", "is not ready")):
        assert any(
            line.startswith(f"{node}: installed policies may still be in force there: ") and why in line
            for line in said
        )
    assert images == {"mine:1"}, "as the deployment had"
    assert not cluster.pods(NAMESPACE)


async def test_a_role_for_users_alone_is_not_a_deployment(cluster: FakeCluster, api: Api, warnings: list[str]) -> None:
    (role,) = [found for found in manifests.documents("rbac-user") if found["kind"] == "ClusterRole"]
    cluster.store.add("clusterroles", "", role)
    assert not (await deployments.find(api)).left_behind


async def test_deployments_side_by_side_keep_what_both_need(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    other = dataclasses.replace(agent_options, namespace="tools", image="mine:1")
    await deploy(api, agent_options, lambda _: None)
    alone = set(cluster.store.objects)
    await deploy(api, other, lambda _: None)
    await deploy(api, agent_options, lambda _: None)
    found = await deployments.find(api)
    assert (found.present, found.left_behind) == ({NAMESPACE, "tools"}, [])
    assert found.images["tools"] == "mine:1", "deploying again keeps the record of the other one"
    said: list[str] = []
    await undeploy(api, other, said.append)
    assert "clusterrole/kubectl-gadget-user is kept: namespace kubectl-gadget has a deployment, too" in said
    await until(lambda: set(cluster.store.objects) == alone)
    assert (await deployments.find(api)).images.keys() == {NAMESPACE}
    await undeploy(api, agent_options, lambda _: None)
    assert not cluster.store.list("clusterroles")


async def test_deployments_that_are_made_at_the_same_time_do_not_remove_each_others_record(
    monkeypatch: pytest.MonkeyPatch, api: Api, agent_options: AgentOptions
) -> None:
    apply, both_are_there = api.apply, asyncio.Barrier(2)

    async def late(resource: Resource, *arguments: Any) -> Any:
        if resource == CLUSTER_ROLES:
            await both_are_there.wait()
        return await apply(resource, *arguments)

    monkeypatch.setattr(api, "apply", late)
    both = [dataclasses.replace(agent_options, namespace=name) for name in ("tools", NAMESPACE)]
    await asyncio.gather(*(deploy(api, options, lambda _: None) for options in both))
    assert (await deployments.find(api)).images.keys() == {"tools", NAMESPACE}


async def test_undeploy_asks_for_the_right_to_change_the_role_that_others_need(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    await deploy(api, agent_options, lambda _: None)
    cluster.faults.forbidden.add(("patch", "clusterroles"))
    before = set(cluster.store.objects)
    with pytest.raises(ForbiddenError, match="patch clusterroles"):
        await undeploy(api, agent_options, lambda _: None)
    assert set(cluster.store.objects) == before


async def test_a_deployment_whose_namespace_was_deleted_is_found_by_the_others(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    await deploy(api, dataclasses.replace(agent_options, namespace="tools"), lambda _: None)
    await deploy(api, agent_options, lambda _: None)
    cluster.store.remove("namespaces", "", "tools")
    assert (await deployments.find(api)).left_behind == ["tools"]
    await undeploy(api, agent_options, lambda _: None)
    assert not cluster.store.list("clusterroles")


async def test_a_deleted_deployment_is_forgotten_once_its_policies_were_looked_for(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    stays, deleted = (dataclasses.replace(agent_options, namespace=name) for name in ("stays", "deleted"))
    for each in (stays, deleted, agent_options):
        await deploy(api, each, lambda _: None)
    cluster.store.remove("namespaces", "", "deleted")
    await undeploy(api, agent_options, lambda _: None)
    found = await deployments.find(api)
    assert (found.images.keys(), found.left_behind) == ({"stays"}, [])


@pytest.mark.parametrize(
    ("namespace", "uid", "held", "exists"),
    [
        (NAMESPACE, "", False, True),
        (NAMESPACE, "of-the-namespace", False, True),
        (NAMESPACE, "of-one-before", False, False),
        (NAMESPACE, "of-one-before", True, True),
        ("gone", "any", False, False),
        ("gone", "", False, False),
    ],
)
async def test_an_owner_is_a_namespace_with_this_uid(
    cluster: FakeCluster,
    api: Api,
    agent_options: AgentOptions,
    namespace: str,
    uid: str,
    held: bool,
    exists: bool,
) -> None:
    cluster.add_namespace(NAMESPACE)
    there = cluster.store.get("namespaces", "", NAMESPACE)
    assert there is not None
    uid = uid.replace("of-the-namespace", there["metadata"]["uid"])
    found = await deployments.exist(api, [OwnedPins(namespace=namespace, uid=uid, held=held)])
    assert found == {(namespace, uid): exists}


async def test_without_the_right_to_see_namespaces_nothing_counts_as_gone(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.faults.forbidden |= {("list", "namespaces"), ("list", "daemonsets")}
    pins = [OwnedPins(namespace="gone", uid="1")]
    assert await deployments.exist(api, pins) == {("gone", "1"): None}


@pytest.mark.parametrize(
    "answer", ['{"removed":[1]}', '{"removed":{"own":"one"}}', '{"kept":["own"]}', '{"kept":{"own":{}}}', "[]", "7"]
)
async def test_an_answer_that_is_not_that_of_an_agent_is_reported(
    api: Api,
    agent_options: AgentOptions,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    async def ask(_api: Api, _options: AgentOptions, _pod: object, word: str, *_: str) -> object:
        return [] if word == "pins" else json.loads(answer)

    monkeypatch.setattr(deployments, "_ask", ask)
    await deploy(api, agent_options, lambda _: None)
    installed = {"metadata": {"name": manifests.POLICIES, "namespace": NAMESPACE}}
    await api.create(CONFIG_MAPS, installed, NAMESPACE)
    said: list[str] = []
    await undeploy(api, agent_options, said.append)
    assert any("node-1: installed policies may still be in force there: release: " in line for line in said)


async def test_undeploy_removes_the_remains_of_runs(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    before = set(cluster.store.objects)
    await (await Agents(api, agent_options, tasks).open("node-1")).close()
    await undeploy(api, agent_options, lambda _: None)
    assert set(cluster.store.objects) == before


async def test_deploy_fails_early_with_the_pods_reasons(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.faults.waiting["node-1"] = ("ErrImagePull", "manifest unknown")
    cluster.faults.crash["node-2"] = (1, "no libbpf")
    said: list[str] = []
    with pytest.raises(DeployError) as error:
        await deploy(api, agent_options, said.append)
    assert "undeploy removes it" in said[-1]
    assert "on node-1 does not start: ErrImagePull" in str(error.value)
    assert "on node-2 ended with exit code 1: no libbpf" in str(error.value)


async def test_deploy_shows_that_pod_security_refuses_the_pods(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.faults.pod_security = True
    with pytest.raises(DeployError, match=r"FailedCreate.*violates PodSecurity") as error:
        await deploy(api, agent_options, lambda _: None)
    assert "enforce=privileged" in str(error.value.remedy)


async def test_deploy_without_rights_lists_them_and_changes_nothing(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.faults.forbidden |= {("patch", "daemonsets"), ("create", "clusterroles")}
    before = set(cluster.store.objects)
    with pytest.raises(ForbiddenError) as error:
        await deploy(api, agent_options, lambda _: None)
    assert "patch daemonsets.apps/kubectl-gadget in namespace kubectl-gadget" in str(error.value)
    assert "create clusterroles.rbac.authorization.k8s.io in the whole cluster" in str(error.value)
    assert set(cluster.store.objects) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the agent runs on Linux")
async def test_status_asks_every_agent(cluster: FakeCluster, api: Api, agent_options: AgentOptions) -> None:
    first, second = await status(api, agent_options)
    assert (first.node, first.pod, first.state) == ("node-1", None, "none")
    await deploy(api, agent_options, lambda _: None)
    cluster.faults.refused_exec["node-2"] = 500
    first, second = await status(api, agent_options)
    assert first.hello is not None
    assert first.hello.node == "node-1"
    assert first.state == "Running"
    assert second.hello is None
    assert "error dialing backend" in str(second.problem)


async def test_status_without_rights_lists_all_that_are_missing(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    cluster.faults.forbidden |= {("list", "nodes"), ("create", "pods/exec")}
    with pytest.raises(ForbiddenError) as error:
        await status(api, agent_options)
    assert "list nodes in the whole cluster" in str(error.value)
    assert "create pods/exec in namespace kubectl-gadget" in str(error.value)


async def test_an_image_pull_policy_does_not_outlive_its_deployment(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions
) -> None:
    """Also where an earlier version wrote it, as another field manager, whose fields stay."""
    named = dataclasses.replace(agent_options, image_pull_policy="Never")
    for options, policy in ((named, "Never"), (dataclasses.replace(named, image_pull_policy=None), None)):
        objects = manifests.deployment(options)
        (role,) = [found for found in objects if found["kind"] == CLUSTER_ROLES.kind]
        await api.apply(CLUSTER_ROLES, role, None, str(policy))
        assert (await deployments.find(api)).pull_policy == policy


def test_what_is_rendered_is_what_is_applied() -> None:
    options = AgentOptions(image="my/agent:1", image_pull_secret="s", image_pull_policy="Never", namespace="tools")
    objects = list(yaml.safe_load_all(render(options, {"disk": "ssd"})))
    assert objects == manifests.deployment(options, {"disk": "ssd"})
    pod = objects[-1]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "my/agent:1"
    assert pod["imagePullSecrets"] == [{"name": "s"}]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "disk": "ssd"}
    assert {found["metadata"].get("namespace", "tools") for found in objects} == {"tools"}
    assert all(found["metadata"]["labels"]["app.kubernetes.io/name"] == NAMESPACE for found in objects)


@pytest.mark.parametrize(
    ("image", "pulled"),
    [
        (None, "registry.example:5000/ghcr/"),
        ("ghcr.io/mine/agent@sha256:12", "registry.example:5000/ghcr/mine/agent@sha256:12"),
        ("localhost/agent", "registry.example:5000/ghcr/agent"),
        ("host:5000/agent:1", "registry.example:5000/ghcr/agent:1"),
        ("mine/agent:1", "registry.example:5000/ghcr/mine/agent:1"),
        ("agent:1", "registry.example:5000/ghcr/library/agent:1"),
    ],
)
@pytest.mark.parametrize("bcc", [False, True])
def test_a_mirror_stands_in_for_the_registry_of_the_image(image: str | None, pulled: str, bcc: bool) -> None:
    options = AgentOptions(image=image, image_mirror="registry.example:5000/ghcr", bcc=bcc)
    pod = manifests.on_demand_pod(options, "node-1", "1", {"metadata": {"name": "a", "uid": "b"}})["spec"]
    found = pod["containers"][0]["image"]
    assert found.startswith(pulled)
    assert image is None or found == pulled
    default = "kubectl-gadget/agent:" if bcc else "library/python:3.13-slim"
    assert image or found.startswith(pulled + default)
    assert image or found.endswith("-bcc") == bcc


def test_the_agent_has_no_token_no_network_of_the_host_and_few_capabilities() -> None:
    pod = manifests.deployment(AgentOptions())[-1]["spec"]["template"]["spec"]
    context = pod["containers"][0]["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["hostNetwork"] is False
    assert context["privileged"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    written = [mount["name"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")]
    assert written == ["run", "bpf"], "the pod's own folder, and where installed policies are pinned"


def test_privileged_is_there_for_nodes_that_need_it() -> None:
    pod = manifests.deployment(AgentOptions(privileged=True))[-1]["spec"]["template"]["spec"]
    context = pod["containers"][0]["securityContext"]
    assert context["privileged"] is True
    assert "capabilities" not in context


def test_the_deployer_may_give_the_users_role_since_it_holds_its_rules() -> None:
    (deployer,) = manifests.documents("rbac-deployer")
    held = {
        (group, resource, verb)
        for rule in deployer["rules"]
        if "resourceNames" not in rule
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for found in manifests.documents("rbac-user"):
        for rule in found.get("rules", ()):
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    assert {(group, resource, verb) for verb in rule["verbs"]} <= held


def test_pods_for_bcc_have_its_image_the_headers_and_room_to_unpack() -> None:
    owner = {"metadata": {"name": "run-1", "uid": "u"}}
    pod = manifests.on_demand_pod(AgentOptions(bcc=True), "node-1", "1", owner)["spec"]
    (container,) = pod["containers"]
    assert container["image"].endswith("-bcc")
    assert container["securityContext"]["privileged"] is True
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for path in ("/lib/modules", "/usr/src", "/sys/kernel/debug"):
        assert volumes[mounts[path]]["hostPath"]["path"] == path
    assert "emptyDir" in volumes[mounts["/tmp"]]
    own = manifests.on_demand_pod(AgentOptions(bcc=True, image="mine"), "node-1", "1", owner)["spec"]
    assert own["containers"][0]["image"] == "mine"
