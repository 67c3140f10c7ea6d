"""The answer to liveness probes: only a main loop that acts gives it."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.pod import idle as main_process
from tests.agent.client import PROJECT
from tests.waiting import PATIENCE, wait_until


def agent(folder: Path, *words: str) -> list[str]:
    return ["env", f"KUBECTL_GADGET_RUN={folder}", sys.executable, "-m", "kubectl_gadget.agent", *words]


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(agent(folder, "alive"), cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(agent(tmp_path, "idle", "--idle-timeout", "0"), cwd=PROJECT)
    pid = tmp_path / "kubectl-gadget.pid"
    wait_until(lambda: pid.exists() and pid.read_text() != "")
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    assert process.wait(PATIENCE) == 0


@pytest.mark.usefixtures("idle")
def test_a_running_agent_answers_each_probe(tmp_path: Path) -> None:
    for _ in range(3):
        assert ask(tmp_path).returncode == 0


def test_a_main_process_that_hangs_gives_no_answer(
    idle: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main_process, "PID", f"{tmp_path}/kubectl-gadget.pid")
    monkeypatch.setattr(main_process, "FIFO", f"{tmp_path}/kubectl-gadget.alive")
    idle.send_signal(signal.SIGSTOP)
    assert main_process.ask(patience=0.2) == 1
    assert "does not answer" in capsys.readouterr().err


def test_without_an_agent_there_is_no_answer(tmp_path: Path) -> None:
    done = ask(tmp_path)
    assert done.returncode == 1
    assert "has not started" in done.stderr


@pytest.mark.usefixtures("idle")
def test_a_process_for_policies_that_hangs_counts_as_not_alive(tmp_path: Path) -> None:
    state, lock = tmp_path / "kubectl-gadget.policies", tmp_path / "kubectl-gadget.policies.lock"
    state.write_text("{}")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert ask(tmp_path).returncode == 0
        long_ago = time.time() - 1000
        os.utime(state, (long_ago, long_ago))
        done = ask(tmp_path)
        assert (done.returncode, "installed policies has not acted" in done.stderr) == (1, True)
    # It has ended: the main process starts it again.
    assert ask(tmp_path).returncode == 0
