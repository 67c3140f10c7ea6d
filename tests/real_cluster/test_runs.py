"""The whole product against a real cluster (pytest --cluster): what only a real kubelet can show."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gadget_run import PROJECT
from tests.real_cluster.real_cluster import (
    AGENT_FLAGS,
    AGENTS,
    ClusterRun,
    gadget,
    kubectl,
    leftovers,
    run_pod,
    until_ready,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
OPENS = 97


def test_an_on_demand_run_counts_exactly_and_leaves_nothing(namespace: str, tmp_path: Path) -> None:
    script = f"until [ -e /tmp/go ]; do sleep 0.2; done; for i in $(seq {OPENS}); do : </etc/passwd; done; sleep 1000"
    run_pod(namespace, "counted", script)
    until_ready(namespace, "counted")
    with ClusterRun(tmp_path, "trace", "open", "-n", namespace, "-o", "json") as run:
        kubectl("exec", "-n", namespace, "counted", "--", "touch", "/tmp/go")

        def opened() -> list[dict[str, Any]]:
            return [row for row in run.rows() if row["path"] == "/etc/passwd" and row["comm"] == "sh"]

        wait_until(lambda: len(opened()) >= OPENS)
        assert run.stop(signal.SIGTERM) == 143
        found = opened()
    assert len(found) == OPENS
    assert {(row["namespace"], row["pod"], row["container"]) for row in found} == {(namespace, "counted", "main")}
    wait_until(lambda: not leftovers())


def test_deploy_and_undeploy_leave_nothing() -> None:
    result = gadget("deploy", *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    status = gadget("status")
    assert status.returncode == 0, status.stderr
    assert "Running" in status.stdout
    assert gadget("undeploy").returncode == 0
    assert leftovers() == ""


def test_a_pod_that_lives_100_ms_is_named_in_full(namespace: str, tmp_path: Path) -> None:
    with ClusterRun(tmp_path, "trace", "exec", "-A", "-o", "json") as run:
        run_pod(namespace, "short", "exec sleep 0.1")

        def ours() -> list[dict[str, Any]]:
            return [row for row in run.rows() if row["pod"] == "short"]

        wait_until(lambda: any("sleep" in row["args"] for row in ours()))
    for row in ours():
        assert row["namespace"] == namespace
        assert row["node"]
        # The pod's sandbox is a container of it, too, and executes its pause program.
        assert row["container"] == "main" or row["container_mark"] == "sandbox"


@pytest.mark.usefixtures("deployed")
def test_an_agent_does_not_report_itself_unless_its_namespace_is_named() -> None:
    agents = kubectl("get", "pods", "-n", AGENTS, "-l", "app.kubernetes.io/component=agent", "-o", "name")
    for flags, seen in ((("-A",), False), (("-n", AGENTS), True)):
        result = gadget("trace", "open", *flags, "--timeout", "5s", "-o", "json")
        assert result.returncode == 0, result.stderr
        pods = {f"pod/{json.loads(line)['pod']}" for line in result.stdout.splitlines()}
        assert pods.isdisjoint(agents.split()) is not seen


@pytest.mark.usefixtures("deployed")
def test_the_users_role_suffices_to_trace_with_resident_agents(namespace: str, tmp_path: Path) -> None:
    run_pod(namespace, "opener", "while :; do cat /etc/passwd >/dev/null; sleep 0.2; done")
    account = service_account(namespace, tmp_path)
    denied = gadget("trace", "open", "-A", "--timeout", "5s", kubeconfig=account)
    assert denied.returncode == 1
    assert "Forbidden" in denied.stderr
    subject = f"--serviceaccount={namespace}:tester"
    kubectl("create", "clusterrolebinding", namespace, "--clusterrole=kubectl-gadget-user", subject)
    try:
        kubectl("create", "rolebinding", "-n", "kubectl-gadget", namespace, "--role=kubectl-gadget-user", subject)
        for flags in (("-A",), ("-n", namespace), ("-n", namespace, "-l", "app=opener"), ("-n", namespace, "opener")):
            result = gadget("trace", "open", *flags, "--max-events", "3", "--timeout", "20s", kubeconfig=account)
            assert result.returncode == 0, result.stderr
            assert result.stdout.count("\n") == 4, result.stdout + result.stderr
    finally:
        kubectl("delete", "clusterrolebinding", namespace)


def test_the_deployers_role_suffices_for_runs_on_demand_and_deployments(namespace: str, tmp_path: Path) -> None:
    run_pod(namespace, "opener", "while :; do cat /etc/passwd >/dev/null; sleep 0.2; done")
    account = service_account(namespace, tmp_path)
    kubectl("apply", "--validate=false", "-f", str(PROJECT / "manifests" / "rbac-deployer.yaml"))
    subject = f"--serviceaccount={namespace}:tester"
    kubectl("create", "clusterrolebinding", namespace, "--clusterrole=kubectl-gadget-deployer", subject)
    try:
        command = ("trace", "open", "-n", namespace, "--max-events", "3", "--timeout", "30s", *AGENT_FLAGS)
        for _ in range(2):  # the second one does not wait until the namespace of the first one is gone
            result = gadget(*command, kubeconfig=account)
            assert result.returncode == 0, result.stderr
            assert "waiting until the namespace" not in result.stderr
        for words in (("deploy", *AGENT_FLAGS), ("status",), ("undeploy",)):
            result = gadget(*words, kubeconfig=account)
            assert result.returncode == 0, result.stderr
    finally:
        kubectl("delete", "clusterrolebinding", namespace)
        kubectl("delete", "clusterrole", "kubectl-gadget-deployer")


def service_account(namespace: str, tmp_path: Path) -> Path:
    """A kubeconfig for an account without any right."""
    kubectl("create", "serviceaccount", "-n", namespace, "tester")
    token = kubectl("create", "token", "-n", namespace, "tester").strip()
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "--flatten"))
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "account.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_an_image_that_is_not_there_fails_early_with_the_kubelets_reason() -> None:
    result = gadget("deploy", "--image", "no-such-image:1", "--image-pull-policy", "Never")
    assert result.returncode == 1
    assert "ErrImageNeverPull" in result.stderr
    assert gadget("undeploy").returncode == 0
    assert leftovers() == ""
