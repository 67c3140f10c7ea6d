"""Advice for pods of a real cluster, which then have to do their work under it (pytest --cluster)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real_cluster.real_cluster import ClusterRun, container, kubectl, listed, pod, run_pods
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster
WORK = "touch /tmp/file; chown 1000 /tmp/file; ls -l /tmp | sort > /tmp/list"


def ends(namespace: str, name: str, node: str, security: Mapping[str, Any]) -> str:
    """How the pod's work ends: Succeeded or Failed."""
    work = {**container(f"set -e; {WORK}"), "securityContext": dict(security)}
    run_pods(namespace, pod(name, work, nodeName=node))

    def phase() -> str:
        return kubectl("get", "pod", "-n", namespace, name, "-o", "jsonpath={.status.phase}")

    wait_until(lambda: phase() in ("Succeeded", "Failed"))
    return phase()


def test_a_pod_works_with_the_capabilities_that_were_advised_for_it_and_not_without(
    namespace: str, tmp_path: Path
) -> None:
    node = next(item["metadata"]["name"] for item in listed("nodes"))
    watch = ("advise", "capabilities", "watched", "-n", namespace, "--node", node)
    with ClusterRun(tmp_path, *watch) as run:
        assert ends(namespace, "watched", node, {}) == "Succeeded"
        assert run.stop() == 0
    advice = yaml.safe_load(run.out.read_text())
    (found,) = advice["spec"]["containers"]
    assert found["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert "CHOWN" in found["securityContext"]["capabilities"]["add"]
    assert "start was not seen" not in run.out.read_text()

    assert ends(namespace, "advised", node, found["securityContext"]) == "Succeeded"
    assert ends(namespace, "without", node, {"capabilities": {"drop": ["ALL"]}}) == "Failed"


def test_a_container_that_ran_before_is_reported(namespace: str, tmp_path: Path) -> None:
    node = next(item["metadata"]["name"] for item in listed("nodes"))
    run_pods(namespace, pod("old", container("sleep 1000"), nodeName=node))
    kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/old", "--timeout=100s")
    with ClusterRun(tmp_path, "advise", "filesystem", "old", "-n", namespace) as run:
        assert run.stop() == 0
    assert "Its start was not seen" in run.out.read_text()
    assert f"{namespace}/pod/old/main" in run.said()
