"""Whole runs: on this machine with real BPF, and against a double of a cluster."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.fake_cluster.store import now
from tests.gadget_run import GADGET

ILL = """
import os, signal, socket, subprocess, sys, time
end = time.monotonic() + 90
while time.monotonic() < end:
    try: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)
    except OSError: pass
    subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"])
    time.sleep(0.2)
"""


def closed_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def everything(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield findings and what they explain: another process of the machine may have the cause of a crash."""
    for each in found:
        yield each
        yield from everything(each["explains"])


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
def test_causes_on_this_machine_are_found_with_their_evidence() -> None:
    port = closed_port()
    run = [*GADGET, "diagnose", "--local", "--host", "--timeout", "60s", "-o", "json", "--fail-on-finding", "error"]
    with (
        subprocess.Popen([sys.executable, "-c", ILL, str(port)]) as ill,
        subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running,
    ):
        said, wanted = "", (f"at port {port}", "crashes with SIGSEGV")
        assert running.stderr is not None
        for line in running.stderr:  # each is said as soon as it is certain, however busy the machine is
            said += line
            if all(words in said for words in wanted):
                running.send_signal(signal.SIGINT)
                break
        out, rest = running.communicate(timeout=120)
        ill.kill()
    report = json.loads(out)
    refused = next(each for each in report["findings"] if str(port) in each["title"])
    crashed = next((each for each in everything(report["findings"]) if each["rule"] == "crashed"), None)
    assert refused["rule"] == "connection-refused"
    assert {(row["error"], row["remote_port"]) for row in refused["evidence"]} == {("ECONNREFUSED", port)}
    assert crashed is not None, said + rest + out
    assert "SIGSEGV" in crashed["title"]
    assert report["looked_at"]["events"] > 0
    assert report["looked_at"]["seconds"] > 0
    assert running.returncode == 4, said + rest


