"""How links are released: at once, and freed later, while no caller waits."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf import links
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import Links
from kubectl_gadget.agent.bpf.maps import HashMap
from kubectl_gadget.agent.sources.top import TopSource
from kubectl_gadget.errors import AgentError
from kubectl_gadget.gadgets import load_gadget, object_bytes
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun
from tests.agent.node import node_context


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
    monkeypatch.setattr(links.libbpf, "load", lambda: found)
    monkeypatch.setattr(links, "_unfreed", 0)
    return found


def test_links_to_perf_events_are_all_closed_before_any_event_is_freed(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_is_perf", lambda fd: True)
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
    assert not links.leave_to_child(()), "nothing is left"


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


# Perf events on all CPUs, and what is done where the kernel keeps them to itself.


def test_ranges_of_cpus_are_read(tmp_path: Path) -> None:
    (tmp_path / "online").write_text("0-2,5,7-8\n")
    assert links.online(str(tmp_path / "online")) == [0, 1, 2, 5, 7, 8]
    assert len(links.online()) >= len(os.sched_getaffinity(0))


@pytest.mark.bpf
@pytest.mark.parametrize("frequency", [0, 10_001])
def test_a_number_that_is_not_a_frequency_is_refused(frequency: int, catalogue_built: Path) -> None:
    run = GadgetRun(load_gadget("profile_cpu"), {"frequency": frequency})
    (spec,) = build([run], [{}], 4096).gadgets
    with pytest.raises(AgentError, match="samples per second"):
        TopSource(spec, object_bytes("profile_cpu", os.uname().machine), node_context({}))


@pytest.mark.bpf
def test_without_perf_events_the_tick_is_followed(monkeypatch: pytest.MonkeyPatch, catalogue_built: Path) -> None:
    def refuse(cpu: int, event: int, period: int, flags: int) -> int:
        raise Failure("perf_event_open", errno.EACCES, ["perf_event_open() failed: Permission denied"])

    monkeypatch.setattr(links, "open_event", refuse)
    run = GadgetRun(load_gadget("profile_cpu"))
    (spec,) = build([run], [{}], 4096).gadgets
    elf = object_bytes("profile_cpu", os.uname().machine)
    verdicts = HashMap("verdicts", 16)
    gadget = None
    try:
        gadget = TopSource(spec, elf, node_context({"gadget_containers": verdicts.fd}))
        (programs,) = gadget.started().programs
        assert programs.chosen == ("unwound_tick",)
        assert programs.hooks == ("tp_btf/hrtimer_expire_entry",)
        assert [skipped.program for skipped in programs.skipped] == ["unwound_clock"]
        gadget.detach()
    finally:
        if gadget:
            gadget.close()
        verdicts.close()
