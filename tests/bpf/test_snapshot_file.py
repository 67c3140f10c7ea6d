"""snapshot file: files that this process has open."""

import os
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
