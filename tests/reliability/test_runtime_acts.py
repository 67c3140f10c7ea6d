"""What the container runtime does in a container is not the container's: real runc creates, starts and enters pods."""

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPod, DemoPods
from kubectl_gadget.demo.runc import cgroup2_mount
from tests.conftest import why_no_containers
from tests.reliability.local_run import LocalRun
from tests.reliability.test_hidden_processes import execute
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
GADGETS = "exec+exit+signal+process+open+syscalls"
SCRIPT = "trap 'exit 3' TERM; /bin/true; while :; do sleep 0.1; done"


@pytest.fixture(name="state")
def a_folder() -> Path:
    return Path(f"/run/kubectl-gadget-acts-{os.getpid()}")


@pytest.fixture(name="pods")
def some_pods(state: Path) -> Iterator[DemoPods]:
    with DemoPods(state) as pods:
        yield pods


def of_pod(run: LocalRun) -> list[dict[str, Any]]:
    """Others may run pods on this machine."""
    return [row for row in run.rows() if row["namespace"] == "bad"]


def of_runtime(rows: list[dict[str, Any]]) -> set[str]:
    """Events of processes that still have a name of runc's."""
    return {row["event"] for row in rows if row["comm"].startswith("runc")}


def test_the_runtimes_acts_are_not_the_containers_but_on_request(pods: DemoPods, state: Path, tmp_path: Path) -> None:
    """A pod is created, started and entered while two runs last."""
    words = ("trace", GADGETS, "-n", "bad", "-o", "json")
    folders = [tmp_path / "plain", tmp_path / "asked"]
    for folder in folders:
        folder.mkdir()
    with LocalRun(folders[0], *words) as plain, LocalRun(folders[1], *words, "--runtime") as asked:
        pod = pods.start_pod("bad", "short", {"main": ["/bin/sh", "-c", SCRIPT]})
        main = pod.containers["main"]
        execute(state, main, "/bin/sh", "-c", "printf '#!/bin/missing\\n' >/tmp/script; chmod 755 /tmp/script")
        with pytest.raises(AssertionError, match="no such file"):
            execute(state, main, "/tmp/script")
        asked.stop()
        plain.stop()
    assert of_runtime(of_pod(asked)) >= {"exit", "signal", "process", "syscalls"}
    rows = of_pod(plain)
    # It tried to execute the container's program.
    (failed,) = [row for row in rows if row["comm"].startswith("runc")]
    assert (failed["event"], failed["path"], failed["error"]) == ("exec", "/tmp/script", "ENOENT")
    executed = [row["args"] for row in rows if row["event"] == "exec"]
    assert ["/bin/true"] in executed
    assert any("printf" in args[-1] for args in executed)
    assert not any("memfd" in str(row.get("exe")) for row in rows)


SANDBOX = ("trace", "exec+exit+signal+process", "-n", "bad", "-c", "POD", "-o", "json")


def end_of_sandbox(pod: DemoPod) -> None:
    """Kill it as the runtime does: from a process of the node."""
    process = os.pidfd_open(pod.sandbox.pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], 60)[0]
    finally:
        os.close(process)


def ends(run: LocalRun) -> list[tuple[str, str, int]]:
    """Events about the end of a sandbox's first process: what, by which signal, container_pid."""
    rows = [row for row in of_pod(run) if row["event"] == "exit" or row.get("operation") == "exit"]
    return [(row["event"], row["signal"], row["container_pid"]) for row in rows]


def test_the_end_of_a_sandbox_is_shown_on_request(pods: DemoPods, tmp_path: Path) -> None:
    pod = pods.start_pod("bad", "short", {})
    folders = [tmp_path / "plain", tmp_path / "asked"]
    for folder in folders:
        folder.mkdir()
    with LocalRun(folders[0], *SANDBOX) as plain, LocalRun(folders[1], *SANDBOX, "--runtime") as asked:
        end_of_sandbox(pod)
        asked.stop()
        plain.stop()
    assert sorted(ends(asked)) == [("exit", "SIGKILL", 1), ("process", "SIGKILL", 1)]
    assert "SIGCHLD" in {row["signal"] for row in of_pod(asked) if row["event"] == "signal"}
    assert [row for row in of_pod(plain) if row.get("operation") != "running"] == []


