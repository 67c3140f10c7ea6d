"""Policies on a real cluster, as far as any kernel has what they take (pytest --cluster)."""

import json
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real_cluster.real_cluster import (
    AGENT_FLAGS,
    AGENTS,
    ClusterRun,
    container,
    gadget,
    kubectl,
    listed,
    pod,
    run_pods,
    until_ready,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
TIMES = 31
FORBIDDEN = "/tmp/forbidden"
WAITS = "until [ -e /tmp/go ]; do sleep 0.2; done"


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A file with one that kills who opens a file, by the tracepoint that every kernel has."""
    path = tmp_path / "policy.yaml"
    path.write_text(f"""
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {{name: forbidden}}
spec:
  kprobes:
  - call: sys_openat
    args: [{{index: 1, type: string}}]
    selectors:
    - matchArgs: [{{index: 1, operator: Equal, values: ["{FORBIDDEN}"]}}]
      matchActions: [{{action: Sigkill}}]
""")
    return str(path)


def nodes() -> list[str]:
    return sorted(node["metadata"]["name"] for node in listed("nodes"))


def one_on_each_node(namespace: str, script: str) -> dict[str, str]:
    """Pods that are ready, each with its node."""
    where = {f"on-{node}": node for node in nodes()}
    run_pods(namespace, *(pod(name, container(script), nodeName=node) for name, node in where.items()))
    until_ready(namespace, *where)
    return where


def go(namespace: str, name: str) -> None:
    kubectl("exec", "-n", namespace, name, "--", "touch", "/tmp/go")


def phase(namespace: str, name: str) -> str:
    return kubectl("get", "pod", "-n", namespace, name, "-o", "jsonpath={.status.phase}")


def test_each_node_says_which_way_it_takes_to_a_hook(policy: str) -> None:
    result = gadget("policy", "check", "-f", policy, "--all-nodes", "-o", "json", *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)
    (hook,) = report["hooks"]
    assert [(one["node"], one["works"]) for one in hook["nodes"]] == [(node, True) for node in nodes()]
    assert {one["way"] for one in hook["nodes"]} <= {"fentry", "kprobe", "tracepoint", "tp_btf"}


def test_what_a_policy_is_about_is_reported_from_every_node(namespace: str, policy: str, tmp_path: Path) -> None:
    opens = f"{WAITS}; for i in $(seq {TIMES}); do cat {FORBIDDEN}; done; sleep 1000"
    where = one_on_each_node(namespace, opens)
    with ClusterRun(tmp_path, "observe", "-f", policy, "-n", namespace, "-o", "json") as run:
        for name in where:
            go(namespace, name)

        def told() -> list[dict[str, Any]]:
            return [row for row in run.rows() if "process_kprobe" in row]

        wait_until(lambda: len(told()) >= TIMES * len(where))
        assert run.stop() == 130
        found = told()
    pods = [row["process_kprobe"]["process"]["pod"]["name"] for row in found]
    assert {name: pods.count(name) for name in where} == dict.fromkeys(where, TIMES)
    assert {(row["process_kprobe"]["policy_name"], row["node_name"]) for row in found} == {
        ("forbidden", node) for node in where.values()
    }


def test_the_agent_kills_the_process_that_did_it_and_no_other(namespace: str, policy: str, tmp_path: Path) -> None:
    script = f"{WAITS}; read x < {FORBIDDEN}; sleep 1000"
    guilty, *others = one_on_each_node(namespace, script)
    with ClusterRun(tmp_path, "enforce", "-f", policy, "-n", namespace, "--action", "kill") as run:
        go(namespace, guilty)
        wait_until(lambda: phase(namespace, guilty) == "Failed")
        assert run.stop() == 130
    assert [phase(namespace, name) for name in others] == ["Running"] * len(others)


def test_the_client_deletes_the_pod_that_did_it_and_no_other(namespace: str, policy: str, tmp_path: Path) -> None:
    script = f"{WAITS}; while :; do cat {FORBIDDEN}; sleep 0.2; done"
    guilty, *others = one_on_each_node(namespace, script)
    words = ("enforce", "-f", policy, "-n", namespace, "--action", "delete-pod", "--yes")
    with ClusterRun(tmp_path, *words) as run:
        go(namespace, guilty)
        wait_until(lambda: guilty not in {item["metadata"]["name"] for item in listed("pods", "-n", namespace)})
        assert run.stop() == 130
    assert [phase(namespace, name) for name in others] == ["Running"] * len(others)


def test_a_network_policy_refuses_connections_between_pods(namespace: str, tmp_path: Path) -> None:
    server = pod("server", container("httpd -f -p 8080 -h /etc"))
    run_pods(namespace, server, pod("client", container("sleep 1000")))
    until_ready(namespace, "server", "client")
    address = kubectl("get", "pod", "-n", namespace, "server", "-o", "jsonpath={.status.podIP}")
    ask = f"wget -q -T 5 -O /dev/null http://{address}:8080/hostname && echo yes || echo no"

    def answered() -> str:
        return kubectl("exec", "-n", namespace, "client", "--", "sh", "-c", ask).strip()

    wait_until(lambda: answered() == "yes")
    spec = {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]}
    file = tmp_path / "np.yaml"
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"}}
    file.write_text(json.dumps({**head, "spec": spec}))
    with ClusterRun(tmp_path, "enforce", "--network-policy", str(file), "-n", namespace, "-o", "json") as run:
        wait_until(lambda: answered() == "no")
        wait_until(lambda: any("closed" in json.dumps(row) for row in run.rows()))
        assert run.stop() == 130
    wait_until(lambda: answered() == "yes")


def outcomes(namespace: str, names: Collection[str], path: str = FORBIDDEN) -> set[str]:
    """The exit codes of shells that open the file, in pods of each node: 137 where a policy killed them."""
    attempt = f"(read x < {path}); echo $?"
    return {kubectl("exec", "-n", namespace, name, "--", "sh", "-c", attempt).strip() for name in names}


def install(policy: str, *flags: str) -> None:
    words = ("policy", "install", "-f", policy, "--enforce", "--allow-weaker", "--timeout", "150s", *flags)
    installed = gadget(*words)
    assert installed.returncode == 0, installed.stderr


@pytest.mark.usefixtures("deployed")
def test_undeploy_takes_policies_out_of_force_whose_namespace_was_deleted(namespace: str, policy: str) -> None:
    install(policy)
    kubectl("delete", "namespace", AGENTS, "--wait=true")
    where = one_on_each_node(namespace, "sleep 1000")
    assert outcomes(namespace, where) == {"137"}, "what is pinned stays in force"
    assert "may still be in force" in gadget("status").stderr
    removed = gadget("undeploy")
    assert removed.returncode == 0, removed.stderr
    for node in where.values():
        assert f"{node}: installed policies are no longer in force" in removed.stderr
    assert "137" not in outcomes(namespace, where)
    assert gadget("undeploy").stderr == "nothing was deployed\n"


@pytest.mark.usefixtures("deployed")
def test_a_deployment_after_a_deleted_namespace_says_what_it_took_out_of_force(namespace: str, policy: str) -> None:
    install(policy)
    kubectl("delete", "namespace", AGENTS, "--wait=true")
    where = one_on_each_node(namespace, "sleep 1000")
    assert outcomes(namespace, where) == {"137"}
    again = gadget("deploy", *AGENT_FLAGS)
    assert again.returncode == 0, again.stderr
    wait_until(lambda: "137" not in outcomes(namespace, where))

    def said() -> str:
        return gadget("status").stderr

    for node in where.values():
        line = f"{node}: its agent removed policies that are no longer installed: forbidden"
        wait_until(lambda line=line: line in said())  # type: ignore[misc]


@pytest.fixture
def second() -> Iterator[str]:
    """The namespace of another deployment."""
    name = f"kg-second-{secrets.token_hex(3)}"
    result = gadget("deploy", "--agent-namespace", name, *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    yield name
    assert gadget("undeploy", "--agent-namespace", name).returncode == 0


@pytest.mark.usefixtures("deployed")
def test_two_deployments_do_not_touch_each_others_policies(
    namespace: str, policy: str, second: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(Path(policy).read_text().replace("forbidden", "other"))
    where = one_on_each_node(namespace, "sleep 1000")
    install(policy)
    install(str(other), "--agent-namespace", second)
    assert outcomes(namespace, where) == outcomes(namespace, where, "/tmp/other") == {"137"}
    status = gadget("status").stderr
    for node in where.values():
        assert f"{node}: policies of the deployment in namespace {second} (other) are in force" in status
    removed = gadget("undeploy")
    assert removed.returncode == 0, removed.stderr
    for node in where.values():
        assert f"{node}: installed policies are no longer in force" in removed.stderr
        assert f"{node}: policies of the deployment in namespace {second} (other) stay in force" in removed.stderr
    assert "137" not in outcomes(namespace, where)
    assert outcomes(namespace, where, "/tmp/other") == {"137"}
    assert gadget("deploy", *AGENT_FLAGS).returncode == 0
    kubectl("delete", "namespace", second, "--wait=true")
    whose = f"policies of a deployment in namespace {second} that no longer exists (other)"
    status = gadget("status").stderr
    removed = gadget("undeploy")
    for node in where.values():
        assert f"{node}: {whose} are in force; kubectl gadget undeploy removes them" in status
        assert f"{node}: {whose} are no longer in force" in removed.stderr
    assert "137" not in outcomes(namespace, where, "/tmp/other")
