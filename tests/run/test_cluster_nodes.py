"""What begins on a cluster while the user's input is still being checked."""

import io
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from kubectl_gadget.agents.resident_agents import deploy
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError, GadgetError
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions, Selection
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.run.cluster_nodes import ClusterNodes
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from tests.fake_cluster import FakeCluster
from tests.waiting import until

EXEC = ("create", "pods/exec")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A file for each agent that runs."""
    path = tmp_path / "there"
    path.mkdir()
    return path


@pytest.fixture
async def cluster(there: Path) -> AsyncIterator[FakeCluster]:
    """Whose agents say "up", and end with their input."""
    script = (
        "import os, pathlib, sys; mine = pathlib.Path(sys.argv[1], str(os.getpid())); mine.touch();"
        "sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.read(); mine.unlink()"
    )
    async with FakeCluster(2, (sys.executable, "-c", script, str(there), "session")) as cluster:
        yield cluster


@pytest.fixture
def kube(cluster: FakeCluster, tmp_path: Path) -> KubeOptions:
    return KubeOptions(kubeconfig=str(cluster.write_kubeconfig(tmp_path / "kubeconfig")))


@pytest.fixture
async def deployed(kube: KubeOptions) -> None:
    with closing(Api(load(kube))) as api:
        await deploy(api, AgentOptions(start_timeout=10), lambda _: None)


@pytest.fixture
def nodes(kube: KubeOptions) -> ClusterNodes:
    selection = Selection(all_namespaces=True, host=True)
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), selection=selection, kube=kube)
    return ClusterNodes(options, Progress(io.StringIO()))


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    failures: list[GadgetError] = []
    async with Tasks(failures.append) as tasks:
        yield tasks
    assert not failures


@pytest.mark.usefixtures("deployed")
async def test_sessions_of_resident_agents_begin_ahead_and_are_used(
    cluster: FakeCluster, nodes: ClusterNodes, tasks: Tasks, there: Path
) -> None:
    await nodes.begin(tasks)
    await until(lambda: len(list(there.iterdir())) == 2)
    async with aclosing(nodes.watch(tasks)) as changes:  # type: ignore[type-var]
        change = await anext(changes)
        assert sorted(change.add) == cluster.nodes
        for open_stream in change.add.values():
            stream = await open_stream()
            assert await stream.receive() == b"up\n"
            await stream.close()
    await nodes.close()
    assert cluster.server.requests.count(EXEC) == 2
    await until(lambda: not list(there.iterdir()))


@pytest.mark.usefixtures("deployed")
async def test_sessions_that_were_not_used_end(nodes: ClusterNodes, tasks: Tasks, there: Path) -> None:
    await nodes.begin(tasks)
    await until(lambda: len(list(there.iterdir())) == 2)
    await nodes.close()
    await until(lambda: not list(there.iterdir()))


@pytest.mark.usefixtures("deployed")
async def test_sessions_begin_while_rights_are_checked(
    cluster: FakeCluster, nodes: ClusterNodes, tasks: Tasks, there: Path
) -> None:
    cluster.faults.held_reviews = True
    await nodes.begin(tasks)
    await until(lambda: len(list(there.iterdir())) == 2)
    await nodes.close()
    await until(lambda: not list(there.iterdir()))


@pytest.mark.usefixtures("deployed")
async def test_an_error_ahead_is_that_of_the_session(cluster: FakeCluster, nodes: ClusterNodes, tasks: Tasks) -> None:
    cluster.faults.refused_exec = dict.fromkeys(cluster.nodes, 500)
    await nodes.begin(tasks)
    async with aclosing(nodes.watch(tasks)) as changes:  # type: ignore[type-var]
        change = await anext(changes)
        with pytest.raises(ClusterError, match="error dialing backend: node-1"):
            await change.add["node-1"]()
    await nodes.close()


async def test_nothing_is_created_ahead_where_no_agent_is(
    cluster: FakeCluster, nodes: ClusterNodes, tasks: Tasks
) -> None:
    before = set(cluster.store.objects)
    await nodes.begin(tasks)
    await until(lambda: ("list", "nodes") in cluster.server.requests and ("list", "pods") in cluster.server.requests)
    await nodes.close()
    assert set(cluster.store.objects) == before
    assert not {verb for verb, kind in cluster.server.requests if kind in ("jobs", "namespaces", "pods/exec")} - {"get"}


def test_the_first_request_does_not_wait_for_numpy() -> None:
    program = """
import sys
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.run.cluster_nodes import declared
from kubectl_gadget.run.run_options import GadgetRun, RunOptions

declared(RunOptions((GadgetRun(load_gadget("trace_open")),)), None)
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
