"""`kubectl gadget policy install`, `installed`, `uninstall`, `observe --installed` and `undeploy` against a double of a
cluster, whose nodes' agents are real; the test itself is the kubelet that brings the ConfigMap's file to them.

Both nodes are this machine, so both say what the one guard here has in force.
"""

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kubectl_gadget.agents.resident_agents import deploy
from kubectl_gadget.errors import DeployError, ForbiddenError, UsageError
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.policies import installation
from kubectl_gadget.policies.installation import PolicyChange, change, installed_file, policies_to_store, read
from kubectl_gadget.wire.record_reader import EventMetadata, read_metadata
from tests.agent.guards import RunningGuard, bpf_file_system, guard
from tests.fake_cluster import FakeCluster
from tests.gadget_run import GADGET

pytestmark = [pytest.mark.usefixtures("catalogue_built")]
NAMESPACE, NAME = "kubectl-gadget", "kubectl-gadget-policies"
OPTIONS = AgentOptions(start_timeout=10)


@dataclass
class Site:
    """A cluster with resident agents, and a way to run commands against it."""

    cluster: FakeCluster
    api: Api
    kubeconfig: Path

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = await self.start(*words)
        out, errors = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode is not None
        return process.returncode, out.decode(), errors.decode()

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        command = [*GADGET, *words, "--kubeconfig", str(self.kubeconfig)]
        return await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def file(self) -> bytes | None:
        found = self.cluster.store.get("configmaps", NAMESPACE, NAME)
        return base64.b64decode(found["binaryData"]["policies.zip"]) if found else None


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    environment = {"KUBECTL_GADGET_RUN": str(tmp_path / "run"), "KUBECTL_GADGET_PINS": str(tmp_path / "bpf")}
    async with FakeCluster(2, environment=environment) as cluster:
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        with closing(Api(load(KubeOptions(kubeconfig=str(kubeconfig))))) as api:
            await deploy(api, OPTIONS, lambda _: None)
            yield Site(cluster, api, kubeconfig)


@pytest.fixture
async def running(site: Site, tmp_path: Path) -> AsyncIterator[RunningGuard]:
    with guard(tmp_path) as found:
        kubelet = asyncio.create_task(_play_kubelet(site, found))
        yield found
        kubelet.cancel()


async def _play_kubelet(site: Site, running: RunningGuard) -> None:
    target, before = running.folder / "policies.zip", None
    while True:
        data = site.file()
        if data != before:
            before = data
            if data is None:
                target.unlink(missing_ok=True)
            else:
                (running.folder / "new").write_bytes(data)
                (running.folder / "new").rename(target)
        await asyncio.sleep(0.02)


def policies(*texts: str, namespace: str = "default") -> PolicyChange:
    return PolicyChange(policies_to_store([("test.yaml", "\n---\n".join(texts))], namespace))


