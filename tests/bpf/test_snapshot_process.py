"""snapshot process: processes that are there, in a known state."""

import os
import signal
import threading
import time

import pytest

from tests.bpf.answers import Answers

pytestmark = pytest.mark.bpf
TIMES = 23
STOPPED, ZOMBIE = 4, 0x20


def test_each_process_is_there_once() -> None:
    pids = []
    for _ in range(TIMES):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
    try:
        with Answers("snapshot_process") as snapshot:
            records = snapshot.take()
            lost = snapshot.lost
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert sorted(record["pid"] for record in records if record["ppid"] == os.getpid()) == sorted(pids)
    (own,) = [record for record in records if record["pid"] == os.getpid()]
    assert len({record["pid"] for record in records}) == len(records)
    with open("/proc/self/cmdline") as file:
        # A command line of many file names is cut, and says so.
        assert file.read().startswith("\0".join(own["args"]).removesuffix("\0…"))
        assert len(own["args"]) > 1
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(own["memory"] - resident) < 16 << 20
    assert own["started"] < time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert lost == 0


def test_threads_are_shown_when_asked_for() -> None:
    over = threading.Event()
    threads = [threading.Thread(target=over.wait) for _ in range(TIMES)]
    for thread in threads:
        thread.start()
    try:
        with Answers("snapshot_process", pid=os.getpid(), threads=True) as snapshot:
            records = snapshot.take()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {thread.native_id for thread in threads} <= {record["tid"] for record in records}
    assert {record["threads"] for record in records} == {len(records)}


def test_states_are_those_of_the_processes() -> None:
    stopped, ended = os.fork(), 0
    if stopped == 0:
        signal.pause()
    ended = os.fork()
    if ended == 0:
        os._exit(0)
    os.kill(stopped, signal.SIGSTOP)
    os.waitpid(stopped, os.WUNTRACED)
    os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
    try:
        with Answers("snapshot_process") as snapshot:
            states = {record["pid"]: record["state"] for record in snapshot.take()}
    finally:
        os.kill(stopped, signal.SIGKILL)
        os.waitpid(stopped, 0)
        os.waitpid(ended, 0)
    assert states[stopped] & STOPPED
    assert states[ended] & ZOMBIE
