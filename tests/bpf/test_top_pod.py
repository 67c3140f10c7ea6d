"""top pod: what a process does in a cgroup that is named like a container's, and what the cgroup's files say of it."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.host import cgroups
from tests.bpf import deeds, network
from tests.bpf.answers import Answers

pytestmark = pytest.mark.bpf
OPENS, EXECS, PACKETS, BYTES = 31, 7, 13, 101
HEADERS = 20 + 8
UNKNOWN = 2**64 - 1


@pytest.fixture
def container() -> Iterator[Path]:
    """The folder of a cgroup."""
    path = Path(cgroups.find_root()) / os.urandom(32).hex()
    path.mkdir()
    yield path
    path.rmdir()


def do_in(container: Path, deed: Callable[[], object]) -> dict[str, Any]:
    """The one row about the container, added up as the client does it."""
    with Answers("top_pod") as top:

        def enter() -> None:
            (container / "cgroup.procs").write_text(str(os.getpid()))
            deed()

        _, code = deeds.in_child(enter)
        records = [record for record in top.take() if record["cgroup"] == container.stat().st_ino]
        assert top.lost == 0
    assert code == 0
    names = records[0].keys() - {"timestamp", "interval", "cgroup", "record_bytes"}
    known = {name: [record[name] for record in records if record[name] != UNKNOWN] for name in names}
    return {name: sum(values) if values else None for name, values in known.items()}


def test_files_opened_are_counted(container: Path) -> None:
    def open_files() -> None:
        for _ in range(OPENS):
            os.close(os.open("/proc/self/stat", os.O_RDONLY))
        for _ in range(OPENS):
            deeds.syscall(deeds.OPENAT, deeds.AT_FDCWD, b"/nowhere/at/all", os.O_RDONLY)

    row = do_in(container, open_files)
    assert row["opens"] == OPENS
    assert row["execs"] == row["sent"] == row["received"] == 0


def test_programs_started_are_counted(container: Path) -> None:
    def start_programs() -> None:
        for _ in range(EXECS):
            assert os.spawnv(os.P_WAIT, "/bin/true", ["true"]) == 0

    assert do_in(container, start_programs)["execs"] == EXECS


def test_bytes_of_the_containers_own_sockets_are_counted(container: Path) -> None:
    def send() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
            one.bind((network.V4, 0))
            for _ in range(PACKETS):
                other.sendto(bytes(BYTES), one.getsockname())
                one.recv(BYTES)

    row = do_in(container, lambda: network.in_namespace(send))
    assert row["sent"] == row["received"] == PACKETS * (BYTES + HEADERS)


def test_cpu_time_is_the_cgroups_and_what_no_controller_counts_is_unknown(container: Path) -> None:
    def burn() -> None:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass

    row = do_in(container, burn)
    assert row["cpu_time"] is not None
    assert 200_000_000 <= row["cpu_time"] < 60_000_000_000
    for name, file in (("memory", "memory.current"), ("processes", "pids.current"), ("read_bytes", "io.stat")):
        assert (row[name] is not None) == (container / file).exists()
    assert (row["cpu_stalled"] is not None) == (container / "cpu.pressure").exists()