TELLS = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: tells}
spec: {lsmhooks: [{hook: file_open}]}
"""
KILLS = TELLS.replace("tells", "kills").replace(
    "file_open", "file_open, selectors: [{matchActions: [{action: Sigkill}]}]"
)
NAMESPACED = TELLS.replace("TracingPolicy", "TracingPolicyNamespaced")


@pytest.mark.bpf
@pytest.mark.usefixtures("tracefs")
async def test_from_install_to_uninstall_and_undeploy(site: Site, running: RunningGuard, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(running.policy("secrets"))
    running.start()
    code, _, said = await site.run("policy", "install", "-f", str(file))
    assert code == 0, said
    assert "installed secrets" in said
    assert "2/2 nodes have the change" in said
    words = ("-A", "--host", "--installed", "-o", "json", "--policy-names", "secrets", "--max-events", str(2 * 13))
    observer = await site.start("observe", *words)
    assert observer.stderr is not None
    while not (line := (await observer.stderr.readline()).decode()).startswith("tracing"):
        assert line
    running.open_secret(13)
    running.events("secrets", 13)
    out, _ = await asyncio.wait_for(observer.communicate(), 60)
    told = [json.loads(line)["process_kprobe"] for line in out.splitlines()]
    assert len(told) == 2 * 13, "of two nodes that are one machine"
    assert {(one["policy_name"], one["process"]["pid"]) for one in told} == {("secrets", os.getpid())}
    code, out_text, _ = await site.run("policy", "installed", "--no-headers")
    assert code == 0
    assert [line.split()[:3] for line in out_text.splitlines()] == [
        ["secrets", "node-1", "enabled"],
        ["secrets", "node-2", "enabled"],
    ]
    code, _, said = await site.run("policy", "uninstall", "secrets")
    assert code == 0, said
    assert not list(running.pins.iterdir())


@pytest.mark.bpf
@pytest.mark.usefixtures("tracefs")
async def test_undeploy_leaves_nothing_in_force(site: Site, running: RunningGuard) -> None:
    running.start()
    there = await change(site.api, OPTIONS, policies(running.policy("secrets")))
    await asyncio.to_thread(running.wait_for, there.digest)
    assert list(running.pins.iterdir())
    code, _, said = await site.run("undeploy")
    assert code == 0, said
    assert f"configmap/{NAME} deleted" in said
    assert "may still be in force" not in said
    assert "installed policies are no longer in force" in said
    assert not running.pins.exists()


@pytest.mark.bpf
@pytest.mark.usefixtures("tracefs")
async def test_undeploy_finds_what_is_in_force_after_the_namespace_was_deleted(
    site: Site, running: RunningGuard
) -> None:
    running.start()
    there = await change(site.api, OPTIONS, policies(running.policy("secrets")))
    await asyncio.to_thread(running.wait_for, there.digest)
    site.cluster.store.remove("namespaces", "", NAMESPACE)
    running.stop()
    assert list(running.pins.iterdir())
    _, _, said = await site.run("status")
    assert "the agents of namespace kubectl-gadget were removed without undeploy" in said
    assert "installed policies may still be in force" in said
    code, _, said = await site.run("undeploy")
    assert code == 0, said
    assert "looking for installed policies on 2 nodes" in said
    assert said.count("installed policies are no longer in force") == 1, "both nodes are this machine"
    assert said.count("no installed policies were in force") == 1
    assert not running.pins.exists()
    assert not site.cluster.pods(NAMESPACE)
    assert site.cluster.store.get("namespaces", "", NAMESPACE) is None
    _, _, said = await site.run("status")
    assert "may still be in force" not in said
    _, _, said = await site.run("undeploy")
    assert said == "nothing was deployed\n"


@pytest.mark.bpf
@pytest.mark.usefixtures("tracefs")
async def test_policies_of_others_are_named_and_only_those_without_a_deployment_are_removed(
    site: Site, tmp_path: Path
) -> None:
    """One of a deployment that exists, but whose agent does not run now; one whose namespace was made again."""
    site.cluster.add_namespace("living")
    site.cluster.add_namespace("again")
    living = site.cluster.store.get("namespaces", "", "living")
    assert living is not None
    owners = {"living": living["metadata"]["uid"], "again": "of-the-one-before"}
    with bpf_file_system(tmp_path / "bpf") as file_system:
        others = {}
        for namespace, uid in owners.items():
            (tmp_path / namespace).mkdir()
            others[namespace] = one = RunningGuard(tmp_path / namespace, file_system, namespace)
            digest = one.install(one.policy(f"of-{namespace}"), owner=uid)
            one.start()
            await asyncio.to_thread(one.wait_for, digest)
            one.kill()
        _, _, said = await site.run("status")
        gone = "policies of a deployment in namespace again that no longer exists (of-again)"
        assert f"node-1: {gone} are in force; kubectl gadget undeploy removes them" in said
        assert "node-1: policies of the deployment in namespace living (of-living) are in force\n" in said
        _, _, said = await site.run("policy", "installed")
        assert gone in said
        code, _, said = await site.run("policy", "uninstall", "of-again")
        assert code == 2
        assert f"{gone} are in force; kubectl gadget undeploy removes them" in said
        _, _, said = await site.run("trace", "exec", "-A", "--host", "--timeout", "1s")
        assert "namespace again that may no longer exist (of-again) are still in force, but no running agent" in said
        code, _, said = await site.run("undeploy")
        assert code == 0, said
        assert f"node-1: {gone} are no longer in force" in said
        assert "node-2: policies of the deployment in namespace living (of-living) stay in force" in said
        assert not others["again"].pins.exists()
        assert others["living"].pins.exists()
        _, _, said = await site.run("undeploy", "--all-nodes")
        assert "looking for installed policies on 2 nodes" in said
        assert "namespace living (of-living) stay in force" in said
        site.cluster.store.remove("namespaces", "", "living")
        _, _, said = await site.run("undeploy", "--all-nodes")
        assert "namespace living that no longer exists (of-living) are no longer in force" in said
        assert not others["living"].pins.exists()


@pytest.mark.bpf
@pytest.mark.usefixtures("tracefs")
async def test_a_node_that_cannot_carry_a_policy_out_says_why(site: Site, running: RunningGuard) -> None:
    running.start()
    nowhere = running.policy("nowhere") + "\n  - {call: there_is_no_such_function, syscall: false}"
    there = await change(site.api, OPTIONS, policies(nowhere))
    await asyncio.to_thread(running.wait_for, there.digest)
    code, out, said = await site.run("policy", "installed", "-o", "json")
    assert code == 1
    assert {node["state"] for node in json.loads(out)[0]["nodes"]} == {"load_error"}
    assert "node-2: policy nowhere: load_error: cannot attach to there_is_no_such_function" in said


async def test_a_weaker_way_is_allowed_for_as_long_as_something_is_installed(site: Site) -> None:
    kills = policies(KILLS)
    assert (await change(site.api, OPTIONS, PolicyChange(kills.add, allow_weaker=True))).allow_weaker
    assert (await change(site.api, OPTIONS, policies(TELLS))).allow_weaker
    assert not (
        await change(site.api, OPTIONS, PolicyChange(remove=[one.key for one in policies(KILLS, TELLS).add]))
    ).allow_weaker
    assert not (await change(site.api, OPTIONS, kills)).allow_weaker


async def test_a_file_of_what_the_cluster_has_is_refused(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(KILLS)
    code, _, said = await site.run("policy", "install", "-f", str(file), "--enforce", "--objects", str(file))
    assert code == 2
    assert "unknown flag --objects" in said
    assert site.file() is None


async def test_a_policy_that_kills_needs_to_be_asked_for(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(KILLS)
    code, _, said = await site.run("policy", "install", "-f", str(file), "--wait=false")
    assert code == 2
    assert "kills would deny or kill while installed" in said
    assert "--enforce" in said
    assert site.file() is None
    code, _, said = await site.run("policy", "install", "-f", str(file), "--enforce", "--wait=false")
    assert code == 0, said
    code, out, said = await site.run("policy", "installed", "--no-headers")
    assert code == 1
    assert [line.split()[2] for line in out.splitlines()] == ["pending", "pending"]
    assert "node-1 has not received the change yet" in said


async def test_two_installations_at_the_same_time_both_succeed(site: Site) -> None:
    await change(site.api, OPTIONS, policies(TELLS))
    await asyncio.gather(
        *(change(site.api, OPTIONS, policies(TELLS.replace("tells", name))) for name in ("first", "second"))
    )
    assert [one.title for one in (await read(site.api, OPTIONS)).policies] == ["first", "second", "tells"]


async def test_a_namespaced_policy_stays_in_the_namespace_that_it_was_installed_from(site: Site) -> None:
    await change(site.api, OPTIONS, policies(NAMESPACED, namespace="shop"))
    await change(site.api, OPTIONS, policies(TELLS))
    assert [one.title for one in (await read(site.api, OPTIONS)).policies] == ["tells", "shop/tells"]
    code, _, said = await site.run("policy", "uninstall", "shop/tells", "--wait=false")
    assert code == 0, said
    assert [one.title for one in (await read(site.api, OPTIONS)).policies] == ["tells"]


async def test_the_same_policies_are_the_same_file(site: Site) -> None:
    first = await change(site.api, OPTIONS, policies(TELLS))
    file = site.file()
    assert (await change(site.api, OPTIONS, policies(TELLS))).digest == first.digest
    assert site.file() == file


async def test_without_resident_agents_nothing_is_installed(tmp_path: Path) -> None:
    async with FakeCluster(1) as cluster:
        options = KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "kubeconfig")))
        with (
            closing(Api(load(options))) as api,
            pytest.raises(DeployError, match="installed policies need deployed agents"),
        ):
            await change(api, OPTIONS, policies(TELLS))
        assert not cluster.store.list("configmaps")


async def test_without_the_right_it_is_reported_before_anything_is_changed(site: Site) -> None:
    site.cluster.faults.forbidden.add(("patch", "configmaps"))
    with pytest.raises(ForbiddenError, match="patch"):
        await change(site.api, OPTIONS, policies(TELLS))
    assert site.file() is None


async def test_what_a_config_map_cannot_hold_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "MOST_BYTES", 50_000)
    with pytest.raises(UsageError, match="a ConfigMap holds at most"):
        await change(site.api, OPTIONS, policies(TELLS))
    assert site.file() is None


@pytest.mark.parametrize("enforcing", [False, True])
async def test_a_policy_that_enforces_asks_for_agents_that_stay_on_full_nodes(
    site: Site, tmp_path: Path, enforcing: bool
) -> None:
    if enforcing:
        await deploy(site.api, replace(OPTIONS, enforcing=True), lambda _: None)
    for text, told in ((KILLS, not enforcing), (TELLS, False)):
        file = tmp_path / "policy.yaml"
        file.write_text(text)
        code, _, said = await site.run("policy", "install", "-f", str(file), "--enforce", "--wait=false")
        assert code == 0, said
        assert ("kubectl gadget deploy --enforcing" in said) == told


async def test_what_is_not_installed_cannot_be_uninstalled(site: Site) -> None:
    await change(site.api, OPTIONS, policies(TELLS))
    code, _, said = await site.run("policy", "uninstall", "others")
    assert code == 2
    assert "no policy 'others' is installed" in said


async def test_a_node_without_an_agent_is_named(site: Site) -> None:
    await change(site.api, OPTIONS, policies(TELLS))
    site.cluster.add_node("node-3")
    code, out, said = await site.run("policy", "installed", "--no-headers")
    assert [line.split()[1:3] for line in out.splitlines()][-1] == ["node-3", "no-agent"]
    assert "node-3 has no resident agent" in said
    assert code == 1, "since the others do not have it yet"


async def test_what_this_version_does_not_understand_is_not_thrown_away(site: Site) -> None:
    await change(site.api, OPTIONS, policies(TELLS))
    found = site.cluster.store.get("configmaps", NAMESPACE, NAME)
    assert found is not None
    found["data"]["_cluster.tells.yaml"] = TELLS.replace("lsmhooks", "hooks_of_the_future")
    with pytest.raises(UsageError, match="the installed policies cannot be decoded") as error:
        await change(site.api, OPTIONS, policies(TELLS.replace("tells", "other")))
    assert "kubectl delete configmap" in str(error.value.remedy)


# What cannot stay without a client is refused when it is to be installed.


POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: p}
spec:
  podSelector: {matchLabels: {%s: web}}
  %s
"""
OF_A_NAMESPACE = "'k8s:io.kubernetes.pod.namespace'"


@pytest.mark.parametrize(
    ("label", "hook", "why"),
    [
        ("app", "kprobes: [{call: sys_openat}]", "labels of pods or nodes"),
        (OF_A_NAMESPACE, "uprobes: [{path: /bin/sh, symbols: [main]}]", "a uprobe cannot be installed"),
    ],
)
def test_what_needs_a_client_or_a_running_agent_is_refused(label: str, hook: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        installed_file(policies_to_store([("p.yaml", POLICY % (label, hook))], "default"), False, {})


@pytest.mark.parametrize("name", ["a b", "Up", "-a", "a/b"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    text = (POLICY % ("app", "kprobes: [{call: sys_openat}]")).replace("name: p", f"name: '{name}'")
    with pytest.raises(UsageError, match=rf"p\.yaml:2:1: metadata\.name '{name}' is not a valid Kubernetes name"):
        policies_to_store([("p.yaml", text)], "default")


@pytest.mark.parametrize("would_be", ["", "SENT SIGKILL"])
def test_a_description_is_read_as_it_was(would_be: str) -> None:
    described = EventMetadata("kprobe", function="f", policy="p", tags=("t",), returned=("int", "r"), would_be=would_be)
    assert read_metadata(json.loads(json.dumps(described.spec()))) == described
