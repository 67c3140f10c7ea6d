"""Whole runs of the command line against a double of a cluster whose nodes run the real agent with real BPF.

Both nodes are this machine, so each reports what the pods here do.
"""

import asyncio
import io
import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.advise.advise_run import AdviceOrder, add_recordings
from kubectl_gadget.advise.networkpolicy import KIND, RECIPE
from kubectl_gadget.advise.uses import SeenUses
from kubectl_gadget.demo.pods import DemoPod, DemoPods
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.run.run_options import GadgetRun, Replay, RunOptions
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Outcome, Runner
from tests.waiting import until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
OPENS = 7
FILE = f"/tmp/{uuid.uuid4().hex}"
"""of this test run, since other containers on this machine open files too"""
SLEEP = ["/bin/sleep", str(100_000 + os.getpid())]
LOOP = f"i=0; while [ $i -lt {OPENS} ]; do : >{FILE}; i=$((i+1)); done"


@pytest.fixture
def runner(cluster: FakeCluster, tmp_path: Path) -> Runner:
    return Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))


async def open_files(pods: DemoPods, name: str = "xwing") -> None:
    """A pod whose only container opens a known path, a prime number of times, and ends."""
    await asyncio.to_thread(pods.run_short, "default", name, ["/bin/sh", "-c", LOOP], "spaceship")


def opens(outcome: Outcome, node: str | None = None) -> list[dict[str, Any]]:
    return [row for row in outcome.rows if row.get("path") == FILE and node in (None, row["node"])]


TRACE = ("trace", "open", "-A", "-o", "json", "--path", FILE)


@pytest.mark.parametrize("subprotocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_every_open_is_reported_by_every_node_with_its_names(
    cluster: FakeCluster, runner: Runner, pods: DemoPods, subprotocol: str
) -> None:
    cluster.faults.subprotocols = (subprotocol,)
    cluster.faults.piece = 13
    await runner.start(*TRACE)
    await runner.until_said("on 2/2 nodes")
    await open_files(pods)
    outcome = await runner.finish()
    assert outcome.code == 128 + signal.SIGINT
    for node in cluster.nodes:
        assert len(opens(outcome, node)) == OPENS
    assert {(row["namespace"], row["pod"], row["container"]) for row in opens(outcome)} == {
        ("default", "xwing", "spaceship")
    }
    assert "lost: 0" in outcome.errors
    assert [row["timestamp"] for row in outcome.rows] == sorted(row["timestamp"] for row in outcome.rows)
    assert not cluster.pods("kubectl-gadget")


async def test_one_node_that_refuses_exec_does_not_end_the_run(
    cluster: FakeCluster, runner: Runner, pods: DemoPods
) -> None:
    cluster.faults.refused_exec["node-2"] = 500
    await runner.start(*TRACE)
    await runner.until_said("on 1/2 nodes")
    await open_files(pods)
    outcome = await runner.finish()
    assert len(opens(outcome)) == OPENS
    assert "failed: node-2" in outcome.errors


async def test_a_policys_hooks_are_asked_of_every_node(cluster: FakeCluster, runner: Runner) -> None:
    await runner.start("policy", "check", "--policy", "shell-in-container", "--all-nodes", "-o", "json")
    code, output, errors = await runner.end(interrupt=False)
    (report,) = json.loads(output)
    judged = report["hooks"][0]["nodes"]
    assert [node["node"] for node in judged] == sorted(cluster.nodes)
    assert code == any(node["works"] is False for node in judged), errors
    assert not cluster.pods("kubectl-gadget")


async def test_a_failed_node_makes_the_exit_code_1_when_the_time_is_over(cluster: FakeCluster, runner: Runner) -> None:
    cluster.faults.refused_exec["node-2"] = 500
    await runner.start(*TRACE, "--timeout", "1s")
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 1
    assert "failed: node-2" in outcome.errors


async def test_a_cut_stream_is_opened_again_and_the_gap_is_reported(
    cluster: FakeCluster, runner: Runner, pods: DemoPods
) -> None:
    await runner.start(*TRACE)
    await runner.until_said("on 2/2 nodes")
    cluster.faults.cut_after["node-1"] = 0
    await runner.until_said("node-1: connection lost", "node-1: reconnected")
    await open_files(pods)
    outcome = await runner.finish()
    assert len(opens(outcome, "node-1")) == OPENS
    assert "node-1: the connection was lost once" in outcome.errors
    (gap,) = [row for row in outcome.rows if "gap_seconds" in row]
    assert gap["node"] == "node-1"


