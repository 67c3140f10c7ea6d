"""An export that is installed in a real cluster (pytest --cluster).

$KUBECTL_GADGET_TEST_CLIENT is an image with kubectl-gadget[export], $KUBECTL_GADGET_TEST_PYTHON one with Python.
"""

import json
import os
from typing import Any

import pytest

from tests.real_cluster.real_cluster import AGENT_FLAGS, AGENTS, gadget, kubectl, listed, run_pods
from tests.waiting import wait_until

CLIENT = os.environ.get("KUBECTL_GADGET_TEST_CLIENT", "")
PYTHON = os.environ.get("KUBECTL_GADGET_TEST_PYTHON", "python:3.13-slim")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not CLIENT, reason="$KUBECTL_GADGET_TEST_CLIENT names no image with the client"),
]
LISTEN = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            sys.stdout.write(line.decode())
            sys.stdout.flush()
socketserver.ThreadingTCPServer(("", 9000), Handler).serve_forever()
"""


def pod(name: str, *command: str) -> dict[str, Any]:
    container = {"name": "main", "image": PYTHON, "imagePullPolicy": "IfNotPresent", "command": list(command)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def address(namespace: str) -> str:
    """Return the address of the pod that stores what it gets; empty: it has none yet."""
    pods = {one["metadata"]["name"]: one for one in listed("pods", "-n", namespace)}
    return str(pods["store"]["status"].get("podIP", ""))


def test_what_pods_do_arrives_also_after_the_pod_was_evicted(namespace: str) -> None:
    run_pods(namespace, pod("store", "python3", "-c", LISTEN), pod("busy", "sh", "-c", "while :; do ls; sleep 1; done"))
    wait_until(lambda: address(namespace))
    assert gadget("deploy", "--contained", *AGENT_FLAGS).returncode == 0
    try:
        words = (
            "--to",
            f"jsonl=tcp://{address(namespace)}:9000",
            "--image",
            CLIENT,
            "--image-pull-policy",
            "IfNotPresent",
        )
        done = gadget("export", "install", "exec", "--name", "test", *words)
        assert done.returncode == 0, done.stderr

        def arrived() -> int:
            lines = kubectl("logs", "-n", namespace, "store").splitlines()
            return sum(json.loads(line).get("pod") == "busy" for line in lines)

        wait_until(lambda: arrived() > 3)
        kubectl("delete", "pod", "-n", AGENTS, "-l", "kubectl-gadget/export=test")
        before = arrived()
        wait_until(lambda: arrived() > before + 3)

        def status() -> dict[str, Any]:
            (found,) = json.loads(gadget("export", "status", "-o", "json").stdout)
            return dict(found)

        # Its rows arrive before the probe has asked it.
        wait_until(lambda: status()["is_ready"])
        assert (status()["name"], status()["problem"]) == ("test", "")
        done = gadget("export", "uninstall", "test")
        assert done.returncode == 0, done.stderr
        assert not listed("clusterrolebindings", "-l", "kubectl-gadget/export=test")
    finally:
        assert gadget("undeploy", "--force").returncode == 0
