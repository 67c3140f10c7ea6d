"""run.py: what a run is started with."""

import io
from collections.abc import Coroutine

import pytest

from kubectl_gadget.cli.run import run
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.kube import read_turns
from kubectl_gadget.run.run_options import GadgetRun, RunOptions


def test_the_loop_of_a_run_on_a_cluster_reads_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(work: Coroutine[object, object, int]) -> int:
        work.close()
        return 77

    monkeypatch.setattr(read_turns, "run", started)
    monkeypatch.setattr("kubectl_gadget.cli.run.give_back_what_is_freed", lambda: None)  # of this process
    options = RunOptions((GadgetRun(load_gadget("trace_open")),))
    assert run(options, io.StringIO(), io.StringIO()) == 77
