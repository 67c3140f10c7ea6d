"""The cluster in $KUBECONFIG, for tests that are marked `cluster`: pods in it, runs on it, and what is left there.

$KUBECTL_GADGET_TEST_IMAGE is the agent's image (default: the released one), $KUBECTL_GADGET_TEST_BUSYBOX one with a
shell and the applets of busybox. The cluster may be used by others at the same time, so only what a test made itself is
counted.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kubectl_gadget.agents.manifests import EXPIRY
from kubectl_gadget.agents.payload import OUR_IMAGE
from kubectl_gadget.agents.shared_namespace import expires
from tests.gadget_run import GADGET, PROJECT, GadgetRun

IMAGE = os.environ.get("KUBECTL_GADGET_TEST_IMAGE", OUR_IMAGE)
BUSYBOX = os.environ.get("KUBECTL_GADGET_TEST_BUSYBOX", "busybox:1")
AGENT_FLAGS = ("--image", IMAGE, "--image-pull-policy", "IfNotPresent")
AGENTS = "kubectl-gadget"
"""Their namespace."""


class ClusterRun(GadgetRun):
    """A run on the cluster."""

    def __init__(self, folder: Path, *words: str, command: Sequence[str] = (), **keywords: Any) -> None:
        """`command`: what stands after `--`."""
        super().__init__(folder, *words, *AGENT_FLAGS, *(("--", *command) if command else ()), **keywords)


def kubectl(*words: str, text: str | None = None) -> str:
    result = subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def listed(*words: str) -> list[dict[str, Any]]:
    """The objects of `kubectl get WORDS`."""
    items: list[dict[str, Any]] = json.loads(kubectl("get", *words, "-o", "json"))["items"]
    return items


def gadget(*words: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A run that ends by itself."""
    return subprocess.run(
        [*GADGET, *words],
        cwd=PROJECT,
        env=os.environ | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def leftovers() -> str:
    """All that we ever make in a cluster, in one text, without namespaces of runs that expire by themselves."""
    label = "app.kubernetes.io/name=kubectl-gadget"
    kinds = "all,roles,rolebindings,clusterroles,clusterrolebindings"
    found = listed(kinds, "-A", "-l", label)
    expiring = {one["metadata"]["name"] for one in listed("namespaces", "-l", label) if expires(one)}
    names = [
        f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
        for one in [*found, *listed("namespaces", "-l", label)]
        if one["metadata"]["name"] not in (EXPIRY, *expiring)
    ]
    return "\n".join(names)


def really_everything() -> str:
    """Like leftovers(), with those namespaces."""
    kinds = "all,roles,rolebindings,clusterroles,clusterrolebindings,namespaces"
    return kubectl("get", kinds, "-A", "-l", "app.kubernetes.io/name=kubectl-gadget", "-o", "name").strip()


def container(script: str, name: str = "main") -> dict[str, Any]:
    return {"name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": list(containers), **spec},
    }


def run_pods(namespace: str, *pods: dict[str, Any]) -> None:
    many = json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
    kubectl("apply", "--validate=false", "-n", namespace, "-f", "-", text=many)


def run_pod(namespace: str, name: str, script: str, **spec: Any) -> None:
    run_pods(namespace, pod(name, container(script), **spec))


def until_ready(namespace: str, *names: str) -> None:
    kubectl("wait", "-n", namespace, "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=100s")
