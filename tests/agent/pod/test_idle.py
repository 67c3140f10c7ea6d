"""The pod's main process."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.pod import idle as main_process
from kubectl_gadget.agent.pod import on_demand_main, presence
from kubectl_gadget.wire.frames import FrameDecoder, FrameType
from kubectl_gadget.wire.message import parse
from tests.gadget_run import PROJECT
from tests.waiting import PATIENCE, wait_until


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def idle(mark: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """The idle process, with a time-out of `request.param` seconds, that keeps its mark where the test says. A second
    number is how long it waits for sessions at its end."""
    timeout, farewell = request.param if isinstance(request.param, tuple) else (request.param, on_demand_main.FAREWELL)
    script = (
        "import sys; from kubectl_gadget.agent.pod import presence, idle, on_demand_main;"
        "watch = presence.watch; presence.watch = lambda: watch(sys.argv[1]);"
        "on_demand_main.FAREWELL = float(sys.argv[3]);"
        "sys.exit(idle.run(float(sys.argv[2])))"
    )
    # Without what this machine's packages have Python import at its start (-S): the image has none of them.
    command = [sys.executable, "-S", "-c", script, str(mark), str(timeout), str(farewell)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "KUBECTL_GADGET_RUN": str(mark.parent)}
    process = subprocess.Popen(command, cwd=PROJECT, env=environment)
    wait_until(mark.exists, "the main process")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("idle", [0.2], indirect=True)
def test_the_main_process_ends_after_the_time_without_a_session(idle: subprocess.Popen[bytes]) -> None:
    assert idle.wait(PATIENCE) == 0


@pytest.mark.parametrize("idle", [0.4], indirect=True)
def test_the_main_process_does_not_end_while_a_session_runs(idle: subprocess.Popen[bytes], mark: Path) -> None:
    session = presence.announce(str(mark))
    assert session is not None
    with pytest.raises(subprocess.TimeoutExpired):
        idle.wait(1)
    os.close(session)
    assert idle.wait(PATIENCE) == 0


@pytest.mark.parametrize("idle", [0], indirect=True)
def test_sigterm_ends_it_at_once(idle: subprocess.Popen[bytes]) -> None:
    idle.send_signal(signal.SIGTERM)
    assert idle.wait(PATIENCE) == 0


SESSION = """
import signal, sys, time
from pathlib import Path
from kubectl_gadget.agent.pod import on_demand_main, presence
from kubectl_gadget.wire.frames import FrameDecoder, FrameType
def end(*_):
    time.sleep(0.3)
    Path(sys.argv[2]).write_text("said goodbye")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
presence.announce(sys.argv[1])
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def sessions(mark: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """What two sessions write at their end, and one that has marked another file."""
    files = [tmp_path / name for name in ("first", "second", "elsewhere")]
    other = tmp_path / "other"
    other.touch()
    processes = []
    for file in files:
        words = [sys.executable, "-c", SESSION, str(other if file.name == "elsewhere" else mark), str(file)]
        processes.append(subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE))
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    yield files
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("idle", [0], indirect=True)
def test_sessions_end_before_the_main_process_and_no_others(
    idle: subprocess.Popen[bytes], sessions: list[Path]
) -> None:
    idle.send_signal(signal.SIGTERM)
    assert idle.wait(PATIENCE) == 0
    assert [file.exists() for file in sessions] == [True, True, False]


@pytest.mark.parametrize("idle", [(0, 0.5)], indirect=True)
def test_the_wait_for_a_session_that_does_not_end_is_limited(idle: subprocess.Popen[bytes], mark: Path) -> None:
    script = "from kubectl_gadget.agent.pod import presence; import signal, sys, time;"
    script += "signal.signal(signal.SIGTERM, signal.SIG_IGN); presence.announce(sys.argv[1]); print('up', flush=True);"
    words = [sys.executable, "-c", script + "time.sleep(600)", str(mark)]
    with subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"up\n"
        idle.send_signal(signal.SIGTERM)
        assert idle.wait(PATIENCE) == 0
        session.kill()


