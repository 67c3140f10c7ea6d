"""Behavior on a real cluster (pytest --cluster): two releases that run side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.real_cluster.real_cluster import ClusterRun, container, kubectl, pod, run_pods, until_ready
from tests.real_cluster.test_faults import nodes
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
BOTH = "cat /etc/hostname >/dev/null; "
PLANTED = "cp /bin/busybox /tmp/dropped; /tmp/dropped true; "
WAITS = "touch /tmp/done; sleep 1000"


def deployment(name: str, version: str, script: str) -> dict[str, Any]:
    labels = {"app": "web", "version": version}
    pod = {"terminationGracePeriodSeconds": 0, "containers": [container(script)]}
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def diff(folder: Path, namespace: str, one: str, other: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, the output, and what was said of two releases that start while they are watched."""
    folder.mkdir()
    sides = ("app=web,version=1", "app=web,version=2")
    with ClusterRun(folder, "behavior", "diff", "--live", *sides, "-n", namespace, "-o", "json") as run:
        both = [deployment("web-1", "1", f"{one}{WAITS}"), deployment("web-2", "2", f"{other}{WAITS}")]
        many = json.dumps({"apiVersion": "v1", "kind": "List", "items": both})
        kubectl("apply", "--validate=false", "-n", namespace, "-f", "-", text=many)
        for name in ("web-1", "web-2"):
            kubectl("rollout", "status", "-n", namespace, f"deploy/{name}", "--timeout=100s")
        pods = kubectl("get", "pods", "-n", namespace, "-l", "app=web", "-o", "name").split()
        for pod in pods:
            wait_until(lambda pod=pod: "done" in kubectl("exec", "-n", namespace, pod, "--", "ls", "/tmp"))  # type: ignore[misc]
        code = run.stop()
    kubectl("delete", "deploy", "-n", namespace, "--all", "--wait=true")
    return code, json.loads(run.out.read_text()), run.said()


def test_the_planted_change_of_one_release_is_found_and_equal_releases_are_equal(
    namespace: str, tmp_path: Path
) -> None:
    # A node without a pod of the namespace has no agent yet, which would see the start of no pod.
    run_pods(namespace, *(pod(f"on-{node}", container("sleep 1000"), nodeName=node) for node in nodes()))
    until_ready(namespace, *(f"on-{node}" for node in nodes()))
    code, found, said = diff(tmp_path / "changed", namespace, BOTH, BOTH + PLANTED)

    assert code == 4, said
    texts = [change["text"] for change in found["changes"] if change["change"] == "new"]
    assert "/tmp/dropped" in texts[0], texts
    assert not found["inconclusive"], found
    code, found, said = diff(tmp_path / "equal", namespace, BOTH, BOTH)
    assert (code, found["changes"]) == (0, []), (found, said)
