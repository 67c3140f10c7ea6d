"""COMMAND: it waits, runs with our streams, and ends as a shell would say."""

import asyncio
import os
from pathlib import Path

import pytest

from kubectl_gadget.session.ci.command import Command


def ended(command: Command) -> int:
    command.start()
    return asyncio.run(command.wait())


def test_nothing_runs_before_the_start(tmp_path: Path) -> None:
    command = Command(["touch", str(tmp_path / "ran")], {})
    assert Path(f"/proc/{command.pid}/status").exists()
    assert not (tmp_path / "ran").exists()
    assert ended(command) == 0
    assert (tmp_path / "ran").exists()


def test_an_abandoned_command_never_runs(tmp_path: Path) -> None:
    command = Command(["touch", str(tmp_path / "ran")], {})
    command.abandon()
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(command.pid, 0)


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["/no/such"], 127, "/no/such: No such file or directory"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["sh", "-c", 'test "$OURS" = yes'], 0, ""),
    ],
)
def test_exit_codes(words: list[str], code: int, problem: str) -> None:
    command = Command(words, {"OURS": "yes"})
    assert (ended(command), command.problem) == (code, problem)


def test_sigpipe_is_the_default_again() -> None:
    # SIGPIPE is the thirteenth bit of SigIgn.
    command = Command(["sh", "-c", "set -- $(grep SigIgn /proc/$$/status); [ $((0x$2 & 0x1000)) = 0 ]"], {})
    assert ended(command) == 0
