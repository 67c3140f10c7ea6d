"""What breaks on a real cluster while a run goes on: what is said, what goes on, and that nothing remains.

Here is what kubectl alone can break; docs/reliability.md tells what was done to nodes by hand. Other work on the nodes
loads BPF, too, so what an agent held is known by its ids, and only where the nodes are this machine.
"""

import json
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agents.manifests import second_namespace
from tests.real_cluster.real_cluster import (
    AGENT_FLAGS,
    AGENTS,
    ClusterRun,
    container,
    gadget,
    kubectl,
    leftovers,
    listed,
    pod,
    run_pod,
    run_pods,
    until_ready,
)
from tests.reliability.held import Held, held_by, until_freed, until_gone
from tests.reliability.test_churn import expected, script, seen
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.cluster
BEAT = "while :; do : </etc/passwd; sleep 0.2; done"
"""Opens a file again and again, so that a run has something to show."""


def nodes() -> list[str]:
    """Those that take pods."""
    return [node["metadata"]["name"] for node in listed("nodes") if not node["spec"].get("unschedulable")]


@pytest.fixture
def two_nodes() -> tuple[str, str]:
    found = nodes()
    if len(found) < 2:
        pytest.skip("the cluster has one node, and this is about what the others do")
    return found[0], found[1]


def agent_pods(node: str | None = None) -> list[dict[str, Any]]:
    """All of ours, resident or not."""
    label = "app.kubernetes.io/name=kubectl-gadget"
    pods = [
        found
        for namespace in (AGENTS, second_namespace(AGENTS))
        for found in listed("pods", "-n", namespace, "-l", label)
    ]
    return [found for found in pods if node in (None, found["spec"]["nodeName"])]


def agents_here() -> dict[int, Held]:
    """The sessions of our pods that are processes of this machine, and what they hold in the kernel."""
    uids = {found["metadata"]["uid"] for found in agent_pods()}
    found: dict[int, Held] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, cgroup = (path / "cmdline").read_bytes(), (path / "cgroup").read_text()
            if b"\0session\0" in command and any(uid in cgroup for uid in uids):
                found[int(path.name)] = held_by(int(path.name))
        except OSError:
            continue  # it has ended, or is not ours to look at
    return found


@contextmanager
def nothing_remains(resident: bool = False) -> Iterator[None]:
    """Of the sessions that run when the block is entered: no process, nothing in the kernel; and nothing in the
    cluster, unless agents are resident."""
    sessions = agents_here()
    yield
    for pid, held in sessions.items():
        until_gone(pid)
        until_freed(held)
    if not resident:
        wait_until(lambda: not leftovers())


def seen_of(run: ClusterRun, name: str) -> int:
    """How many rows of one pod there are so far."""
    return sum(row.get("pod") == name for row in run.rows())


def until_more(run: ClusterRun, name: str) -> None:
    before = seen_of(run, name)
    wait_until(lambda: seen_of(run, name) > before)


@pytest.fixture
def beats(namespace: str, two_nodes: tuple[str, str]) -> tuple[str, str]:
    """A pod on each of two nodes, and the nodes."""
    run_pods(namespace, *(pod(f"on-{node}", container(BEAT), nodeName=node) for node in two_nodes))
    until_ready(namespace, *(f"on-{node}" for node in two_nodes))
    return two_nodes


def delete_an_agent(run: ClusterRun, broken: str, well: str) -> None:
    """While the run goes on; until both nodes' rows come again."""
    for node in (broken, well):
        until_more(run, f"on-{node}")
    for found in agent_pods(broken):
        kubectl("delete", "pod", "-n", found["metadata"]["namespace"], found["metadata"]["name"], "--wait=false")
    run.until_said(f"{broken}: connection lost")
    until_more(run, f"on-{well}")
    run.until_said(f"{broken}: reconnected;")
    for node in (broken, well):
        until_more(run, f"on-{node}")


@pytest.mark.usefixtures("deployed")
def test_a_deleted_resident_agent_is_waited_for_and_the_gap_is_reported(
    namespace: str, beats: tuple[str, str], tmp_path: Path
) -> None:
    with ClusterRun(tmp_path, "trace", "open", "-n", namespace, "-o", "json") as run, nothing_remains(resident=True):
        delete_an_agent(run, *beats)
        assert {found["metadata"]["labels"]["app.kubernetes.io/component"] for found in agent_pods()} == {"agent"}
        assert run.stop() == 130
    assert f"{beats[0]}: the connection was lost once" in run.said()


def test_a_deleted_agent_on_demand_is_started_again_and_the_gap_is_reported(
    namespace: str, beats: tuple[str, str], tmp_path: Path
) -> None:
    with ClusterRun(tmp_path, "trace", "open", "-n", namespace, "-o", "json") as run, nothing_remains():
        delete_an_agent(run, *beats)
        assert run.stop() == 130
    assert f"{beats[0]}: the connection was lost once" in run.said()


def test_a_node_that_gets_a_pod_later_is_traced_from_then_on(
    namespace: str, two_nodes: tuple[str, str], tmp_path: Path
) -> None:
    first, second = two_nodes
    run_pod(namespace, "first", BEAT, nodeName=first)
    until_ready(namespace, "first")
    with ClusterRun(tmp_path, "trace", "open", "-n", namespace, "-o", "json") as run:
        assert "on 1/1 nodes" in run.said()
        run_pod(namespace, "second", BEAT, nodeName=second)
        for name in ("first", "second"):
            wait_until(lambda name=name: seen_of(run, name))
        with nothing_remains():
            assert run.stop() == 130


