"""Processes that hide where nobody looks: in the pod's sandbox, and in cgroups that are not their container's."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoContainer, DemoPod, DemoPods
from kubectl_gadget.demo.runc import cgroup2_mount
from tests.conftest import why_no_containers
from tests.reliability.conftest import PROGRAMS
from tests.reliability.local_run import LocalRun

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
    pytest.mark.skipif(not shutil.which("gcc"), reason="there is no C compiler"),
]
IDLE = {"main": ["/bin/sleep", "100003"]}
OPEN, EXECVE = 2, 59
KILL = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: no-programs}
spec:
  tracepoints:
  - subsystem: syscalls
    event: sys_enter_execve
    args: [{index: 5, type: string}]
    selectors:
    - matchActions: [{action: Sigkill}]
"""
x86_alone = pytest.mark.skipif(platform.machine() != "x86_64", reason="what it injects is for x86-64")


@pytest.fixture(name="state")
def a_folder() -> Path:
    return Path(f"/run/kubectl-gadget-hidden-{os.getpid()}")


@pytest.fixture(name="pods")
def some_pods(state: Path) -> Iterator[DemoPods]:
    with DemoPods(state) as pods:
        subprocess.run(
            ["gcc", "-static", "-O2", "-o", pods.image_root / "bin" / "inject", PROGRAMS / "inject.c"], check=True
        )
        yield pods


def execute(state: Path, container: DemoContainer, *words: str) -> str:
    """As kubectl exec. What it printed."""
    script = '[ "$1" = /sys/fs/cgroup ] || mount --bind "$1" /sys/fs/cgroup; shift; exec runc "$@"'
    runc = [str(cgroup2_mount()), "--root", f"{state}/runc/k8s.io", "exec", container.id, *words]
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", *runc]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(run: LocalRun) -> list[dict[str, Any]]:
    """Others may run pods on this machine."""
    return [row for row in run.rows() if row["namespace"] == "bad"]


def names(row: dict[str, Any]) -> tuple[str, str, str, str | None]:
    return row["namespace"], row["pod"], row["container"], row.get("container_mark")


def run_here(*words: str) -> str:
    command = [sys.executable, "-m", "kubectl_gadget.cli.main", *words, "--local", "-n", "bad", "-o", "json"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def in_pause(state: Path, pod: DemoPod, call: int, text: str, *numbers: int) -> int:
    """Has the pod's first process, that of its sandbox, do a system call. What it returned."""
    words = ["/bin/inject", "1", str(call), text, *map(str, numbers)]
    return int(execute(state, pod.containers["main"], *words))


@x86_alone
@pytest.mark.parametrize("uid", [0, 1000])
def test_code_in_the_pause_process_is_seen_as_its_pods(pods: DemoPods, state: Path, tmp_path: Path, uid: int) -> None:
    pod = pods.start_pod("bad", "hidden", IDLE, uid=uid, shares_processes=True)
    with LocalRun(tmp_path, "trace", "open", "-A", "-o", "json", "--path", "/etc/passwd") as run:
        assert in_pause(state, pod, OPEN, "/etc/passwd", 0) >= 0
        run.stop()
    assert [names(row) for row in rows(run)] == [("bad", "hidden", "POD", "sandbox")]


@x86_alone
@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        (("-n", "bad"), 1),
        (("-n", "good"), 0),
        (("-A", "-c", "POD"), 1),
        (("-A", "-c", "main"), 0),
        (("-n", "bad", "hidden"), 1),
    ],
)
def test_sandboxes_are_chosen_as_containers_are(
    pods: DemoPods, state: Path, tmp_path: Path, flags: tuple[str, ...], seen: int
) -> None:
    pod = pods.start_pod("bad", "hidden", IDLE, shares_processes=True)
    with LocalRun(tmp_path, "trace", "open", *flags, "-o", "json", "--path", "/etc/passwd") as run:
        in_pause(state, pod, OPEN, "/etc/passwd", 0)
        run.stop()
    assert len(rows(run)) == seen


def test_snapshots_show_the_pause_process(pods: DemoPods) -> None:
    pods.start_pod("bad", "hidden", IDLE)
    out = run_here("snapshot", "process")
    found = Counter(names(row) for row in map(json.loads, out.splitlines()))
    assert found == Counter([("bad", "hidden", "POD", "sandbox"), ("bad", "hidden", "main", None)])


def test_top_pod_has_a_row_for_the_sandbox(pods: DemoPods) -> None:
    pods.start_pod("bad", "hidden", IDLE)
    out = run_here("top", "pod", "--interval", "1s", "--timeout", "1s")
    found = {names(row) for row in map(json.loads, out.splitlines())}
    assert found == {("bad", "hidden", "POD", "sandbox"), ("bad", "hidden", "main", None)}


@x86_alone
def test_a_policy_holds_in_sandboxes_and_lets_pods_start(pods: DemoPods, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(KILL)
    pod = pods.start_pod("bad", "hidden", {})
    inject = f"/proc/{pod.sandbox.pid}/root/bin/inject"
    with LocalRun(tmp_path, "enforce", "-n", "bad", "--allow-weaker", "-f", str(policy), "-o", "json") as run:
        # The runtime executes the pause program, which nobody's pod says.
        started = pods.start_pod("bad", "other", {})
        assert Path(f"/proc/{started.sandbox.pid}/exe").readlink().name == "busybox"
        subprocess.run([inject, str(pod.sandbox.pid), str(EXECVE), "/bin/busybox", "0", "0"], check=False)
        run.stop()
    pods_of = [row["process_tracepoint"]["process"]["pod"] for row in run.rows() if "process_tracepoint" in row]
    assert [(one["name"], one["container"]["name"]) for one in pods_of] == [("hidden", "POD")]
    assert not Path(f"/proc/{pod.sandbox.pid}/exe").exists()
