"""The pod's main process."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.pod import presence
from tests.agent.client import PATIENCE, PROJECT


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def idle(mark: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """The idle process, with a time-out of `request.param` seconds, that keeps its mark where the test says."""
    script = (
        "import sys; from kubectl_gadget.agent.pod import presence, idle;"
        "watch = presence.watch; presence.watch = lambda: watch(sys.argv[1]);"
        "sys.exit(idle.run(float(sys.argv[2])))"
    )
    # Without what this machine's packages have Python import at its start (-S): the image has none of them.
    command = [sys.executable, "-S", "-c", script, str(mark), str(request.param)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "KUBECTL_GADGET_RUN": str(mark.parent)}
    process = subprocess.Popen(command, cwd=PROJECT, env=environment)
    deadline = time.monotonic() + PATIENCE
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
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
        idle.wait(1.5)
    os.close(session)
    assert idle.wait(PATIENCE) == 0


@pytest.mark.parametrize("idle", [0], indirect=True)
def test_sigterm_ends_it_at_once(idle: subprocess.Popen[bytes]) -> None:
    idle.send_signal(signal.SIGTERM)
    assert idle.wait(PATIENCE) == 0


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