@pytest.mark.parametrize("idle", [0], indirect=True)
def test_a_session_of_the_agent_sends_its_last_frame(idle: subprocess.Popen[bytes], mark: Path) -> None:
    script = (
        "from kubectl_gadget.agent.pod import presence; import sys; from kubectl_gadget.agent.session import session;"
    )
    script += "announce = presence.announce; presence.announce = lambda: announce(sys.argv[1]); sys.exit(session.run())"
    words = [sys.executable, "-c", script, str(mark)]
    decoder = FrameDecoder()
    with subprocess.Popen(words, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert next(iter(decoder.feed(os.read(session.stdout.fileno(), 1 << 16)))).type == FrameType.HELLO
        idle.send_signal(signal.SIGTERM)
        assert idle.wait(PATIENCE) == 0
        *_, last = decoder.feed(session.stdout.read())
        assert (last.type, parse(last.payload)["reason"]) == (FrameType.END, "signal")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_the_main_process_reaps_orphans() -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    script = (
        "import sys; from kubectl_gadget.agent.pod import presence, idle; import os, signal, subprocess, time\n"
        "presence.watch = lambda: os.open('/dev/null', os.O_RDWR)\n"
        "subprocess.Popen(['sh', '-c', 'sleep 0.1 & exit 0'])\n"
        "if os.fork() == 0:\n"
        "    time.sleep(0.6)\n"
        "    states = [open(f'/proc/{p}/stat').read().split()[2] for p in os.listdir('/proc') if p.isdigit()]\n"
        "    os.write(1, b'zombies' if 'Z' in states else b'none')\n"
        "    os.kill(1, signal.SIGTERM); os._exit(0)\n"
        "sys.exit(idle.run(0))"
    )
    command = [*unshare, sys.executable, "-c", script]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, b"none"), done.stderr


@pytest.mark.parametrize("idle", [600], indirect=True)
def test_the_main_process_stays_small(idle: subprocess.Popen[bytes]) -> None:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{idle.pid}/status").read_text())
    assert found
    assert int(found[1]) <= 12 << 10


def test_a_session_that_ended_before_its_child_is_not_a_holder(tmp_path: Path) -> None:
    """The lock still names it, and its PID may be another process's by now."""
    path = str(tmp_path / "sessions")
    fd = presence.watch(path)
    code = "import os, sys; from kubectl_gadget.agent.pod import presence; fd = presence.announce(sys.argv[1]); "
    code += "os.set_inheritable(fd, True); os.execvp('sh', ['sh', '-c', sys.argv[2]])"
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen([*command, "exec cat"], stdin=subprocess.PIPE, cwd=PROJECT) as session:
        wait_until(lambda: presence.holders(fd) == [session.pid])
        session.kill()
    with subprocess.Popen([*command, "sleep 60 >&- & echo $!"], stdout=subprocess.PIPE, cwd=PROJECT) as session:
        assert session.stdout is not None
        child = int(session.stdout.readline())
    try:
        assert presence.sessions(fd)
        assert f" {session.pid} " in Path("/proc/locks").read_text()
        assert presence.holders(fd) == []
    finally:
        os.kill(child, signal.SIGKILL)
    os.close(fd)


def test_a_session_elsewhere_leaves_no_mark(tmp_path: Path) -> None:
    assert presence.announce(str(tmp_path / "none")) is None
    assert not (tmp_path / "none").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert presence.announce(str(tmp_path / "link")) is None


def test_the_command_line_is_checked() -> None:
    command = [sys.executable, "-m", "kubectl_gadget.agent"]
    for arguments, complaint in ((["idle", "--idle-timeout", "soon"], "'soon'"), (["what"], "usage:")):
        done = subprocess.run([*command, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert complaint in done.stderr


# Answers to liveness probes: only a main loop that acts gives one.


def agent(folder: Path, *words: str) -> list[str]:
    return ["env", f"KUBECTL_GADGET_RUN={folder}", sys.executable, "-m", "kubectl_gadget.agent", *words]


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(agent(folder, "alive"), cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture
def probed(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(agent(tmp_path, "idle", "--idle-timeout", "0"), cwd=PROJECT)
    pid = tmp_path / "kubectl-gadget.pid"
    wait_until(lambda: pid.exists() and pid.read_text() != "")
    yield process
    process.send_signal(signal.SIGCONT)
    process.terminate()
    assert process.wait(PATIENCE) == 0


@pytest.mark.usefixtures("probed")
def test_a_running_agent_answers_each_probe(tmp_path: Path) -> None:
    for _ in range(3):
        assert ask(tmp_path).returncode == 0


def test_a_main_process_that_hangs_gives_no_answer(
    probed: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main_process, "PID", f"{tmp_path}/kubectl-gadget.pid")
    monkeypatch.setattr(main_process, "FIFO", f"{tmp_path}/kubectl-gadget.alive")
    probed.send_signal(signal.SIGSTOP)
    assert main_process.ask(patience=0.2) == 1
    assert "does not answer" in capsys.readouterr().err


def test_without_an_agent_there_is_no_answer(tmp_path: Path) -> None:
    done = ask(tmp_path)
    assert done.returncode == 1
    assert "has not started" in done.stderr


@pytest.mark.usefixtures("probed")
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
