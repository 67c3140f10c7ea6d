"""What was not seen is never taken for what did not happen: losses and late starts while a changed program runs."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from kubectl_gadget.behavior.comparison import compare
from kubectl_gadget.behavior.facts import Behavior
from tests.behavior.scenarios.changes import CHANGES
from tests.behavior.scenarios.recording import behavior_of, one_workload, own_doubts, recording, stage
from tests.behavior.scenarios.workloads import CACHE
from tests.gadget_run import GadgetRun

# The first test makes an image from packages, and records all workloads, which takes minutes beside virtual machines.
pytestmark = [pytest.mark.bpf, pytest.mark.timeout(1800)]
_CHANGE = next(change for change in CHANGES if change.name == "program in tmp")


def _judged(runs: tuple[Behavior, Behavior], recorded: Path) -> tuple[list[str], list[str]]:
    """What is new in the changed redis, and why the comparison is inconclusive."""
    old, new = one_workload(runs[0], CACHE.name), one_workload(behavior_of(recorded), CACHE.name)
    return [change.fact.says for change in compare(old, new)], own_doubts(old, new)


def _agent(run: GadgetRun) -> int:
    """The process of the agent, which is the run's only child."""
    (child,) = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    return int(child)


def test_lost_events_are_a_doubt(runs: tuple[Behavior, Behavior], namespace: str, tmp_path: Path) -> None:
    with stage(tmp_path, namespace) as pods, recording(tmp_path, namespace, "--ring-size", "64Ki") as run:
        agent = _agent(run)
        os.kill(agent, signal.SIGSTOP)
        pods.start(_CHANGE.workload)
        # More rows of processes than the ring holds.
        pods.load([replace(_CHANGE.workload, load="for i in $(seq 300); do /usr/bin/true; done")])
        os.kill(agent, signal.SIGCONT)
        pods.stop()

    _, reasons = _judged(runs, tmp_path / "run.kgr")

    assert any("lost" in reason for reason in reasons), reasons


def test_an_agent_that_pauses_sees_it_later(runs: tuple[Behavior, Behavior], namespace: str, tmp_path: Path) -> None:
    with stage(tmp_path, namespace) as pods, recording(tmp_path, namespace) as run:
        agent = _agent(run)
        os.kill(agent, signal.SIGSTOP)
        pods.start(_CHANGE.workload)
        os.kill(agent, signal.SIGCONT)
        pods.load([_CHANGE.workload])
        pods.stop()

    found, reasons = _judged(runs, tmp_path / "run.kgr")

    assert reasons or any("/tmp/x" in text for text in found), found


def test_a_late_start_is_a_doubt(runs: tuple[Behavior, Behavior], namespace: str, tmp_path: Path) -> None:
    with stage(tmp_path, namespace) as pods:
        pods.start(_CHANGE.workload)
        with recording(tmp_path, namespace):
            pods.load([_CHANGE.workload])
            pods.stop()

    found, reasons = _judged(runs, tmp_path / "run.kgr")

    assert not any("/tmp/x" in text for text in found)
    assert any("already running" in reason for reason in reasons), reasons
