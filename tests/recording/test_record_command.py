"""`kubectl gadget record`: each set runs here; a ring is written when a row matches or a container ends badly."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPods
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.gadget_run import GADGET

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(1) as cluster:
        yield cluster


def run(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*GADGET, *words], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.kgr"))


@pytest.mark.parametrize("purpose", ["incident", "security", "network", "files", "performance"])
def test_every_set_is_recorded_in_files_that_replay_as_one(tmp_path: Path, purpose: str) -> None:
    words = ("--for", purpose, "--rotate-every", "500ms", "--timeout", "2s")
    done = run("record", "--local", "--host", "-o", str(tmp_path / "a.kgr"), *words)
    assert done.stdout == ""
    parts = [str(path) for path in sorted(tmp_path.iterdir())]
    assert len(parts) > 1
    info = json.loads(run("recording", "info", parts[-1], "-o", "json").stdout)
    assert info["whole"]
    replayed = run("replay", *parts, "observe", "-o", "json")
    assert "were recorded with another value" not in replayed.stderr
    assert "in none of the files" not in replayed.stderr
    run("report", *parts, "-o", str(tmp_path / "a.html.json"))
    made = json.loads((tmp_path / "a.html.json").read_text())
    assert made["run"]["command"] == ["kubectl", "gadget", "record", "--for", purpose]
    if purpose in ("incident", "network"):
        assert "not in the recording" not in run("replay", *parts, "flows").stderr


async def test_a_ring_is_written_when_a_row_matches_and_when_a_container_ends_badly(
    cluster: FakeCluster, pods: DemoPods, tmp_path: Path
) -> None:
    pod = pods.start_pod("default", "xwing", {})
    cluster.add_pod("xwing", "node-1", containers=("main",), uid=pod.uid)
    cluster.add_pod("other", "node-1", namespace="kube-system")
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    path, match = tmp_path / "a.kgr", 'operation == "exit" && signal == "SIGSEGV"'
    await runner.start("record", "-n", "default", "-o", str(path), "--keep", "1m", "--on-match", match)
    await runner.until_said("on 1/1 nodes")
    assert not files(tmp_path)

    def fail(pod: dict[str, Any]) -> None:
        end = {"terminated": {"exitCode": 3, "reason": "Error", "finishedAt": "1"}}
        pod["status"]["containerStatuses"][0]["state"] = end

    pods.add_container(pod, "main", ["/bin/sh", "-c", "sleep 100 & kill -SEGV $!; wait"], until_end=True)
    await runner.until_said(f"wrote {tmp_path}/a-000001.kgr: a row matched {match}")
    cluster.store.change("pods", "kube-system", "other", fail)
    cluster.store.change("pods", "default", "xwing", fail)
    await runner.until_said(f"wrote {tmp_path}/a-000002.kgr: default/xwing/main ended with exit code 3 (Error)")
    await runner.end()
    first = run("replay", str(tmp_path / "a-000001.kgr"), "trace", "process", "-o", "json").stdout
    assert "SIGSEGV" in [json.loads(line)["signal"] for line in first.splitlines()]
    assert files(tmp_path) == ["a-000001.kgr", "a-000002.kgr"]


def test_it_ends_when_all_files_of_the_ring_are_written(tmp_path: Path) -> None:
    words = ("--for", "files", "--keep", "1m", "--on-match", "true", "--files", "1")
    run = [*GADGET, "record", "--local", "--host", "-o", str(tmp_path / "a.kgr"), *words]
    done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, files(tmp_path)) == (0, ["a-000001.kgr"]), done.stderr
    assert "so the run ends" in done.stderr


def test_it_ends_when_the_disk_is_full(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        load = "import os\nwhile True: os.path.exists('/' + os.urandom(200).hex()); open('/dev/null').close()"
        run = [*GADGET, "record", "--local", "--host", "--for", "files", "-o", str(tmp_path / "a.kgr")]
        with subprocess.Popen([sys.executable, "-c", load]) as process:
            done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=120)
            process.kill()
        assert done.returncode == 1
        assert "No space left on device. The run ends" in done.stderr
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--on-match", "true"), "need --keep"),
        (("--keep", "1m", "--on-match", "nothing_such == 1"), "--on-match: there is no column"),
        (("--keep", "1m", "--rotate-size", "1Mi"), "cannot be used together"),
        (("--files", "3"), "needs several files"),
        (("--rotate-size", "1k"), "at least 1Mi"),
        (("--for", "fun"), "incident"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], error: str
) -> None:
    run = [*GADGET, "record", "--local", "-o", str(tmp_path / "a.kgr"), *words]
    done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert error in done.stderr
    assert not list(tmp_path.iterdir())