async def test_forbidden_says_all_that_is_missing_and_creates_nothing(cluster: FakeCluster, runner: Runner) -> None:
    cluster.faults.forbidden = {("create", "pods/exec"), ("create", "pods")}
    await runner.start(*TRACE)
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 1
    assert outcome.errors.count("kubectl auth can-i create pods -n kubectl-gadget") == 1
    assert outcome.errors.count("kubectl auth can-i create pods --subresource=exec -n kubectl-gadget") == 1
    assert not cluster.pods("kubectl-gadget")


async def test_a_slow_connection_delays_and_loses_nothing(cluster: FakeCluster, runner: Runner, pods: DemoPods) -> None:
    cluster.faults.piece = 500
    cluster.faults.slow = 0.02
    await runner.start(*TRACE, "--max-events", str(2 * OPENS))
    await runner.until_said("on 2/2 nodes")
    await open_files(pods)
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 0
    assert len(opens(outcome)) == 2 * OPENS


async def test_expect_that_is_not_met_exits_with_4(runner: Runner) -> None:
    await runner.start(*TRACE, "--expect", 'comm == "nobody"', "--timeout", "1s")
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 4
    assert "--expect: no row matched" in outcome.errors


async def test_fail_on_ends_the_run_at_the_row_that_matches(runner: Runner, pods: DemoPods) -> None:
    await runner.start(*TRACE, "--fail-on", 'pod == "xwing"')
    await runner.until_said("on 2/2 nodes")
    await open_files(pods)
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 4
    assert outcome.rows[-1]["pod"] == "xwing"
    assert len(opens(outcome)) == 1


async def test_a_label_selector_shows_only_pods_that_match(
    cluster: FakeCluster, runner: Runner, pods: DemoPods
) -> None:
    script = f"while [ ! -e /tmp/go ]; do sleep 0.1; done; {LOOP}; sleep 1000"
    started: dict[str, DemoPod] = {}
    for name in ("xwing", "tiefighter"):
        pod = await asyncio.to_thread(pods.start_pod, "default", name, {"spaceship": ["/bin/sh", "-c", script]})
        metadata = {"name": name, "uid": pod.uid, "labels": {"app": name}}
        spec = {"nodeName": "node-1", "containers": [{"name": "spaceship", "image": "busybox"}]}
        cluster.store.add("pods", "default", {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})
        started[name] = pod
    await runner.start("trace", "open", "-l", "app=xwing", "-o", "json", "--path", FILE, "--max-events", str(OPENS))
    await runner.until_said("on 1/1 nodes")
    for name in ("tiefighter", "xwing"):
        (Path(f"/proc/{started[name].containers['spaceship'].pid}/root/tmp") / "go").touch()
    outcome = await runner.finish(interrupt=False)
    assert [row["pod"] for row in outcome.rows] == ["xwing"] * OPENS


async def test_a_snapshot_ends_by_itself_when_all_nodes_have_answered(
    cluster: FakeCluster, runner: Runner, pods: DemoPods
) -> None:
    await asyncio.to_thread(pods.start_pod, "default", "xwing", {"spaceship": SLEEP})
    await runner.start("snapshot", "process", "-A", "-o", "json", "--filter", 'pod == "xwing"')
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 0
    found = [row for row in outcome.rows if row["args"] == SLEEP]
    assert sorted(row["node"] for row in found) == sorted(cluster.nodes)
    assert {row["container"] for row in found} == {"spaceship"}


async def test_a_snapshot_names_the_node_that_does_not_answer_and_shows_the_rest(
    cluster: FakeCluster, runner: Runner
) -> None:
    cluster.faults.refused_exec["node-2"] = 500
    await runner.start("snapshot", "process", "-A", "--host", "-o", "json")
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 1
    assert {row["node"] for row in outcome.rows} == {"node-1"}
    assert "failed: node-2" in outcome.errors


