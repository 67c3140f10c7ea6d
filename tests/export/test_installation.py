"""Exports that are installed in a cluster: what is applied, with which rights, and what is said of it."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.resident_agents import deploy, undeploy
from kubectl_gadget.errors import ClusterError, DeployError, ForbiddenError, UsageError
from kubectl_gadget.export.installation import Installation, install, installed, objects, uninstall
from kubectl_gadget.export.targets import PURPOSES
from kubectl_gadget.gadgets.load import load_index
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from tests.export.test_run import run
from tests.fake_cluster import FakeCluster

NAMESPACE = "kubectl-gadget"
WANTED = Installation("security", "exec+tcp", ("otlp=http://collector:4318",), "registry.example/client:1")
NAME = "kubectl-gadget-export-security"


@pytest.fixture
def contained(cluster: FakeCluster) -> None:
    """The role that contained agents bring."""
    cluster.store.add("clusterroles", "", {"metadata": {"name": manifests.OBSERVER}, "rules": []})


def becomes_ready(cluster: FakeCluster) -> None:
    def ready(found: dict[str, Any]) -> None:
        generation = found["metadata"].setdefault("generation", 1)
        found["status"] = {
            "observedGeneration": generation,
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": 1,
        }

    assert cluster.store.change("deployments", NAMESPACE, NAME, ready)


def test_the_pod_has_no_more_rights_than_an_observer_and_nothing_to_write_to() -> None:
    found = objects(replace(WANTED, namespace="agents"))
    assert {one["metadata"].get("namespace", "agents") for one in found} == {"agents"}
    assert {(one["kind"], one["roleRef"]["name"]) for one in found if "roleRef" in one} == {
        ("ClusterRoleBinding", manifests.OBSERVER),
        ("RoleBinding", manifests.OBSERVER),
    }
    assert not [one for one in found if one["kind"] in ("Role", "ClusterRole")]
    subjects = [subject for one in found for subject in one.get("subjects", ())]
    assert subjects == [{"kind": "ServiceAccount", "name": NAME, "namespace": "agents"}] * 2
    pod = found[-1]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == NAME
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert "hostPath" not in str(pod)


def test_the_command_is_a_run_that_the_command_line_takes(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = replace(WANTED, more=("--filter", "comm == 'a; rm -rf /'"), secret="logs")
    container = objects(wanted)[-1]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:4] == ["sh", "-c", 'exec kubectl-gadget "$@" >/dev/null', "kubectl-gadget"]
    words = container["command"][4:]
    assert words[:2] == ["trace", "exec+tcp"]
    assert words[-2:] == ["--filter", "comm == 'a; rm -rf /'"]
    assert container["envFrom"] == [{"secretRef": {"name": "logs"}}]
    # It gets as far as the cluster, which is not there.
    code, _, said = run(capsys, *words, "--kubeconfig", "/nowhere")
    assert (code, "/nowhere" in said) == (1, True), said


def test_nodes_are_shared_out_by_their_labels_and_the_pod_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "install", "exec", "--image", "x", "--dry-run", "client", "--to", "otlp=http://collector:4318"]
    words += ["--name", "a", "--node-selector", "pool in (a, b)", "--pod-node-selector", "pool=infra"]
    code, printed, _ = run(capsys, *words)
    assert code == 0
    pod = list(yaml.safe_load_all(printed))[-1]["spec"]["template"]["spec"]
    command = pod["containers"][0]["command"]
    assert command[command.index("--node-selector") + 1] == "pool in (a, b)"
    assert pod["nodeSelector"]["pool"] == "infra"


def test_purposes_are_gadgets_of_trace() -> None:
    known = {entry.command[-1] for entry in load_index() if entry.command[0] == "trace"}
    assert {name for gadgets in PURPOSES.values() for name in gadgets.split("+")} <= known


async def test_it_is_installed_shown_and_removed(cluster: FakeCluster, api: Api, contained: None) -> None:
    before = set(cluster.store.objects)
    said: list[str] = []
    await install(api, WANTED, said.append, None)
    assert said[-1] == f"deployment/{NAME} applied"
    (one,) = await installed(api)
    assert (one.name, one.is_ready, one.gadgets, one.to, one.problem) == (
        "security",
        False,
        "exec+tcp",
        ("otlp=http://collector:4318",),
        "it has no pod",
    )
    becomes_ready(cluster)
    await install(api, replace(WANTED, name="other"), said.append, None)
    assert [(one.name, one.is_ready) for one in await installed(api)] == [("other", False), ("security", True)]
    with pytest.raises(UsageError, match="no export nope; it has: other, security"):
        await uninstall(api, ["nope"], NAMESPACE, said.append)
    await uninstall(api, ["other"], NAMESPACE, said.append)
    assert [one.name for one in await installed(api)] == ["security"]
    await uninstall(api, [], NAMESPACE, said.append)
    assert said[-1] == "export security removed"
    assert set(cluster.store.objects) == before


async def test_without_contained_agents_nothing_is_applied(cluster: FakeCluster, api: Api) -> None:
    before = set(cluster.store.objects)
    with pytest.raises(ClusterError, match="no contained agents") as found:
        await install(api, WANTED, print, None)
    assert found.value.remedy == "kubectl gadget deploy --contained"
    assert set(cluster.store.objects) == before


async def test_a_right_that_is_missing_is_named_before_anything_is_applied(
    cluster: FakeCluster, api: Api, contained: None
) -> None:
    before = set(cluster.store.objects)
    cluster.faults.forbidden.add(("create", "deployments"))
    with pytest.raises(ForbiddenError, match="deployments"):
        await install(api, WANTED, print, None)
    assert set(cluster.store.objects) == before


async def test_a_pod_that_does_not_start_is_explained(cluster: FakeCluster, api: Api, contained: None) -> None:
    await install(api, WANTED, print, None)
    labels = objects(WANTED)[-1]["spec"]["template"]["metadata"]["labels"]
    said = "trace exec\nerror: the cluster is gone\ntry: later\n"
    ended = {"name": "export", "restartCount": 3, "state": {"terminated": {"exitCode": 2, "message": said}}}
    pod = {
        "metadata": {"name": "one", "labels": labels},
        "spec": {"containers": [{"name": "export"}]},
        "status": {"phase": "Running", "containerStatuses": [ended]},
    }
    cluster.store.add("pods", NAMESPACE, pod)
    with pytest.raises(DeployError, match=r"is not ready: its pod one .*exit code 2: the cluster is gone$") as found:
        await install(api, WANTED, print, 0.1)
    assert "kubectl logs -n kubectl-gadget" in str(found.value.remedy)
    (one,) = await installed(api)
    assert (one.restarts, "exit code 2" in one.problem) == (3, True)


async def test_the_status_says_which_target_does_not_take_rows(cluster: FakeCluster, api: Api, contained: None) -> None:
    await install(api, WANTED, print, None)
    becomes_ready(cluster)
    labels = objects(WANTED)[-1]["spec"]["template"]["metadata"]["labels"]
    pod = {
        "metadata": {"name": "one", "labels": labels},
        "spec": {"containers": [{"name": "export"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "export", "state": {"running": {}}}]},
    }
    cluster.store.add("pods", NAMESPACE, pod)
    waits = "export otlp=http://a: Connection refused; rows wait, and it is tried again\n"
    again = waits.replace("http://a", "http://b") + "export otlp=http://b: it takes rows again\n"
    cluster.store.logs[(NAMESPACE, "one", "export", False)] = "trace exec on 2/2 nodes\n" + waits + again
    (one,) = await installed(api)
    assert (one.is_ready, one.problem) == (True, waits.strip())
    cluster.store.logs[(NAMESPACE, "one", "export", False)] = again
    assert [one.problem for one in await installed(api)] == [""]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--for security --image x", "--to says where"),
        ("--for security --to otlp=http://c:4318", "--image is missing"),
        ("--to otlp=http://c:4318 --image x", "nothing was chosen"),
        ("exec --for security --to otlp=http://c:4318 --image x", "cannot be used together"),
        ("exec tcp --to otlp=http://c:4318 --image x", "exec+tcp"),
        ("exce --to otlp=http://c:4318 --image x", "trace has no gadget exce"),
        ("exec --to jsonl=/tmp/x --image x", "is not for a pod"),
        ("exec --to prometheus=9100 --image x", "is not for a pod"),
        ("exec --to otlp=http://c:4318 --image x --name A_b", "is no name"),
        ("exec --to otlp=http://c:4318 --image x -o yaml", "only for --dry-run=client"),
    ],
)
def test_mistakes_are_named(capsys: pytest.CaptureFixture[str], words: str, error: str) -> None:
    code, _, said = run(capsys, "export", "install", *words.split())
    assert (code, error in said) == (2, True), said


def test_a_dry_run_prints_plain_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    words = "export install --for files --to syslog=tls://logs --image x --dry-run client -o yaml"
    code, printed, _ = run(capsys, *words.split())
    assert code == 0
    found = list(yaml.safe_load_all(printed))
    assert [one["kind"] for one in found] == ["ServiceAccount", "ClusterRoleBinding", "RoleBinding", "Deployment"]
    assert "NAME" not in printed
    assert "IMAGE" not in printed


@pytest.mark.slow
async def test_undeploy_leaves_nothing_of_it(
    cluster: FakeCluster, api: Api, agent_options: AgentOptions, contained: None
) -> None:
    before = set(cluster.store.objects)
    await deploy(api, agent_options, print)
    await install(api, WANTED, print, None)
    await undeploy(api, agent_options, print)
    assert set(cluster.store.objects) == before
