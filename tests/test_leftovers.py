"""What killed runs of these tests left mounted, with folders in the place of theirs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leftovers import unmount_what_dead_runs_left

pytestmark = pytest.mark.root


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """A folder for those of runs; what is mounted at RUN/bpf is unmounted."""
    yield tmp_path
    for path in filter(os.path.ismount, tmp_path.glob("*/bpf")):
        subprocess.run(["umount", path], check=True)


def test_only_mounts_of_dead_runs_are_unmounted(runs: Path, ended: int) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    locks = {
        "pytest-1": str(ended),
        "pytest-2, which is no run": str(ended),
        "pytest-3": str(os.getpid()),
        "pytest-4": "",  # it is starting
        "pytest-5": None,  # it has ended in order
        "pytest-6": str(ended),
    }
    for name, lock in locks.items():
        folder = runs / name / "bpf"
        folder.mkdir(parents=True)
        mounted = subprocess.run(["mount", "-t", "bpf", "bpf", folder], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip("no bpf file system can be mounted here")
        if lock is not None:
            (runs / name / ".lock").write_text(lock)
    found = unmount_what_dead_runs_left(runs / "pytest-6")
    assert found == [runs / "pytest-1" / "bpf"]
    assert {name for name in locks if os.path.ismount(runs / name / "bpf")} == locks.keys() - {"pytest-1"}
    assert unmount_what_dead_runs_left(runs / "pytest-6") == []
