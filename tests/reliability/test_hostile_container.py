"""A container that does what it can to blind us: others are seen, it is seen itself, and what is not is counted."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPod, DemoPods
from tests.conftest import why_no_containers
from tests.reliability.local_run import LocalRun

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
]
OPENS = 97
OPEN = f"i=0; while [ $i -lt {OPENS} ]; do : >/tmp/quiet; i=$((i+1)); done"


@pytest.fixture
def pods() -> Iterator[DemoPods]:
    with DemoPods(Path(f"/run/kubectl-gadget-hostile-{os.getpid()}")) as pods:
        yield pods


def rows(run: LocalRun) -> list[dict[str, Any]]:
    """Each line must be a JSON object of its own, whatever is in it."""
    return [json.loads(line) for line in run.out.read_text().split("\n") if line]


def in_container(pod: DemoPod, *command: str, **options: Any) -> subprocess.Popen[bytes]:
    """A process of this machine that is moved into the pod's only container."""
    (container,) = pod.containers.values()
    join = f'echo $$ >{container.cgroup}/cgroup.procs; exec "$@"'
    return subprocess.Popen(["sh", "-c", join, "sh", *command], **options)


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_flood_is_sent_or_counted_and_others_are_seen_again_after_it(
    pods: DemoPods, numbered_opens: Path, tmp_path: Path
) -> None:
    folder, times = f"/{uuid.uuid4().hex}", 30_011
    cpus = len(os.sched_getaffinity(0))
    noisy = pods.start_pod("bad", "noisy", {"main": ["/bin/sleep", "1000"]})
    flags = ("--ring-size", "64Ki", "--host", "-A", "-o", "json")
    with LocalRun(tmp_path, "trace", "open", *flags) as run:
        assert in_container(noisy, str(numbered_opens), folder, str(times)).wait() == 0
        pods.run_short("good", "quiet", ["/bin/sh", "-c", OPEN])
        run.stop()
    found = rows(run)
    flood = [row for row in found if row["path"] and row["path"].startswith(folder)]
    assert {(row["namespace"], row["pod"]) for row in flood} == {("bad", "noisy")}
    quiet = [row for row in found if row["path"] == "/tmp/quiet"]
    assert {row["pod"] for row in quiet} == {"quiet"}
    missing = times * cpus - len(flood) + OPENS - len(quiet)
    assert 0 <= missing <= run.lost
    assert len(quiet) == OPENS or run.lost


def test_a_flood_takes_no_room_from_others_and_is_named(pods: DemoPods, numbered_opens: Path, tmp_path: Path) -> None:
    files, at_once = [f"/quiet/{number}" for number in range(1009)], 41
    noisy, quiet = (pods.start_pod("fair", name, {"main": ["/bin/sleep", "1000"]}) for name in ("noisy", "quiet"))
    flags = ("-n", "fair", "--ring-size", "64Ki", "--filter", 'pod == "quiet"', "-o", "jsonpath={.path}{'\\n'}")
    opens, cpu = "while read file; do true <$file; done 2>/dev/null", str(min(os.sched_getaffinity(0)))
    with LocalRun(tmp_path, "trace", "open", *flags) as run:
        flood = in_container(noisy, "taskset", "--cpu-list", cpu, str(numbered_opens), "/x", "1000000000")
        opener = in_container(quiet, "sh", "-c", opens, stdin=subprocess.PIPE)
        assert opener.stdin
        try:
            for start in range(0, len(files), at_once):
                opener.stdin.write("\n".join([*files[start : start + at_once], ""]).encode())
                opener.stdin.flush()
                run.until_printed(files[min(start + at_once, len(files)) - 1])
        finally:
            for process in (flood, opener):
                process.kill()
                process.communicate()
        run.stop()
    assert [line for line in run.out.read_text().splitlines() if line.startswith("/quiet/")] == files
    assert f"{run.lost:,} of fair/noisy/main" in run.said()


def test_endless_cgroups_hide_no_container_and_fill_no_memory(pods: DemoPods, tmp_path: Path, is_long: bool) -> None:
    count = 10_000 if is_long else 1500
    bad = pods.start_pod("bad", "maker", {"main": ["/bin/sleep", "1000"]})
    top = bad.containers["main"].cgroup
    with LocalRun(tmp_path, "trace", "open", "-A", "-o", "json") as run:
        before = resident(run.agent), resident(run.process.pid)
        kept = [top / f"kept-{number}" for number in range(count)]
        for folder in kept:
            folder.mkdir()
        for turn in range(3):
            for number in range(count):
                made = top / f"{uuid.uuid4().hex * 2}-{number}"
                made.mkdir()
                made.rmdir()
            pods.run_short("good", f"quiet-{turn}", ["/bin/sh", "-c", OPEN])
        (kept[-1] / "cgroup.procs").write_text(str(bad.containers["main"].pid))
        Path(f"/proc/{bad.containers['main'].pid}/root/tmp/x").touch()
        # A process that is in the last of these cgroups still is the container's.
        join = f"echo $$ >{kept[-1]}/cgroup.procs; : >/tmp/{kept[-1].name}"
        subprocess.run(["sh", "-c", join], check=True)
        after = resident(run.agent), resident(run.process.pid)
        run.stop()
    Path(f"/tmp/{kept[-1].name}").unlink()
    found = rows(run)
    for turn in range(3):
        pod = f"quiet-{turn}"
        assert sum(row["pod"] == pod and row["path"] == "/tmp/quiet" for row in found) == OPENS
    inner = [row for row in found if row["path"] == f"/tmp/{kept[-1].name}"]
    assert {(row["namespace"], row["pod"], row["container"]) for row in inner} == {("bad", "maker", "main")}
    assert run.lost == 0
    for grown in (after[0] - before[0], after[1] - before[1]):
        assert grown < 16 << 20


def test_huge_arguments_and_new_names_break_no_line(pods: DemoPods, tmp_path: Path) -> None:
    execs = 53
    script = (
        "printf '\\033]0;x\\007\\n' >/proc/$$/comm; "
        "big=$(head -c 100000 /dev/zero | tr '\\0' '\\377'); "
        f"i=0; while [ $i -lt {execs} ]; do /bin/true $big \"$(printf '\\n\\033[2J')\"; i=$((i+1)); done"
    )
    with LocalRun(tmp_path, "trace", "exec+open", "-A", "-o", "json") as run:
        pods.run_short("bad", "name", ["/bin/sh", "-c", script])
        run.stop()
    found = [row for row in rows(run) if row["pod"] == "name"]
    big = [row for row in found if row["event"] == "exec" and row["args"] and row["args"][0] == "/bin/true"]
    assert len(big) == execs
    assert all(row["args_cut"] for row in big)
    assert any("\x1b]0;x" in row["parent_comm"] for row in big)
    assert run.lost == 0


def test_processes_that_are_killed_in_the_middle_of_everything_break_nothing(pods: DemoPods, tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 40 ]; do (while :; do : </etc/hosts; done) & kill -9 $!; i=$((i+1)); done; wait"
    with LocalRun(tmp_path, "trace", "exec+open", "-A", "-o", "json") as run:
        pods.run_short("bad", "dying", ["/bin/sh", "-c", script])
        pods.run_short("good", "quiet", ["/bin/sh", "-c", OPEN])
        run.stop()
    found = rows(run)
    assert sum(row["pod"] == "quiet" and row.get("path") == "/tmp/quiet" for row in found) == OPENS
    assert all(row["namespace"] in ("bad", "good") for row in found if row["pod"] in ("dying", "quiet"))
