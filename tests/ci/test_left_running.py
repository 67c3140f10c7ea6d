"""Orphans of COMMAND are counted, whatever they do to hide."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kubectl_gadget.ci.left_running import LeftRunning

HOPPER = """
import os
while True:
    if os.fork():
        os._exit(0)
"""
"""A program that is another process at each look."""


@pytest.fixture
def left() -> Iterator[LeftRunning]:
    found = LeftRunning()
    yield found
    found.close()


def orphan(left: LeftRunning, script: str) -> int:
    """The number of processes that are left of a script that has ended."""
    subprocess.run(["sh", "-c", script], check=True)
    return asyncio.run(left.wait(0))


def test_a_process_that_detached_is_found_with_its_descendants_until_it_ends(left: LeftRunning) -> None:
    assert orphan(left, "true") == 0
    read, write = os.pipe()
    command = "setsid sh -c 'echo $$; sleep 300; true' </dev/null &"
    subprocess.run(["sh", "-c", command], check=True, stdout=write)
    pid = int(os.read(read, 20))
    assert asyncio.run(left.wait(0)) in (1, 2)
    os.killpg(pid, signal.SIGKILL)
    assert asyncio.run(left.wait(60)) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_forks_and_ends_all_the_time_is_found(left: LeftRunning) -> None:
    child = os.fork()
    if not child:
        os.setsid()
        os.execv(sys.executable, [sys.executable, "-c", HOPPER])
    os.waitpid(child, 0)
    try:
        assert all(asyncio.run(left.wait(0)) for _ in range(20))
    finally:
        while asyncio.run(left.wait(0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)


def test_zombies_are_reaped(left: LeftRunning) -> None:
    orphan(left, "(true &) ; (true &)")
    # Those that are not reaped are found at each look.
    assert asyncio.run(left.wait(60)) == 0


def test_children_that_were_there_before_are_not_counted() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        left = LeftRunning()
        assert orphan(left, "true") == 0
        left.close()
