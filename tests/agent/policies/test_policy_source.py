"""Killing from user space: only who did it, and only while it is the same process."""

import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.policies import policy_source
from kubectl_gadget.agent.policies.log import FreshRecords
from kubectl_gadget.agent.policies.policy_source import OutsideRequests, ProcessKiller
from kubectl_gadget.wire.agent_messages import GadgetStats
from kubectl_gadget.wire.policy_record import HEAD, RECORD
from tests.waiting import wait_until

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
HOOK = 3


class Bytes:
    """A ring of what was put into it."""

    def __init__(self) -> None:
        self.data = b""
        self.position = 0
        self.complete_until = 0

    def put(self, pid: int, started: int, selectors: int) -> None:
        exec, parent = struct.pack("<QII", started, pid, 0), bytes(16)
        head = bytes(RECORD) + struct.pack("<IiIHH", HOOK, 0, 0, 1, 0) + exec + parent
        record = head.ljust(HEAD, b"\0") + struct.pack("<Q", selectors)
        self.data += struct.pack("<II", len(record), 0) + record + bytes(-len(record) % 8)

    def batch(self) -> memoryview:
        return memoryview(self.data)

    def advance(self, count: int) -> None:
        self.data, self.position = self.data[count:], self.position + count


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def started(pid: int) -> int:
    return procfs.start_ticks(pid) * TICK


def react(ring: Bytes, fresh: FreshRecords | None = None) -> ProcessKiller:
    found = ProcessKiller({HOOK: 0b10}, [].append)
    for record in (fresh or FreshRecords()).of(ring):  # type: ignore[arg-type]
        found.react(record)
    return found


def test_the_process_of_an_event_is_killed(sleeper: "subprocess.Popen[bytes]") -> None:
    ring = Bytes()
    ring.put(sleeper.pid, started(sleeper.pid), 0b110)
    assert react(ring).killed == 1
    assert sleeper.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(("selectors", "earlier"), [(0b101, 0), (0b10, 1_000_000_000)])
def test_the_agent_does_not_act_for_other_selectors_or_on_a_reused_pid(
    sleeper: "subprocess.Popen[bytes]", selectors: int, earlier: int
) -> None:
    ring = Bytes()
    ring.put(sleeper.pid, started(sleeper.pid) - earlier, selectors)
    assert react(ring).killed == 0
    assert sleeper.poll() is None


def test_a_zombie_counts_as_ended() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        ring = Bytes()
        ring.put(process.pid, started(process.pid), 0b10)
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        found = react(ring)
    assert (found.killed, found.gone) == (0, 1)


def test_processes_that_have_ended_are_counted() -> None:
    with subprocess.Popen(["true"]) as process:
        ring = Bytes()
        ring.put(process.pid, started(process.pid), 0b10)
    assert react(ring).gone == 1


def test_no_event_is_examined_twice_while_it_waits_to_be_sent() -> None:
    ring, fresh = Bytes(), FreshRecords()
    ring.put(1 << 30, 0, 0b10)
    assert react(ring, fresh).gone == 1
    assert react(ring, fresh).gone == 0
    size = len(ring.data)
    ring.put(1 << 30, 0, 0b10)
    ring.advance(size)
    assert react(ring, fresh).gone == 1


# GetUrl and DnsLookup: what the other side does costs the agent little.


@pytest.fixture(name="stuck")
def look_ups_that_never_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    asked, over = list[str](), threading.Event()

    def look_up(name: str, *_: object, **__: object) -> None:
        asked.append(name)
        over.wait(60)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(policy_source, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(policy_source, "MOST_IN_A_SECOND", 10_000)
    yield asked
    over.set()


def counted(requests: OutsideRequests) -> tuple[int, int]:
    found = requests.add_to(GadgetStats()).requests
    assert found is not None
    return found.failed, found.left_out


def test_a_look_up_that_never_ends_is_given_up_and_so_many_are_not_repeated(stuck: list[str]) -> None:
    said: list[str] = []
    requests = OutsideRequests({}, said.append)
    for number in range(40):
        requests._queue.put(("name", f"n{number}.test"))
        wait_until(lambda expected=number + 1: sum(counted(requests)) == expected)  # type: ignore[misc]
    assert counted(requests) == (16, 24)
    assert len(stuck) == 16
    assert said[0] == "n0.test could not be looked up: no answer within 0.05 s"
    requests.finish()
