"""trace oomkill: processes that want more than their cgroup may have, a prime number of times."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.one_hook import one_hook
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 3
LIMIT = 24 << 20
KILLED = -9


class MemoryGroup:
    """A cgroup with LIMIT, of the version that has the memory controller here."""

    def __init__(self) -> None:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
            root = Path(fields[4])
            if kind == "cgroup" and "memory" in options:
                self.make(root, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
                return
            if kind == "cgroup2" and "memory" in (root / "cgroup.controllers").read_text().split():
                (root / "cgroup.subtree_control").write_text("+memory")
                self.make(root, "memory.max", "memory.swap.max")
                return
        pytest.skip("no cgroup has the memory controller here")

    def make(self, root: Path, limit: str, swap: str) -> None:
        self.path = root / f"test-{uuid.uuid4().hex}"
        self.path.mkdir()
        (self.path / limit).write_text(str(LIMIT))
        if (self.path / swap).exists():
            (self.path / swap).write_text(str(LIMIT if "memsw" in swap else 0))

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text("0")


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    group = MemoryGroup()
    yield group
    group.path.rmdir()


def want_too_much() -> None:
    memory = bytearray(4 * LIMIT)
    memory[::4096] = b"x" * len(memory[::4096])


def eat(group: MemoryGroup) -> Callable[[], None]:
    def deed() -> None:
        group.enter()
        Path("/proc/self/oom_score_adj").write_text("321")
        want_too_much()

    return deed


def own_memory() -> int:
    """What a child has from the beginning, and a little more. It does not count for its cgroup."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024 + (8 << 20)


def of(pid: int, tracer: Tracer) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["pid"] == pid]


@pytest.mark.parametrize("hook", ["marked", "killed_fentry"])
def test_each_kill_is_seen_once_with_its_limit(group: MemoryGroup, hook: str) -> None:
    with one_hook("trace_oomkill", hook) as tracer:
        for _ in range(TIMES):
            pid, code = deeds.in_child(eat(group))
            assert code == KILLED
            (record,) = of(pid, tracer)
            assert (record["limit"], record["limited"]) == (LIMIT, group.path.name)
            assert LIMIT - (1 << 20) <= record["usage"] <= LIMIT
            assert LIMIT // 2 <= record["anon_rss"] <= LIMIT + own_memory()
            assert record["total_vm"] > 4 * LIMIT
            assert record["oom_score_adj"] == 321
            assert record["comm"] == record["trigger_comm"]
            assert (record["trigger_pid"], record["trigger_tid"]) == (pid, pid)
            assert (record["trigger"], record["ppid"]) == (record["cgroup"], os.getpid())
        assert tracer.lost == 0


def test_the_victim_may_be_another_than_the_trigger(group: MemoryGroup) -> None:
    """The one that is liked less has most of the memory; another one asks for the rest."""
    read, write = os.pipe()

    def victim() -> None:
        group.enter()
        Path("/proc/self/oom_score_adj").write_text("1000")
        memory = bytearray(LIMIT // 2)
        memory[::4096] = b"x" * len(memory[::4096])
        os.write(write, b"x")
        while True:
            os.read(os.pipe()[0], 1)

    def trigger() -> None:
        group.enter()
        memory = bytearray(LIMIT * 9 // 16)
        memory[::4096] = b"x" * len(memory[::4096])

    with Tracer("trace_oomkill") as tracer:
        killed = os.fork()
        if killed == 0:
            victim()
        os.read(read, 1)
        # It may be killed as well, when the first one's memory is not free in time.
        wanted, _ = deeds.in_child(trigger)
        status = os.waitstatus_to_exitcode(os.waitpid(killed, 0)[1])
        (record,) = of(killed, tracer)
    assert status == KILLED
    assert record["trigger_pid"] == wanted
    assert record["limit"] == LIMIT


def test_a_filter_by_pid_means_the_victim(group: MemoryGroup) -> None:
    with Tracer("trace_oomkill", pid=1) as tracer:
        pid, code = deeds.in_child(eat(group))
        assert code == KILLED
        assert of(pid, tracer) == []