def waiting(cluster: FakeCluster, name: str, reason: str, message: str) -> None:
    cluster.add_pod(name, "node-1", phase="Pending")

    def change(pod: dict[str, Any]) -> None:
        pod["status"]["containerStatuses"] = [
            {
                "name": "app",
                "ready": False,
                "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }
        ]
        pod["spec"]["containers"] = [{"name": "app", "image": "shop/app:2"}]

    cluster.store.change("pods", "default", name, change)


async def test_pods_that_never_started_are_answered_without_agents(cluster: FakeCluster, tmp_path: Path) -> None:
    waiting(cluster, "web", "ImagePullBackOff", "no such image")
    waiting(cluster, "job", "CreateContainerConfigError", 'configmap "settings" not found')
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    await runner.start("diagnose", "-o", "json")
    code, out, errors = await runner.end(interrupt=False)
    report = json.loads(out)
    assert {each["rule"] for each in report["findings"]} == {"image-not-pulled", "config-missing"}, errors
    assert report["looked_at"]["agents"] is False
    assert code == 0
    assert not cluster.pods("kubectl-gadget"), "no agent was started"


async def test_without_any_agent_the_answer_is_what_the_api_knows(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.add_pod("db", "node-1")
    cluster.faults.waiting |= dict.fromkeys(cluster.nodes, ("ContainerCreating", ""))
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    words = ("diagnose", "-o", "json", "--start-timeout", "1s", "--fail-on-finding", "critical")
    await runner.start(*words)
    code, out, errors = await runner.end(interrupt=False)
    assert (code, out) == (1, ""), errors
    assert "is not running after 1 s: ContainerCreating" in errors

    waiting(cluster, "web", "ImagePullBackOff", "no such image")
    await runner.start(*words)
    code, out, errors = await runner.end(interrupt=False)
    report = json.loads(out)
    assert [each["rule"] for each in report["findings"]] == ["image-not-pulled"], errors
    assert any(each.startswith("nothing was traced") for each in report["not_seen"])
    assert code == 4


async def test_a_workload_without_any_pod_is_answered_from_its_events(cluster: FakeCluster, tmp_path: Path) -> None:
    def refused(workload: str, replicas: int) -> None:
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload, "controller": True, "uid": workload}
        metadata = {"name": f"{workload}-5d4f8c9b7c", "ownerReferences": [owner]}
        spec, status = {"replicas": 1}, {"replicas": replicas}
        cluster.store.add("replicasets", "default", {"metadata": metadata, "spec": spec, "status": status})
        about = {"kind": "ReplicaSet", "namespace": "default", "name": metadata["name"]}
        event = {"metadata": {"name": f"{workload}.1"}, "involvedObject": about, "reason": "FailedCreate"}
        cluster.store.add(
            "events", "default", {**event, "message": "exceeded quota", "type": "Warning", "lastTimestamp": now()}
        )

    refused("web", 0)
    refused("cart", 0)
    refused("mail", 1)  # its pod was created in the end
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    for words, wanted in (((), ["cart", "web"]), (("deploy/web",), ["web"])):
        await runner.start("diagnose", *words, "-o", "json")
        _, out, errors = await runner.end(interrupt=False)
        report = json.loads(out)
        found = sorted((each["rule"], each["about"]) for each in report["findings"])
        assert found == [("pods-not-created", f"default/deploy/{name}") for name in wanted], errors
        assert report["looked_at"]["agents"] is False


LEAK = """
import socket, time
open("/proc/self/comm", "w").write("leaks")  # other tests' sockets are not counted with these
server = socket.create_server(("127.0.0.1", 0))
kept = []
for _ in range(30):
    client = socket.create_connection(server.getsockname()); kept.append(server.accept()[0]); client.close()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
def test_what_grows_is_seen_by_the_snapshots_at_the_start_and_at_the_end() -> None:
    run = [*GADGET, "diagnose", "--local", "--host", "--timeout", "60s", "-o", "json"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert any("press Ctrl-C to stop" in line for line in running.stderr)
        time.sleep(6)  # the first snapshot is taken in the first turn
        with subprocess.Popen([sys.executable, "-c", LEAK], stdout=subprocess.PIPE) as leak:
            assert leak.stdout is not None
            assert leak.stdout.readline() == b"ready\n"
            running.send_signal(signal.SIGINT)
            out, _ = running.communicate(timeout=120)
            leak.kill()
    titles = [each["title"] for each in json.loads(out)["findings"] if each["rule"] == "connections-leak"]
    assert any("leaks of" in title and "30 wait in CLOSE_WAIT (0 at the start)" in title for title in titles), titles


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
def test_a_recording_gives_the_same_findings(tmp_path: Path) -> None:
    port, file = closed_port(), str(tmp_path / "a.kgr")

    def found(*words: str) -> dict[str, int]:
        done = subprocess.run([*GADGET, *words, "-o", "json"], check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return {each["id"]: each["count"] for each in json.loads(done.stdout)["findings"] if str(port) in each["title"]}

    with subprocess.Popen([sys.executable, "-c", ILL, str(port)]) as ill:
        live = found("diagnose", "--local", "--host", "--timeout", "8s", "--record", file)
        ill.kill()
    assert live
    assert found("replay", file, "diagnose") == live
    assert found("replay", file) == live


def crashed(cluster: FakeCluster, runs: bool) -> None:
    """Add a pod whose container ended with an error, and whether it runs again."""
    cluster.add_pod("web", "node-1")

    def change(pod: dict[str, Any]) -> None:
        ended = {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now(), "containerID": "cri://old"}
        waits = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1m20s restarting"}}
        state = {"restartCount": 5 - 4 * runs, "lastState": {"terminated": ended}}
        pod["status"]["containerStatuses"][0] |= state | ({} if runs else {"state": waits})

    cluster.store.change("pods", "default", "web", change)
    for container in ("app", "main"):
        log = "ModuleNotFoundError: No module named 'flask'\n"
        cluster.store.logs["default", "web", container, True] = log


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
@pytest.mark.parametrize(
    ("fault", "aside"),
    [
        ({}, ""),
        ({"failing_logs": 1}, ""),
        ({"failing_logs": 100}, "the log of default/web, container main: "),
        ({"forbidden": {("get", "pods/log")}}, "logs of ended containers: you may not get pods/log"),
    ],
)
async def test_logs_that_cannot_be_read_are_said_and_all_else_is_the_answer(
    cluster: FakeCluster, tmp_path: Path, fault: dict[str, Any], aside: str
) -> None:
    crashed(cluster, runs=True)
    for name, value in fault.items():
        setattr(cluster.faults, name, value)
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    await runner.start("diagnose", "-o", "json", "--timeout", "2s", "--fail-on-finding", "critical")
    code, out, errors = await runner.end(interrupt=False)
    report = json.loads(out)
    assert ("module-missing" in {each["rule"] for each in report["findings"]}) == (not aside), errors
    assert [each.startswith(aside) for each in report["not_looked_at"]] == [True] * bool(aside), report
    assert not any("log" in why for why in report["not_seen"]), report["not_seen"]
    assert (report["not_seen"], code) == ([], 0)


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
async def test_a_replay_finds_what_the_run_of_a_cluster_found(cluster: FakeCluster, tmp_path: Path) -> None:
    crashed(cluster, runs=True)
    waiting(cluster, "cart", "ImagePullBackOff", "no such image")
    cluster.faults.forbidden.add(("list", "networkpolicies"))
    runner, file = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig")), str(tmp_path / "a.kgr")

    def told(out: str) -> dict[str, Any]:
        report = json.loads(out)
        told = {each: report[each] for each in ("not_seen", "not_looked_at")}
        return told | {"findings": {each["id"]: each["title"] for each in everything(report["findings"])}}

    await runner.start("diagnose", "--timeout", "2s", "--record", file, "-o", "json")
    code, out, errors = await runner.end(interrupt=False)
    assert code == 0, errors
    live = told(out)
    assert len(live["findings"]) >= 2
    assert any("networkpolicies" in why for why in live["not_seen"])
    words = [*GADGET, "replay", file, "diagnose", "-o", "json"]
    again = await asyncio.to_thread(subprocess.run, words, check=True, capture_output=True, text=True, timeout=120)
    assert told(again.stdout) == live


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
async def test_a_start_that_is_after_the_end_of_the_run_is_said_at_once(cluster: FakeCluster, tmp_path: Path) -> None:
    crashed(cluster, runs=False)
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    await runner.start("diagnose", "--timeout", "2s", "--fail-on-finding", "critical")
    await runner.until_said(
        "the next start of default/web, in about", "is not waited for: --timeout 2s ends this before"
    )
    code, out, _ = await runner.end(interrupt=False)
    assert "the next start of default/web" in out
    assert code == 5


@pytest.mark.bpf
@pytest.mark.usefixtures("catalogue_built")
async def test_it_waits_for_the_next_start_of_a_pod_that_crashes_and_ctrl_c_gives_what_is_known(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.add_pod("web", "node-1")

    def change(pod: dict[str, Any]) -> None:
        ended = {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now()}
        pod["status"]["containerStatuses"][0] |= {
            "restartCount": 5,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1m20s restarting"}},
            "lastState": {"terminated": ended},
        }

    cluster.store.change("pods", "default", "web", change)
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    await runner.start("diagnose", "-o", "json", "--fail-on-finding", "critical")
    await runner.until_said("waiting for the next start of default/web, in about", "Ctrl-C gives what is known")
    code, out, errors = await runner.end()
    report = json.loads(out)
    assert "crash-loop" in {each["rule"] for each in report["findings"]}, errors
    assert any("the next start of default/web" in why for why in report["not_seen"]), report["not_seen"]
    assert code == 5
