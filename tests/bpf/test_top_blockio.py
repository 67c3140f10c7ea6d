"""top blockio: prime numbers of requests to a loop device, each of which is one request to a device.

A loop device's own worker reads and writes the file below, which are requests to another disk.
"""

import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.vm import modules

pytestmark = pytest.mark.bpf
BLOCK = 4096
READS, WRITES, FLUSHES = 31, 53, 7
COMM = open("/proc/self/comm").read().strip()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A block device of a megabyte."""
    file = tmp_path / "disk"
    file.write_bytes(bytes(1 << 20))
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "loop"], check=False, capture_output=True)
    modules.load("loop")
    made = subprocess.run(["losetup", "--find", "--show", str(file)], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device can be made: {made.stderr.strip()}")
    path = made.stdout.strip()
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


def read_and_write(device: str) -> None:
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    # Page-aligned, as O_DIRECT wants it.
    page = mmap.mmap(-1, BLOCK)
    for number in range(READS):
        os.preadv(fd, [page], number * BLOCK)
    for number in range(WRITES):
        os.pwritev(fd, [page], number * BLOCK)
    os.close(fd)


def flush(device: str) -> None:
    fd = os.open(device, os.O_RDWR)
    for _ in range(FLUSHES):
        os.fsync(fd)
    os.close(fd)


def on(device: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["disk"] == device.removeprefix("/dev/")]


def test_requests_and_bytes_are_counted_exactly_for_their_process(device: str) -> None:
    with Answers("top_blockio") as top:
        pid, code = deeds.in_child(lambda: read_and_write(device))
        records = [record for record in on(device, top.take()) if record["pid"] == pid]
        assert top.lost == 0
    assert code == 0
    (record,) = records
    counts = {name: record[name] for name in ("ios", "reads", "writes", "others", "errors")}
    assert counts == {"ios": READS + WRITES, "reads": READS, "writes": WRITES, "others": 0, "errors": 0}
    assert (record["read_bytes"], record["written_bytes"]) == (READS * BLOCK, WRITES * BLOCK)
    assert record["device"] == os.major(os.stat(device).st_rdev) << 20 | os.minor(os.stat(device).st_rdev)
    assert (record["comm"], record["uid"]) == (COMM, os.getuid())
    assert record["total"] > 0


def test_requests_that_neither_read_nor_write_count_as_other(device: str) -> None:
    with Answers("top_blockio") as top:
        deeds.in_child(lambda: flush(device))
        records = on(device, top.take())
    assert sum(record["others"] for record in records) == FLUSHES
    assert sum(record["written_bytes"] for record in records) == 0


def test_only_requests_of_the_process_asked_for_count(device: str) -> None:
    with Answers("top_blockio", pid=os.getpid()) as top:
        deeds.in_child(lambda: read_and_write(device))
        assert on(device, top.take()) == []


def test_what_a_process_reads_after_an_exec_counts_for_the_new_program(device: str) -> None:
    reader = shutil.which("dd")
    if not reader:
        pytest.skip("dd is not installed")

    def deed() -> None:
        read_and_write(device)
        os.execv(reader, ["dd", f"if={device}", "of=/dev/null", "iflag=direct", "bs=4096", "count=3", "status=none"])

    with Answers("top_blockio") as top:
        pid, code = deeds.in_child(deed)
        records = [record for record in on(device, top.take()) if record["pid"] == pid]
    assert code == 0
    assert {record["comm"]: record["reads"] for record in records} == {COMM: READS, "dd": 3}
