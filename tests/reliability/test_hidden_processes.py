"""Processes that hide in unusual places: in the pod's sandbox, and in cgroups that are not their container's."""

import json
import os
import platform
import select
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoContainer, DemoPod, DemoPods
from kubectl_gadget.demo.runc import cgroup2_mount
from tests.conftest import why_no_containers
from tests.gadget_run import GADGET
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
        for name in ("inject", "into_cgroup") if platform.machine() == "x86_64" else ("into_cgroup",):
            target = pods.image_root / "bin" / name
            subprocess.run(["gcc", "-static", "-O2", "-o", target, PROGRAMS / f"{name}.c"], check=True)
        yield pods


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A cgroup of the node, and its folder."""
    folder = cgroup2_mount() / f"elsewhere-{os.getpid()}"
    folder.mkdir()
    yield folder
    until_empty(folder)
    folder.rmdir()


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


def until_empty(folder: Path) -> None:
    """Until the processes of a cgroup have ended, which the kernel tells by its file."""
    with (folder / "cgroup.events").open() as events:
        told = select.poll()
        told.register(events, select.POLLPRI)
        while "populated 0" not in events.read():
            assert told.poll(60_000), f"processes are left in {folder}"
            events.seek(0)


def leave(cgroup: Path, script: str) -> list[str]:
    """A command that moves to a cgroup, as a container sees it, and then runs the script."""
    inside = Path("/sys/fs/cgroup") / cgroup.relative_to(cgroup2_mount())
    return ["/bin/sh", "-c", f"echo $$ >{inside}/cgroup.procs; {script}"]


def names(row: dict[str, Any]) -> tuple[str, str, str, str | None]:
    return row["namespace"], row["pod"], row["container"], row.get("container_mark")


def run_here(*words: str) -> str:
    command = [*GADGET, *words, "--local", "-n", "bad", "-o", "json"]
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


OPENS = "read x </etc/passwd; (read x </etc/group); cat /etc/hosts"
OPENED = ["/etc/passwd", "/etc/group", "/etc/hosts"]
LEFT = ("bad", "leaver", "main", "moved")


def opened(run: LocalRun, mark: str | None = "moved") -> Counter[tuple[tuple[str, str, str, str | None], str]]:
    return Counter((names(row), row["path"]) for row in rows(run) if row.get("container_mark") == mark)


def test_a_process_that_leaves_its_containers_cgroup_stays_the_containers(
    pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path
) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    made = elsewhere / "made"
    with LocalRun(tmp_path, "trace", "open", "-A", "-o", "json", "--path", "/etc") as run:
        execute(state, main, *leave(elsewhere, OPENS))
        # A cgroup that the agent has not heard of.
        execute(state, main, "/bin/sh", "-c", f"mkdir /sys/fs/cgroup/{made.relative_to(cgroup2_mount())}")
        execute(state, main, *leave(made, OPENS))
        run.stop()
    until_empty(made)
    made.rmdir()
    found = opened(run)
    assert {key: found[key] for key in found if key[1] in OPENED} == {(LEFT, path): 2 for path in OPENED}


def test_tables_show_the_mark(pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    with LocalRun(tmp_path, "trace", "open", "-n", "bad", "--path", "/etc/group", "-o", "wide") as run:
        execute(state, main, *leave(elsewhere, OPENS))
        run.stop()
    (line,) = run.out.read_text().splitlines()[1:]
    assert "main(moved)" in line.split()


def test_filters_choose_by_the_container_and_by_the_mark(
    pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path
) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    flags = ("-A", "-c", "main", "--filter", 'container_mark == "moved"', "-o", "json", "--path", "/etc/passwd")
    with LocalRun(tmp_path, "trace", "open", *flags) as run:
        execute(state, main, "/bin/sh", "-c", "read x </etc/passwd")
        execute(state, main, *leave(elsewhere, "read x </etc/passwd"))
        run.stop()
    assert [names(row) for row in rows(run)] == [LEFT]


def test_a_process_that_comes_back_is_as_before(pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    home = Path("/sys/fs/cgroup") / main.cgroup.relative_to(cgroup2_mount())
    back = f"echo $$ >{home}/cgroup.procs; read x </etc/passwd; cat /etc/group"
    with LocalRun(tmp_path, "trace", "open", "-A", "-o", "json", "--path", "/etc") as run:
        execute(state, main, *leave(elsewhere, back))
        run.stop()
    assert not [row for row in rows(run) if row["path"] in OPENED and "container_mark" in row]
    assert {row["path"] for row in rows(run)} >= {"/etc/passwd", "/etc/group"}


def test_a_process_that_moves_to_another_pod_does_not_become_that_pods(
    pods: DemoPods, state: Path, tmp_path: Path
) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    other = pods.start_pod("bad", "framed", IDLE)
    with LocalRun(tmp_path, "trace", "open", "-A", "-o", "json", "--path", "/etc/passwd") as run:
        execute(state, main, *leave(other.containers["main"].cgroup, "read x </etc/passwd"))
        # Beside the containers, in the other pod's own cgroup.
        beside = other.sandbox.cgroup.parent / "beside"
        beside.mkdir()
        execute(state, main, *leave(beside, "read x </etc/passwd"))
        run.stop()
    assert [names(row) for row in rows(run)] == [LEFT, LEFT]


def test_a_process_that_is_created_elsewhere_is_the_containers(
    pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path
) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    inside = f"/sys/fs/cgroup/{elsewhere.name}"
    with LocalRun(tmp_path, "trace", "open", "-A", "-o", "json", "--path", "/etc/passwd") as run:
        execute(state, main, "/bin/into_cgroup", inside, "/etc/passwd")
        run.stop()
    assert [names(row) for row in rows(run)] == [LEFT]


def test_a_process_that_had_left_before_is_found(pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    execute(state, main, *leave(elsewhere, "sleep 100007 </dev/null >/dev/null 2>&1 &"))
    found = Counter(names(row) for row in map(json.loads, run_here("snapshot", "process").splitlines()))
    assert found == Counter([("bad", "leaver", "POD", "sandbox"), ("bad", "leaver", "main", None), LEFT])
    # Its children, too.
    (pid,) = (elsewhere / "cgroup.procs").read_text().split()
    os.kill(int(pid), signal.SIGKILL)


def test_a_move_out_of_a_container_is_an_event(pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path) -> None:
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    with LocalRun(tmp_path, "trace", "privilege", "-A", "-o", "json", "--operation", "leave_cgroup") as run:
        execute(state, main, *leave(elsewhere, "true"))
        run.stop()
    (row,) = rows(run)
    assert (names(row), row["target"]) == (LEFT, row["pid"])


def test_a_policy_holds_for_one_that_has_left(pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        KILL.replace(
            "    selectors:\n    -",
            """    selectors:
    - matchArgs: [{index: 5, operator: Postfix, values: [/forbidden]}]
     """,
        )
    )
    shutil.copy(pods.image_root / "bin" / "busybox", pods.image_root / "bin" / "forbidden")
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    script = "/bin/forbidden true; echo $?"
    with LocalRun(tmp_path, "enforce", "-n", "bad", "--allow-weaker", "-f", str(policy), "-o", "json") as run:
        assert execute(state, main, *leave(elsewhere, script)).strip() == "137"
        run.stop()
    told = [row["process_tracepoint"]["process"]["pod"] for row in run.rows() if "process_tracepoint" in row]
    assert [(one["name"], one["container"]["name"]) for one in told] == [("leaver", "main")]


MOVES = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: moves}
spec:
  tracepoints:
  - subsystem: cgroup
    event: cgroup_attach_task
    raw: true
    args: [{index: 1, type: string}]
"""


def test_a_policy_sees_the_move_in_the_container_that_is_left(
    pods: DemoPods, state: Path, tmp_path: Path, elsewhere: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(MOVES)
    main = pods.start_pod("bad", "leaver", IDLE, privileged=True).containers["main"]
    with LocalRun(tmp_path, "observe", "-n", "bad", "-f", str(policy), "-o", "json") as run:
        execute(state, main, *leave(elsewhere, "true"))
        run.stop()
    events = [row["process_tracepoint"] for row in run.rows() if "process_tracepoint" in row]
    found = [(one["process"]["pod"]["container"]["name"], one["args"][0]["string_arg"]) for one in events]
    assert found == [("main", f"/{elsewhere.name}")]