def test_nothing_remains_of_a_killed_client(tmp_path: Path) -> None:
    with ClusterRun(tmp_path, "trace", "open", "-A") as run, nothing_remains():
        assert agent_pods()
        run.process.kill()


def test_a_killed_client_takes_nothing_from_another_run(namespace: str, beats: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with ClusterRun(folder, "trace", "open", "-n", namespace, "-o", "json") as other, nothing_remains():
        with ClusterRun(tmp_path, "trace", "open", "-A") as run:
            pods = len(agent_pods())
            run.process.kill()
        wait_until(lambda: len(agent_pods()) < pods)
        for node in beats:
            until_more(other, f"on-{node}")
        assert other.stop() == 130
    assert "connection lost" not in other.said()


def test_a_closed_terminal_ends_the_run_and_takes_its_pods_along(tmp_path: Path) -> None:
    with ClusterRun(tmp_path, "trace", "open", "-A") as run, nothing_remains():
        assert run.stop(signal.SIGHUP) == 129


def test_a_full_disk_ends_the_run_and_takes_its_pods_along(namespace: str, tmp_path: Path) -> None:
    run_pod(namespace, "beat", BEAT)
    until_ready(namespace, "beat")
    with Path("/dev/full").open("wb") as full:
        run = ClusterRun(tmp_path, "trace", "open", "-n", namespace, stdout=full)
        assert run.process.wait(PATIENCE) == 1
    assert "the output cannot be written: No space left on device" in run.said()
    wait_until(lambda: not leftovers())


def test_a_reader_that_has_enough_ends_the_run_in_silence(namespace: str, tmp_path: Path) -> None:
    run_pod(namespace, "beat", BEAT)
    until_ready(namespace, "beat")
    with ClusterRun(tmp_path, "trace", "open", "-n", namespace, "-o", "json", stdout=subprocess.PIPE) as run:
        assert run.process.stdout
        assert json.loads(run.process.stdout.readline())["pod"] == "beat"
        run.process.stdout.close()
        assert run.process.wait(PATIENCE) == 0
    assert "error" not in run.said().lower()
    wait_until(lambda: not leftovers())


@pytest.mark.usefixtures("deployed")
def test_many_sessions_at_once_on_one_node_each_see_everything(namespace: str, tmp_path: Path, is_long: bool) -> None:
    opens, node = 97, nodes()[0]
    waits = f"until [ -e /tmp/go ]; do sleep 0.2; done; for i in $(seq {opens}); do : </etc/passwd; done; sleep 1000"
    run_pod(namespace, "opener", waits, nodeName=node)
    until_ready(namespace, "opener")
    runs = []
    with ExitStack() as stack:
        for number in range(50 if is_long else 6):
            folder = tmp_path / str(number)
            folder.mkdir()
            words = ("trace", "open", "-n", namespace, "--path", "/etc/passwd", "-o", "json")
            runs.append(ClusterRun(folder, *words))
        for run in runs:
            stack.enter_context(run)
        with nothing_remains(resident=True):
            kubectl("exec", "-n", namespace, "opener", "--", "touch", "/tmp/go")
            for run in runs:
                wait_until(lambda run=run: len(run.rows()) >= opens)
                assert run.stop() == 130
    for run in runs:
        # runc opens it, too, for kubectl exec
        assert [row["pod"] for row in run.rows() if row["comm"] == "sh"] == ["opener"] * opens
        assert "; lost: 0" in run.said()


def test_deploying_and_undeploying_again_and_again_leaves_nothing(is_long: bool) -> None:
    for _ in range(20 if is_long else 3):
        for words in (("deploy", *AGENT_FLAGS), ("undeploy",)):
            result = gadget(*words)
            assert result.returncode == 0, result.stderr
        assert leftovers() == ""


def test_everything_that_short_pods_do_is_there_with_their_names(namespace: str, tmp_path: Path) -> None:
    mark, pods = uuid.uuid4().hex, 40
    run_pod(namespace, "waits", "sleep 1000")  # so that a node is traced from the start
    until_ready(namespace, "waits")
    with ClusterRun(tmp_path, "trace", "exec+open", "-A", "-o", "json") as run, nothing_remains():
        work = script(mark)
        run_pods(
            namespace,
            *(pod(f"short-{number}", container(work)) for number in range(pods)),
            *(pod(f"host-{number}", container(work), hostNetwork=True) for number in range(2)),
            *(pod(f"two-{number}", container(work, "left"), container(work, "right")) for number in range(2)),
        )

        def over() -> bool:
            phases = {found["metadata"]["name"]: found["status"]["phase"] for found in listed("pods", "-n", namespace)}
            return all(phase == "Succeeded" for name, phase in phases.items() if name != "waits")

        wait_until(over, seconds=400)
        assert run.stop() == 130
    names = [(f"short-{number}", "main") for number in range(pods)]
    names += [(f"host-{number}", "main") for number in range(2)]
    names += [(f"two-{number}", name) for number in range(2) for name in ("left", "right")]
    assert "; lost: 0" in run.said()
    assert seen(run, mark) == {(namespace, pod, name): expected(mark) for pod, name in names}