def test_what_enters_a_sandbox_is_shown_with_its_end(pods: DemoPods, state: Path, tmp_path: Path) -> None:
    """A program in its namespaces, and one that is the first process of a PID namespace within."""
    pod = pods.start_pod("bad", "short", {})
    with LocalRun(tmp_path, *SANDBOX) as run:
        execute(state, pod.sandbox, "/bin/sh", "-c", "/bin/unshare -U -p -f /bin/true; exit 0")
        end_of_sandbox(pod)
        run.stop()
    rows = of_pod(run)
    of_true = {row["exec_id"] for row in rows if row.get("operation") == "exec" and row["args"] == ["/bin/true"]}
    (own,) = [row["container_pid"] for row in rows if row.get("exec_id") in of_true and row["operation"] == "exec"]
    assert own == 1
    assert [row["code"] for row in rows if row.get("exec_id") in of_true and row["operation"] == "exit"] == [0]
    shells = [row for row in rows if row["event"] == "exit" and row["comm"] == "sh"]
    assert [row["code"] for row in shells] == [0]


# What a container may try, to be taken for the runtime. A shell's subshell is forked, and has executed nothing.

MOVES = """
mkdir -p {home}/one {home}/two
for turn in 1 2 3; do
    for place in one two; do
        (read own </proc/self/stat; echo ${{own%% *}} >{home}/$place/cgroup.procs; read x </etc/hosts)
        (read x </etc/group) & echo $! >{home}/$place/cgroup.procs; wait
    done
done
"""


def seen(run: LocalRun, path: str) -> int:
    return len([row for row in of_pod(run) if row["path"] == path])


@pytest.mark.parametrize("name", ["sh", "runc:[2:INIT]"])
def test_a_container_that_moves_its_processes_is_not_the_runtime(
    pods: DemoPods, state: Path, tmp_path: Path, name: str
) -> None:
    """Between its own cgroups, by themselves and by others, with the runtime's name, also from before the run."""
    idle = {"main": ["/bin/sh", "-c", "while :; do sleep 0.1; done"]}
    main = pods.start_pod("bad", "mover", idle, privileged=True).containers["main"]
    home = Path("/sys/fs/cgroup") / main.cgroup.relative_to(cgroup2_mount())
    script = f"printf '%s' '{name}' >/proc/self/comm; {MOVES.format(home=home)}"
    with LocalRun(tmp_path, "trace", "open", "-n", "bad", "-o", "json", "--path", "/etc") as run:
        execute(state, main, "/bin/sh", "-c", script)
        run.stop()
    assert (seen(run, "/etc/hosts"), seen(run, "/etc/group")) == (6, 6)


def test_a_process_that_the_node_moves_stays_the_containers(pods: DemoPods, state: Path, tmp_path: Path) -> None:
    """It is in the container's namespaces, and was not forked outside of them."""
    loop = "while :; do [ -e /tmp/go ] && read x </etc/hosts && rm /tmp/go; sleep 0.02; done"
    main = pods.start_pod("bad", "moved", {"main": ["/bin/sh", "-c", f"({loop}); :"]}).containers["main"]
    inner = main.cgroup / "inner"
    forked = Path(f"/proc/{main.pid}/task/{main.pid}/children")
    wait_until(lambda: len(forked.read_text().split()) == 1)
    with LocalRun(tmp_path, "trace", "open", "-n", "bad", "-o", "json", "--path", "/etc/hosts") as run:
        inner.mkdir()
        (inner / "cgroup.procs").write_text(forked.read_text().strip())
        execute(state, main, "/bin/sh", "-c", "touch /tmp/go; while [ -e /tmp/go ]; do sleep 0.02; done")
        run.stop()
    assert seen(run, "/etc/hosts") == 1
