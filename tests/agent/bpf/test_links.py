"""How links are released: at once, and freed later, while no caller waits."""

import os
import subprocess
import sys
from typing import Any

import pytest

from kubectl_gadget.agent.bpf import links as links_module
from kubectl_gadget.agent.bpf.links import Links


class Library:
    """libbpf, whose links are numbers of file descriptors."""

    def __init__(self) -> None:
        self.destroyed: list[int] = []

    def raw(self, function: str, link: int) -> int:
        if function == "bpf_link__destroy":
            self.destroyed.append(link)
        return link


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setattr(links_module.libbpf, "load", lambda: found)
    monkeypatch.setattr(links_module, "_unfreed", 0)
    return found


def test_links_to_perf_events_are_all_closed_before_any_event_is_freed(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_module, "_is_perf", lambda fd: True)
    pipes = [os.pipe() for _ in range(70)]
    some = Links()
    assert some.release([write for _, write in pipes])
    assert library.destroyed == []
    for read, write in pipes:
        assert os.read(read, 1) == b"", "the link's file is closed"
        assert os.readlink(f"/proc/self/fd/{write}") == os.devnull, "its number is still taken"
        os.close(read)
        os.close(write)
    some.free()
    assert sorted(library.destroyed) == sorted(write for _, write in pipes)
    assert not links_module.leave_to_child(()), "nothing is left"


def test_other_links_are_destroyed_by_libbpf(library: Library) -> None:
    read, write = os.pipe()
    assert not Links().release([write])
    assert library.destroyed == [write]
    os.close(read)
    os.close(write)


LEAVES = """
import os, sys
from kubectl_gadget.agent.bpf import links
links._unfreed = 1
held, other = os.pipe()
print(os.getpid(), flush=True)
assert links.leave_to_child(())
"""


def test_the_child_that_frees_events_closes_the_streams() -> None:
    ended: Any = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.strip().isdecimal(), "its output ended with it"
    assert ended.stderr == ""