async def test_sums_over_nodes_are_exact(cluster: FakeCluster, runner: Runner, pods: DemoPods) -> None:
    write = f"i=0; while [ $i -lt {OPENS} ]; do echo 1234 >>{FILE}; i=$((i+1)); done"
    await runner.start("top", "file", "-A", "-o", "json", "--by", "pod,path", "--interval", "300ms")
    await runner.until_said("on 2/2 nodes")
    await asyncio.to_thread(pods.run_short, "default", "xwing", ["/bin/sh", "-c", write], "spaceship")
    outcome = await runner.finish()
    rows = [row for row in outcome.rows if row["path"] == FILE]
    # Both nodes are this machine, so each counts all.
    assert sum(row["writes"] for row in rows) == len(cluster.nodes) * OPENS
    assert sum(row["written_bytes"] for row in rows) == len(cluster.nodes) * OPENS * 5
    assert {row["pod"] for row in rows} == {"xwing"}


async def test_advice_joins_replicas_of_both_nodes_and_names_their_workload(
    cluster: FakeCluster, runner: Runner, pods: DemoPods
) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9f", "uid": "u", "controller": True}
    calls = {"web-7d9f-a": "mkdir /tmp/folder", "web-7d9f-b": "chmod 700 /tmp"}
    folders = []
    for name, deed in calls.items():
        script = f"while [ ! -e /tmp/go ]; do sleep 0.1; done; {deed}; touch /tmp/done; sleep 100003"
        pod = await asyncio.to_thread(pods.start_pod, "default", name, {"main": ["/bin/sh", "-c", script]})
        folders.append(Path(f"/proc/{pod.containers['main'].pid}/root/tmp"))
        labels = {"app": "web", "pod-template-hash": "7d9f"}
        metadata = {"name": name, "uid": pod.uid, "labels": labels, "ownerReferences": [owner]}
        spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "busybox"}]}
        cluster.store.add("pods", "default", {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})
    await runner.start("advise", "seccomp", "-l", "app=web", "--format", "SeccompProfile", "-o", "json")
    await runner.until_said("on 1/1 nodes")
    for folder in folders:
        (folder / "go").touch()
    for folder in folders:
        await until((folder / "done").exists)
    code, output, errors = await runner.end()
    assert code == 0, errors
    profile = json.loads(output)
    assert profile["metadata"] == {"name": "web-main", "namespace": "default"}
    assert {"mkdir", "chmod"} <= set(profile["spec"]["syscalls"][0]["names"])
    assert "too short to be complete" in errors


async def test_a_recording_of_flows_has_the_clusters_services_nodes_and_namespaces(
    cluster: FakeCluster, runner: Runner, tmp_path: Path
) -> None:
    cluster.add_namespace("shop", {"team": "x"})
    spec = {"clusterIP": "10.96.0.1", "ports": [{"port": 443, "targetPort": 6443}]}
    cluster.store.add("services", "shop", {"metadata": {"name": "api"}, "spec": spec})
    labels = {"kubernetes.io/service-name": "api"}
    ends = {"endpoints": [{"addresses": ["192.0.2.9"]}], "ports": [{"port": 6443}]}
    cluster.store.add("endpointslices", "shop", {"metadata": {"name": "api-x", "labels": labels}, **ends})
    cluster.add_pod("web", "node-1", namespace="shop", labels={"app": "web"})
    path = tmp_path / "flows.kgr"
    await runner.start("advise", "networkpolicy", "-n", "shop", "--record", str(path), "--timeout", "1s")
    code, output, errors = await runner.end(interrupt=False)
    assert (code, output) == (1, "")
    assert "nothing was observed in the selected containers" in errors
    recording = SeenUses(KIND)
    runs = (GadgetRun(load_gadget("top_flow")),)
    options = RunOptions(runs, replay=Replay((path,)), local=True)
    add_recordings(options, AdviceOrder(recording, RECIPE.uses_of, whole_cluster=True), io.StringIO())
    found = recording.inventory
    assert found.services[0].backends == (("192.0.2.9", "TCP", 6443),)
    assert found.services[0].addresses == ("10.96.0.1",)
    assert set(found.namespaces) == {"shop"}, "only what was selected"
    assert {pod.name for pod in found.pods} >= {"web"}
    assert {node.name for node in found.nodes} == set(cluster.nodes)
    assert recording.runs[0].nodes == ("node-1",)
