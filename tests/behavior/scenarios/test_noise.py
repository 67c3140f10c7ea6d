"""The same program twice is no change: five real programs under random load, as pods with other names each time."""

import subprocess
from pathlib import Path

import pytest

from kubectl_gadget.behavior.comparison import compare
from kubectl_gadget.behavior.facts import Behavior, FactKind
from tests.behavior.scenarios.recording import one_workload, own_doubts
from tests.behavior.scenarios.workloads import WORKLOADS
from tests.gadget_run import GADGET, PROJECT

# The first test makes an image from packages, and records all workloads, which takes minutes beside virtual machines.
pytestmark = [pytest.mark.bpf, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("name", [workload.name for workload in WORKLOADS])
def test_two_runs_of_a_program_have_no_differences(runs: tuple[Behavior, Behavior], name: str) -> None:
    old, new = (one_workload(run, name) for run in runs)

    assert [change.fact.says for change in compare(old, new)] == []
    assert [change.fact.says for change in compare(new, old)] == []
    assert own_doubts(old, new) == []
    # The loads did reach it.
    kinds = {fact.kind for fact in new.facts if fact.workload.name == name}
    assert {FactKind.PROGRAM, FactKind.LISTEN, FactKind.OPEN} <= kinds
    assert len(new.facts) > 20


def test_the_command_says_so(recordings: tuple[Path, Path]) -> None:
    command = [*GADGET, "behavior", "diff", *map(str, recordings)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)

    # 5: there are containers of others on this machine, whose names no runtime has.
    assert done.returncode in (0, 5), done.stdout
    assert "NEW" not in done.stdout
    assert "GONE" not in done.stdout
