"""snapshot file: files that this process has open."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bpf.answers import Answers

pytestmark = pytest.mark.bpf
TIMES = 31


def test_each_open_file_is_there_once_with_its_path(tmp_path: Path) -> None:
    paths = [tmp_path / f"file {number}" for number in range(TIMES)]
    files = [path.open("wb") for path in paths]
    for number, file in enumerate(files):
        file.write(b"x" * number)
        file.flush()
    try:
        with Answers("snapshot_file", pid=os.getpid()) as snapshot:
            records = snapshot.take()
    finally:
        for file in files:
            file.close()
    for number, path in enumerate(paths):
        (record,) = [record for record in records if record["path"] == str(path)]
        assert (record["size"], record["position"]) == (number, number)
        assert record["inode"] == path.stat().st_ino
        assert record["flags"] & os.O_ACCMODE == os.O_WRONLY
        assert not record["deleted"]


def test_removed_files_are_found_with_their_old_path(tmp_path: Path) -> None:
    path = tmp_path / "gone"
    with path.open("wb") as file:
        file.write(b"x" * 4099)
        file.flush()
        path.unlink()
        with Answers("snapshot_file", pid=os.getpid(), deleted=True) as snapshot:
            (record,) = [record for record in snapshot.take() if record["fd"] == file.fileno()]
    assert (record["path"], record["size"], record["deleted"]) == (str(path), 4099, 1)


OPENER = """
import os, resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 6007), hard))
for _ in range(int(sys.argv[1])):
    os.dup(0)
print(len(os.listdir("/proc/self/fd")) - 1, min(hard, 6007), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("more", [0, 1, 63, 64, 65, 5003])
def test_each_process_has_its_number_of_descriptors_and_its_limit(more: int) -> None:
    command = [sys.executable, "-c", OPENER, str(more)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        expected = tuple(map(int, child.stdout.readline().split()))
        with Answers("snapshot_file", pid=child.pid) as snapshot:
            files = snapshot.take()
        with Answers("snapshot_file", pid=child.pid, count=True) as snapshot:
            (counted,) = snapshot.take()
        child.communicate()
    assert expected[0] >= more
    assert len(files) == expected[0]
    assert {(record["open_files"], record["open_files_limit"]) for record in files} == {expected}
    assert (counted["open_files"], counted["open_files_limit"]) == expected
    assert (counted["fd"], counted["path"], counted["type"]) == (-1, None, 0)
