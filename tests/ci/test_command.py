"""COMMAND: it waits, runs with our streams, and ends as a shell would say."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget import python_process
from kubectl_gadget.ci.command import Command, LeftRunning, user, writing_as
from kubectl_gadget.reports import files
from tests.reports.sample import report


def ended(command: Command) -> int:
    command.start()
    return asyncio.run(command.wait())


def test_nothing_runs_before_the_start(tmp_path: Path) -> None:
    command = Command(["touch", str(tmp_path / "ran")], {})
    assert Path(f"/proc/{command.pid}/status").exists()
    assert not (tmp_path / "ran").exists()
    assert ended(command) == 0
    assert (tmp_path / "ran").exists()


def test_the_command_gets_the_users_environment_and_not_what_is_for_our_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setattr(python_process, "_added", set())
    python_process.keep_numpy_single()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    words = ["sh", "-c", f'echo "$OPENBLAS_NUM_THREADS" "$OURS" >{tmp_path}/seen']
    assert ended(Command(words, {"OURS": "x"})) == 0
    assert (tmp_path / "seen").read_text() == " x\n"
    monkeypatch.setattr(python_process, "_added", set())
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    python_process.keep_numpy_single()
    assert ended(Command(words, {})) == 0
    assert (tmp_path / "seen").read_text() == "2 \n"


def test_what_nohup_ignores_the_command_ignores_as_well() -> None:
    hangup = ["sh", "-c", "kill -HUP $$; exit 7"]
    assert ended(Command(hangup, {})) == 128 + signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ended(Command(hangup, {})) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


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


@pytest.fixture
def everyones() -> Iterator[Path]:
    """A folder that every user can write; pytest's own are root's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.root
def test_a_report_does_not_follow_a_link_that_its_user_must_not_write(everyones: Path) -> None:
    secret = everyones / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    (everyones / "report.json").symlink_to(secret)
    nobody = user("nobody")
    with writing_as(nobody):
        (failure,) = files.write(report(checks=()), [files.Wanted("json", str(everyones / "report.json"))])
        files.write(report(checks=()), [files.Wanted("json", str(everyones / "new.json"))])
    assert "Permission denied" in failure
    assert secret.read_text() == "of root"
    assert (everyones / "new.json").stat().st_uid == nobody.uid
    assert os.geteuid() == 0


@pytest.mark.root
def test_a_command_runs_as_another_user_with_that_users_groups() -> None:
    nobody = user("nobody")
    script = 'test "$(id -u):$(id -G):$USER" = "$WANTED"'
    command = Command(["sh", "-c", script], {"WANTED": f"{nobody.uid}:{nobody.gid}:nobody"}, nobody)
    assert ended(command) == 0


def test_sigpipe_is_the_default_again() -> None:
    # SIGPIPE is the thirteenth bit of SigIgn.
    command = Command(["sh", "-c", "set -- $(grep SigIgn /proc/$$/status); [ $((0x$2 & 0x1000)) = 0 ]"], {})
    assert ended(command) == 0


# Orphans of COMMAND are counted, whatever they do to hide.


HOPPER = """
import os
while True:
    if os.fork():
        os._exit(0)
"""
"""A program that is another process at each look."""


@pytest.fixture
def left() -> Iterator[LeftRunning]:
    found = LeftRunning()
    yield found
    found.close()


def orphan(left: LeftRunning, script: str) -> int:
    """The number of processes that are left of a script that has ended."""
    subprocess.run(["sh", "-c", script], check=True)
    return asyncio.run(left.wait(0))


def test_a_process_that_detached_is_found_with_its_descendants_until_it_ends(left: LeftRunning) -> None:
    assert orphan(left, "true") == 0
    read, write = os.pipe()
    command = "setsid sh -c 'echo $$; sleep 300; true' </dev/null &"
    subprocess.run(["sh", "-c", command], check=True, stdout=write)
    pid = int(os.read(read, 20))
    assert asyncio.run(left.wait(0)) in (1, 2)
    os.killpg(pid, signal.SIGKILL)
    assert asyncio.run(left.wait(60)) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_forks_and_ends_all_the_time_is_found(left: LeftRunning) -> None:
    child = os.fork()
    if not child:
        os.setsid()
        os.execv(sys.executable, [sys.executable, "-c", HOPPER])
    os.waitpid(child, 0)
    try:
        assert all(asyncio.run(left.wait(0)) for _ in range(20))
    finally:
        while asyncio.run(left.wait(0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)


def test_zombies_are_reaped(left: LeftRunning) -> None:
    orphan(left, "(true &) ; (true &)")
    # Those that are not reaped are found at each look.
    assert asyncio.run(left.wait(60)) == 0


def test_children_that_were_there_before_are_not_counted() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        left = LeftRunning()
        assert orphan(left, "true") == 0
        left.close()
