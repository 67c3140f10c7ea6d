"""Perf events on all CPUs, and what is done where the kernel keeps them to itself."""

import errno
import os
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import sampling
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import HashMap
from kubectl_gadget.agent.sources.top import TopSource
from kubectl_gadget.errors import AgentError
from kubectl_gadget.gadgets import load_gadget, object_bytes
from kubectl_gadget.run.request import build
from kubectl_gadget.run.run_options import GadgetRun
from tests.agent.node import node_context


def test_ranges_of_cpus_are_read(tmp_path: Path) -> None:
    (tmp_path / "online").write_text("0-2,5,7-8\n")
    assert sampling.online(str(tmp_path / "online")) == [0, 1, 2, 5, 7, 8]
    assert len(sampling.online()) >= len(os.sched_getaffinity(0))


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

    monkeypatch.setattr(sampling, "open_event", refuse)
    run = GadgetRun(load_gadget("profile_cpu"))
    (spec,) = build([run], [{}], 4096).gadgets
    elf = object_bytes("profile_cpu", os.uname().machine)
    verdicts = HashMap("verdicts", 16)
    gadget = None
    try:
        gadget = TopSource(spec, elf, node_context({"gadget_containers": verdicts.fd}))
        (programs,) = gadget.started().programs
        assert programs.chosen == ("tick",)
        assert programs.hooks == ("tp_btf/hrtimer_expire_entry",)
        assert [skipped.program for skipped in programs.skipped] == ["clock"]
        gadget.detach()
    finally:
        if gadget:
            gadget.close()
        verdicts.close()
