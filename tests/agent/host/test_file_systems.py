"""Of each file system the processes are known, and one that lasts is asked."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.file_systems import FileSystems, through_one_of


@pytest.fixture
def later() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_a_short_program_does_not_take_the_place_of_the_process_that_was_known_first(
    later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = {os.getpid()}
    monkeypatch.setattr(procfs, "pids", lambda: pids)
    found = FileSystems(lambda cgroup: True)
    assert list(found.look().values()) == [[os.getpid()]]
    pids.add(later)
    assert list(found.look().values()) == [[os.getpid(), later]]
    pids.remove(os.getpid())
    assert list(found.look().values()) == [[later]]


def test_the_next_process_is_asked_only_where_one_has_ended(later: int) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert through_one_of([ended.pid, os.getpid(), later], opened_root) == os.getpid()
    assert through_one_of([ended.pid], opened_root) is None

    def refuse(pid: int) -> int:
        asked.append(pid)
        raise FileNotFoundError

    asked: list[int] = []
    with pytest.raises(FileNotFoundError):
        through_one_of([ended.pid, later, os.getpid()], refuse)
    assert asked == [ended.pid, later]


def opened_root(pid: int) -> int:
    os.close(os.open(f"/proc/{pid}/root", os.O_RDONLY))
    return pid
