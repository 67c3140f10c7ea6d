"""A run on a double of a cluster with two nodes: its replay prints the same bytes, with the cluster's names in them.

The nodes' agents are real. During the run, a connection is cut and a pod's labels change.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.gadget_run import GADGET
from tests.run.test_cluster_runs import LOOP

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: opens}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{index: 1, type: string}]
"""


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(2) as cluster:
        yield cluster


async def replayed(path: Path, *words: str) -> str:
    run = [*GADGET, "replay", str(path), *words]
    done = await asyncio.to_thread(subprocess.run, run, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "cannot be read" not in done.stderr
    assert "--objects" not in done.stderr
    return done.stdout


def start(cluster: FakeCluster, pods: DemoPods) -> Callable[[], Awaitable[object]]:
    """A pod that the cluster knows; returns what runs a container in it."""
    pod = pods.start_pod("default", "xwing", {})
    cluster.add_pod("xwing", "node-1", labels={"app": "web"}, uid=pod.uid)
    return lambda: asyncio.to_thread(pods.add_container, pod, "main", ["/bin/sh", "-c", LOOP], until_end=True)


def labels(output: str) -> list[object]:
    rows = [json.loads(line) for line in output.splitlines()]
    return [row["process_exec"]["process"]["pod"].get("pod_labels") for row in rows if "process_exec" in row]


@pytest.mark.parametrize(
    "words",
    [
        ("observe", "-A", "-o", "json"),
        ("flows", "-A", "-o", "json", "--loopback"),
        ("trace", "open+exec", "-l", "app=web", "-o", "json"),
    ],
    ids=lambda words: words[0],
)
async def test_a_replay_prints_what_the_run_printed(
    cluster: FakeCluster, pods: DemoPods, tmp_path: Path, words: Sequence[str]
) -> None:
    act = start(cluster, pods)
    runner, path = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig")), tmp_path / "run.kgr"
    await runner.start(*words, "--record", str(path))
    await runner.until_said("/1 nodes" if "-l" in words else "on 2/2 nodes")
    await act()
    cluster.faults.cut_after["node-1"] = 0
    await runner.until_said("node-1: reconnected")

    def relabel(pod: dict[str, Any]) -> None:
        pod["metadata"]["labels"] = {"app": "web", "color": "red"}

    cluster.store.change("pods", "default", "xwing", relabel)
    await act()
    _, output, errors = await runner.end()
    assert f"recorded in {path}" in errors
    assert await replayed(path, *[word for word in words if word not in ("-l", "app=web")]) == output
    assert await replayed(path, "-o", "json", *words[words.index("json") + 1 :]) == output
    if words[0] == "observe":
        assert {"app": "web"} in labels(output)


async def test_a_replay_of_six_nodes_of_which_one_reconnects_prints_what_the_run_printed(
    pods: DemoPods, tmp_path: Path
) -> None:
    async with FakeCluster(6) as cluster:
        act = start(cluster, pods)
        runner, path = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig")), tmp_path / "run.kgr"
        await runner.start("trace", "open+exec", "-A", "-o", "json", "--record", str(path))
        await runner.until_said("on 6/6 nodes")
        await act()
        cluster.faults.cut_after["node-4"] = 0
        await runner.until_said("node-4: reconnected")
        await act()
        _, output, _ = await runner.end()
    nodes = {json.loads(line)["node"] for line in output.splitlines()}
    assert len(nodes) == 6
    assert await replayed(path) != ""
    assert await replayed(path, "-o", "json") == output


async def test_a_recording_without_views_has_the_objects_for_all_of_them(
    cluster: FakeCluster, pods: DemoPods, tmp_path: Path
) -> None:
    act = start(cluster, pods)
    runner, path = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig")), tmp_path / "run.kgr"
    await runner.start("trace", "process+open", "-A", "--record", str(path), "-o", "json")
    await runner.until_said("on 2/2 nodes")
    await act()
    await runner.end()
    output = await replayed(path, "observe", "-o", "json")
    assert {"app": "web"} in labels(output)


async def test_a_replay_shows_the_events_of_policies_that_select_by_labels(
    cluster: FakeCluster, pods: DemoPods, tmp_path: Path
) -> None:
    act = start(cluster, pods)
    runner, path = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig")), tmp_path / "run.kgr"
    policies = tmp_path / "policies.yaml"
    policies.write_text(
        "---".join(
            POLICY.replace("opens", name).replace("spec:", f"spec:\n  podSelector: {{matchLabels: {{app: {name}}}}}")
            for name in ("web", "other")
        )
    )
    words = ("-o", "json", "-e", "kprobe")
    await runner.start("observe", "-A", "-f", str(policies), "--record", str(path), *words)
    await runner.until_said("on 2/2 nodes")
    await act()
    _, output, _ = await runner.end()
    events = [json.loads(line)["process_kprobe"] for line in output.splitlines()]
    assert {(event["policy_name"], event["process"]["pod"]["name"]) for event in events} == {("web", "xwing")}
    assert await replayed(path, "observe", "-f", str(policies), *words) == output
