"""The whole product against the real cluster in $KUBECONFIG (pytest --cluster): what only a real kubelet can show.

$KUBECTL_GADGET_TEST_IMAGE is the agent's image (default: the released one), $KUBECTL_GADGET_TEST_BUSYBOX one with a
shell.
The trap: the cluster may be used by others at the same time, so only what a test made itself is counted.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_gadget.cluster.image import DEFAULT_IMAGE

pytestmark = pytest.mark.cluster

PROJECT = Path(__file__).parents[2]
IMAGE = os.environ.get("KUBECTL_GADGET_TEST_IMAGE", DEFAULT_IMAGE)
BUSYBOX = os.environ.get("KUBECTL_GADGET_TEST_BUSYBOX", "busybox:1")
GADGET = (sys.executable, "-c", "from kubectl_gadget.cli.main import main; main()")
AGENT_FLAGS = ("--image", IMAGE, "--image-pull-policy", "IfNotPresent")
OPENS = 97


def kubectl(*words: str, text: str | None = None) -> str:
    result = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def gadget(*words: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GADGET, *words],
        cwd=PROJECT,
        env=os.environ | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.3)


def leftovers() -> str:
    """All that we ever make in a cluster, in one text."""
    kinds = "all,roles,rolebindings,clusterroles,clusterrolebindings,namespaces"
    return kubectl("get", kinds, "-A", "-l", "app.kubernetes.io/name=kubectl-gadget", "-o", "name").strip()


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"kg-test-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def deployed() -> Iterator[None]:
    result = gadget("deploy", *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    yield
    assert gadget("undeploy").returncode == 0


def run_pod(namespace: str, name: str, script: str) -> None:
    container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    kubectl("apply", "-n", namespace, "-f", "-", text=json.dumps(pod))


@contextmanager
def tracing(
    tmp_path: Path, *words: str
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], list[dict[str, Any]]]]]:
    """A run in the background, once it is attached; and the rows that it has written so far."""
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [*GADGET, "trace", *words, "-o", "json", *AGENT_FLAGS], cwd=PROJECT, stdout=stdout, stderr=stderr
        )

    def attached() -> bool:
        assert process.poll() is None, err.read_text()
        return "tracing" in err.read_text()

    def rows() -> list[dict[str, Any]]:
        lines = out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    try:
        until(attached)
        yield process, rows
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def test_an_on_demand_run_counts_exactly_and_leaves_nothing(namespace: str, tmp_path: Path) -> None:
    script = f"until [ -e /tmp/go ]; do sleep 0.2; done; for i in $(seq {OPENS}); do : </etc/passwd; done; sleep 1000"
    run_pod(namespace, "counted", script)
    kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/counted", "--timeout=60s")
    with tracing(tmp_path, "open", "-n", namespace) as (process, rows):
        kubectl("exec", "-n", namespace, "counted", "--", "touch", "/tmp/go")

        def opened() -> list[dict[str, Any]]:
            return [row for row in rows() if row["path"] == "/etc/passwd" and row["comm"] == "sh"]

        until(lambda: len(opened()) >= OPENS)
        process.terminate()
        assert process.wait(30) == 143
        found = opened()
    assert len(found) == OPENS
    assert {(row["namespace"], row["pod"], row["container"]) for row in found} == {(namespace, "counted", "main")}
    until(lambda: not leftovers())


def test_deploy_and_undeploy_leave_nothing() -> None:
    result = gadget("deploy", *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    status = gadget("status")
    assert status.returncode == 0, status.stderr
    assert "Running" in status.stdout
    assert gadget("undeploy").returncode == 0
    assert leftovers() == ""


def test_a_killed_client_leaves_nothing_within_30_seconds(tmp_path: Path) -> None:
    programs = programs_here()
    with tracing(tmp_path, "open", "-A") as (process, _):
        pods = kubectl("get", "pods", "-A", "-l", "app.kubernetes.io/component=on-demand", "-o", "name")
        assert pods
        process.kill()
        process.wait()
    until(lambda: programs_here() <= programs, 30)
    until(lambda: kubectl("get", "all", "-n", "kubectl-gadget", "-o", "name") == "", 30)


def programs_here() -> set[str]:
    """Ids of the BPF programs of this machine's kernel, which is the nodes' in a local test cluster."""
    if shutil.which("bpftool") is None or os.geteuid() != 0:
        return set()
    shown = subprocess.run(["bpftool", "prog", "show", "--json"], capture_output=True, text=True, check=True)
    return {str(program["id"]) for program in json.loads(shown.stdout) if program.get("type") != "cgroup_device"}


def test_a_pod_that_lives_100_ms_is_named_in_full(namespace: str, tmp_path: Path) -> None:
    with tracing(tmp_path, "exec", "-A") as (_, rows):
        run_pod(namespace, "short", "exec sleep 0.1")

        def ours() -> list[dict[str, Any]]:
            return [row for row in rows() if row["pod"] == "short"]

        until(lambda: any("sleep" in row["args"] for row in ours()))
    for row in ours():
        assert (row["namespace"], row["container"]) == (namespace, "main")
        assert row["node"]


@pytest.mark.usefixtures("deployed")
def test_an_agent_does_not_report_itself_unless_its_namespace_is_named() -> None:
    agents = kubectl("get", "pods", "-n", "kubectl-gadget", "-l", "app.kubernetes.io/component=agent", "-o", "name")
    for flags, seen in ((("-A",), False), (("-n", "kubectl-gadget"), True)):
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
    kubectl("apply", "-f", str(PROJECT / "manifests" / "rbac-deployer.yaml"))
    subject = f"--serviceaccount={namespace}:tester"
    kubectl("create", "clusterrolebinding", namespace, "--clusterrole=kubectl-gadget-deployer", subject)
    try:
        command = ("trace", "open", "-n", namespace, "--max-events", "3", "--timeout", "30s", *AGENT_FLAGS)
        result = gadget(*command, kubeconfig=account)
        assert result.returncode == 0, result.stderr
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
