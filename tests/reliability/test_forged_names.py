"""Names that a pod tries to forge: for itself and for others, with what every pod can do by default."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPod, DemoPods
from tests.conftest import why_no_containers
from tests.reliability.conftest import PROGRAMS
from tests.reliability.local_run import LocalRun
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built"),
    pytest.mark.skipif(why_no_containers() is not None, reason=str(why_no_containers())),
    pytest.mark.skipif(not shutil.which("gcc"), reason="there is no C compiler"),
]
WAIT = "while [ ! -e /tmp/go ]; do sleep 0.05; done"
OPEN_ALWAYS = "while :; do : </etc/hosts; sleep 0.05; done"
OPENS = 97
QUIET = f"i=0; while [ $i -lt {OPENS} ]; do : >/tmp/quiet; i=$((i+1)); done"
FORGED = f"cri-containerd-{'f' * 64}.scope"


@pytest.fixture
def pods() -> Iterator[DemoPods]:
    with DemoPods(Path(f"/run/kubectl-gadget-forged-{os.getpid()}")) as pods:
        target = pods.image_root / "bin" / "nested"
        subprocess.run(["gcc", "-static", "-O2", "-o", target, PROGRAMS / "nested.c"], check=True)
        yield pods


def config(namespace: str, pod: str, uid: str) -> str:
    """A config.json with the names that containerd gives to a container."""
    prefix = "io.kubernetes.cri."
    names = {"container-type": "container", "sandbox-namespace": namespace, "sandbox-name": pod, "sandbox-uid": uid}
    return json.dumps({"annotations": {prefix + key: value for key, value in names.items()}})


def forge(pod: DemoPod, names: dict[str, str]) -> None:
    """Lets a container that waits forge names: `names` are texts of config.json by the id of a container."""
    container = pod.containers["main"]
    tmp = Path(f"/proc/{container.pid}/root/tmp")
    for id, text in {"here": "{}", **names}.items():
        (tmp / "bundles" / id).mkdir(parents=True)
        (tmp / "bundles" / id / "config.json").write_text(text)
    (tmp / "go").touch()
    nested = container.cgroup / FORGED
    while not (nested.exists() and (nested / "cgroup.procs").read_text()):
        assert (container.cgroup / "cgroup.procs").read_text(), "its program failed"


def as_container(pods: DemoPods) -> DemoPod:
    script = f"{WAIT}; exec nested as {FORGED} /tmp/bundles/here sh -c '{OPEN_ALWAYS}'"
    return pods.start_pod("bad", "forger", {"main": ["/bin/sh", "-c", script]})


def who(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(row["namespace"], row["pod"]) for row in rows}


def test_a_pod_cannot_name_itself_or_others(pods: DemoPods, tmp_path: Path) -> None:
    victim = pods.start_pod("good", "victim", {"main": ["/bin/sh", "-c", OPEN_ALWAYS]})
    bad = as_container(pods)
    forge(
        bad,
        {
            bad.containers["main"].id: config("kube-system", "innocent-1", bad.uid),
            victim.containers["main"].id: config("bad", "other", victim.uid),
            "f" * 64: config("kube-system", "innocent-2", bad.uid),
        },
    )
    with LocalRun(tmp_path, "trace", "open", "-A", "--max-events", "100", "-o", "json") as run:
        run.process.wait(60)
    assert who(run.rows()) == {("good", "victim"), ("bad", "forger")}
    inside = [row for row in run.rows() if row["pod"] == "forger"]
    assert {row["container"] for row in inside} == {"main"}
    with LocalRun(tmp_path, "trace", "open", "-n", "good", "--max-events", "10", "-o", "json") as run:
        run.process.wait(60)
    assert who(run.rows()) == {("good", "victim")}


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flooder(pods: DemoPods, name: str, count: int) -> DemoPod:
    """A pod that makes its cgroups when told to, and then, in one that is deep below them, opens a file."""
    deep = "/".join(["deep"] * 60)
    script = (
        f"{WAIT}; nested flood {count} >/tmp/made & while [ ! -s /tmp/made ]; do sleep 0.05; done; "
        f"exec nested as {deep} /tmp sh -c 'while :; do : >/tmp/deep; sleep 0.05; done'"
    )
    return pods.start_pod("bad", name, {"main": ["/bin/sh", "-c", script]})


def until_flooded(pod: DemoPod, count: int) -> None:
    tmp = Path(f"/proc/{pod.containers['main'].pid}/root/tmp")
    (tmp / "go").touch()
    wait_until((tmp / "deep").exists, "the file that it opens")
    assert int((tmp / "made").read_text()) == count


def remove_cgroups(pod: DemoPod) -> None:
    container = pod.containers["main"]
    for folder, _, _ in os.walk(container.cgroup, topdown=False):
        for pid in (Path(folder) / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(int(pid), signal.SIGKILL)
        while folder != str(container.cgroup) and os.path.isdir(folder):
            with contextlib.suppress(OSError):  # its process is still exiting
                os.rmdir(folder)


def test_any_number_of_cgroups_below_a_container_costs_and_hides_nothing(
    pods: DemoPods, tmp_path: Path, is_long: bool
) -> None:
    count = 50_000 if is_long else 1_000
    before, during = flooder(pods, "before", count), flooder(pods, "during", count)
    until_flooded(before, count)
    with LocalRun(tmp_path, "trace", "open", "-A", "-o", "json") as run:
        pods.run_short("good", "first", ["/bin/sh", "-c", QUIET])
        run.until(lambda: sum(row["pod"] == "first" and row["path"] == "/tmp/quiet" for row in run.rows()) == OPENS)
        used, memory = cpu_seconds(run.agent), resident(run.agent)
        until_flooded(during, count)
        pods.run_short("good", "second", ["/bin/sh", "-c", QUIET])
        run.until(lambda: {"before", "during"} <= {row["pod"] for row in run.rows() if row["path"] == "/tmp/deep"})
        grown = resident(run.agent) - memory
        used = cpu_seconds(run.agent) - used
        run.stop()
    for pod in (before, during):
        remove_cgroups(pod)
    found = run.rows()
    for name in ("first", "second"):
        assert sum(row["pod"] == name and row["path"] == "/tmp/quiet" for row in found) == OPENS
    deep = [row for row in found if row["path"] == "/tmp/deep"]
    assert {(row["namespace"], row["container"], row.get("container_mark")) for row in deep} == {("bad", "main", None)}
    assert run.lost == 0
    assert grown < 8 << 20
    assert used < 5
