"""What a killed client has made is removed, by a process that outlives it; and only that."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from kubectl_gadget.agents import payload, reaper, shared_namespace
from kubectl_gadget.agents.on_demand import OnDemandAgents
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.requests import Api
from tests.agents.leftovers import left
from tests.fake_cluster import FakeCluster
from tests.waiting import until

NAMESPACE = "kubectl-gadget"
CLIENT = """
import asyncio, pathlib, signal, sys
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.agents import payload
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.agents.on_demand import OnDemandAgents
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions

async def main():
    api = Api(load(KubeOptions(kubeconfig=sys.argv[1])))
    async with Tasks(print) as tasks:
        agents = OnDemandAgents(api, AgentOptions(start_timeout=10), tasks, "killed", lambda _node, _text: None)
        await agents.start("node-1")
        print(agents.reapers["kubectl-gadget"].process.pid, flush=True)
        await asyncio.sleep(1000)

payload.FOLDER = pathlib.Path(sys.argv[2])  # where this process has found the texts of pods, see tests/conftest.py
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
asyncio.run(main())
"""


@asynccontextmanager
async def client(kubeconfig: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """One that has started an agent, in a process group of its own, and the reaper's process number."""
    command = [sys.executable, "-c", CLIENT, str(kubeconfig), str(payload.FOLDER)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        yield process, int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
def kubeconfig(cluster: FakeCluster, tmp_path: Path) -> Path:
    return cluster.write_kubeconfig(tmp_path / "kubeconfig")


def has_ended(pid: int) -> bool:
    """Also when no process has asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def order(cluster: FakeCluster, kubeconfig: Path, server: str | None = None) -> bytes:
    kube = asdict(KubeOptions(kubeconfig=str(kubeconfig)))
    what = {"server": server or cluster.url, "kube": kube, "namespace": NAMESPACE, "run": "killed"}
    return json.dumps(what).encode()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_nothing_remains_of_a_client_that_ends_without_a_word(
    kind: signal.Signals, cluster: FakeCluster, kubeconfig: Path
) -> None:
    before = set(cluster.store.objects)
    async with client(kubeconfig) as (process, pid):
        assert cluster.pods(NAMESPACE)
        process.send_signal(kind)
        await until(lambda: not left(cluster, before))
        await until(lambda: has_ended(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
async def test_what_is_sent_to_all_processes_of_the_user_does_not_end_the_one_that_clears_up(
    cluster: FakeCluster, kubeconfig: Path
) -> None:
    before = set(cluster.store.objects)
    async with client(kubeconfig) as (process, pid):
        ignored = 0
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            ignored |= 1 << (number - 1)

        def ignores() -> bool:
            (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line]
            return int(line.split()[1], 16) & ignored == ignored

        await until(ignores)
        process.kill()
        await until(lambda: not left(cluster, before))


async def test_where_namespaces_cannot_expire_it_stays_as_long_as_another_run_uses_it(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions, kubeconfig: Path
) -> None:
    cluster.faults.no_addresses = True
    other = OnDemandAgents(api, agent_options, tasks, "other", lambda _node, _text: None)
    async with client(kubeconfig) as (process, _):
        await other.start("node-2")
        process.kill()
        await until(lambda: [pod["spec"]["nodeName"] for pod in cluster.pods(NAMESPACE)] == ["node-2"])
    assert cluster.store.get("namespaces", "", NAMESPACE) is not None
    assert await other.close() == []
    await until(lambda: cluster.store.get("namespaces", "", NAMESPACE) is None)


async def test_at_the_end_of_a_run_its_process_ends_without_a_request(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    agents = OnDemandAgents(api, agent_options, tasks, "ended", lambda _node, _text: None)
    await agents.start("node-1")
    assert await agents.close() == []
    requests = len(cluster.server.requests)
    assert await asyncio.to_thread(agents.reapers[NAMESPACE].process.wait, 60) == 0
    assert len(cluster.server.requests) == requests


async def test_what_a_run_could_not_remove_is_tried_on_after_its_end(
    cluster: FakeCluster, api: Api, tasks: Tasks, agent_options: AgentOptions
) -> None:
    before = set(cluster.store.objects)
    agents = OnDemandAgents(api, agent_options, tasks, "ended", lambda _node, _text: None)
    await agents.start("node-1")
    await until(lambda: ("get", "ipaddresses") in cluster.server.requests)
    await asyncio.gather(*(hold.settle() for hold, _ in agents.holds))
    cluster.faults.starting = 1
    assert await agents.close() == [f"job/run-ended and its pods in namespace {NAMESPACE}"]
    await until(lambda: not left(cluster, before))
    await asyncio.to_thread(agents.reapers[NAMESPACE].process.wait, 60)


async def test_an_api_server_that_is_just_starting_is_asked_again(
    cluster: FakeCluster, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_namespace, "WAITS", (0.0, 0.0, 0.0))
    job = {"metadata": {"name": "run-killed"}, "spec": {}}
    cluster.add_namespace(NAMESPACE)
    cluster.store.add("jobs", NAMESPACE, job)
    cluster.faults.starting = 2
    await shared_namespace.remove_as_ordered(order(cluster, kubeconfig))
    assert cluster.store.list("jobs", NAMESPACE) == []


async def test_another_cluster_that_the_kubeconfig_names_by_then_is_left_alone(
    cluster: FakeCluster, kubeconfig: Path
) -> None:
    await shared_namespace.remove_as_ordered(order(cluster, kubeconfig, server="https://before.example:6443"))
    assert cluster.server.requests == []


def test_the_context_of_the_run_is_used_whichever_is_the_current_one_by_then(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    text = """
apiVersion: v1
kind: Config
current-context: {}
contexts: [{{name: one, context: {{cluster: one}}}}, {{name: two, context: {{cluster: two}}}}]
clusters: [{{name: one, cluster: {{server: "http://one"}}}}, {{name: two, cluster: {{server: "http://two"}}}}]
"""
    path.write_text(text.format("one"))
    before = load(KubeOptions(kubeconfig=str(path)))
    path.write_text(text.format("two"))
    assert load(before.options).server == before.server == "http://one"


def test_nothing_is_imported_while_it_waits() -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "importtime", reaper.__file__], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        _, said = process.communicate(b"{}\ndone\n")
    assert process.returncode == 0
    modules = {line.split(b"|")[-1].strip().decode() for line in said.splitlines()}
    assert "signal" in modules
    assert not modules & {"site", "json", "asyncio", "subprocess", "dataclasses", "typing", "kubectl_gadget"}
