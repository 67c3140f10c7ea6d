"""Of each file system one process is known, which lasts."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.file_systems import FileSystems


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
    assert list(found.look().values()) == [os.getpid()]
    pids.add(later)
    assert list(found.look().values()) == [os.getpid()]
    pids.remove(os.getpid())
    assert list(found.look().values()) == [later]
