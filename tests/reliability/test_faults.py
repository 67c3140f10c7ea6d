"""What breaks while a run goes on: what must be seen, and that nothing remains in the kernel or among the processes."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fake_cluster import FakeCluster
from tests.gadget_run import GADGET, PROJECT
from tests.reliability.held import held_by, until_freed, until_gone
from tests.reliability.local_run import LocalRun, child_of
from tests.waiting import PATIENCE, read_until, wait_until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
TRACE = ("trace", "open", "--host", "-o", "json")


def test_a_killed_client_takes_its_agent_with_it(tmp_path: Path) -> None:
    with LocalRun(tmp_path, *TRACE) as run:
        run.process.kill()


def test_a_closed_terminal_ends_the_run(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(PROJECT)
        os.execv(GADGET[0], [*GADGET, "trace", "open", "--host", "--local"])
    shown = b""
    while b"trace open on" not in shown:
        shown += os.read(terminal, 4096)
    agent = child_of(pid)
    held = held_by(agent)
    os.close(terminal)
    os.waitpid(pid, 0)
    until_gone(agent)
    until_freed(held)


def test_in_the_background_a_hangup_and_ctrl_c_change_nothing_and_sigterm_ends_the_run(tmp_path: Path) -> None:
    """As a script starts it with `nohup … &`."""
    file = f"/{uuid.uuid4().hex}"
    started = ("sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *GADGET, *TRACE, "--path", file, "--local")
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as rows, err.open("wb") as said, subprocess.Popen(started, stdout=rows, stderr=said) as run:
        wait_until(lambda: f"; run kill {run.pid} to stop" in err.read_text(), "the start")
        for number in (signal.SIGHUP, signal.SIGINT):
            run.send_signal(number)
        _open(file)
        wait_until(lambda: file in out.read_text(), "the row")
        run.terminate()
        assert run.wait(PATIENCE) == 128 + signal.SIGTERM
    assert re.search("^1 event in .*lost: 0$", err.read_text(), re.MULTILINE), err.read_text()


def test_a_killed_agent_ends_a_local_run_with_an_error(tmp_path: Path) -> None:
    with LocalRun(tmp_path, *TRACE) as run:
        os.kill(run.agent, signal.SIGKILL)
        assert run.process.wait(PATIENCE) == 1
    assert "its agent ended" in run.said()


def test_a_full_disk_is_named_and_ends_the_run(tmp_path: Path) -> None:
    file = f"/{uuid.uuid4().hex}"  # what others open must not end the run before its agent is known
    with Path("/dev/full").open("wb") as full, LocalRun(tmp_path, *TRACE, "--path", file, stdout=full) as run:
        _open(file)
        assert run.process.wait(PATIENCE) == 1
    assert "the output cannot be written: No space left on device" in run.said()


def test_a_reader_that_has_enough_ends_the_run_in_silence(tmp_path: Path) -> None:
    with LocalRun(tmp_path, *TRACE, stdout=subprocess.PIPE) as run:
        assert run.process.stdout
        wait_until(lambda: Path("/etc/hosts").read_bytes(), "an open")
        assert json.loads(run.process.stdout.readline())["timestamp"]
        run.process.stdout.close()
        wait_until(lambda: Path("/etc/hosts").read_bytes() and run.process.poll() is not None, "the end of the run")
        assert run.process.returncode == 0
    assert "error" not in run.said().lower()


def test_a_reader_that_goes_away_ends_a_run_that_has_nothing_to_write(tmp_path: Path) -> None:
    with LocalRun(tmp_path, *TRACE, "--path", f"/{uuid.uuid4().hex}", stdout=subprocess.PIPE) as run:
        assert run.process.stdout
        run.process.stdout.close()
        assert run.process.wait(PATIENCE) == 0
    assert "error" not in run.said().lower()


def test_two_signals_at_once_as_timeout_sends_them_end_a_run_in_order(tmp_path: Path) -> None:
    file = f"/{uuid.uuid4().hex}"
    with LocalRun(tmp_path, *TRACE, "--path", file) as run:
        for _ in range(97):
            _open(file)
        for _ in range(3):
            run.process.send_signal(signal.SIGTERM)
            run.process.send_signal(signal.SIGHUP)
        assert run.process.wait(PATIENCE) in (128 + signal.SIGTERM, 128 + signal.SIGHUP)
    assert run.out.read_text().count(file) == 97
    assert "stopped at once" not in run.said()


def test_many_sessions_at_once_on_one_node_each_see_everything(tmp_path: Path, is_long: bool) -> None:
    opens, file = 97, f"/{uuid.uuid4().hex}"
    runs = []
    with ExitStack() as stack:
        for number in range(50 if is_long else 6):
            folder = tmp_path / str(number)
            folder.mkdir()
            runs.append(LocalRun(folder, *TRACE, "--path", file))
        for run in runs:
            stack.enter_context(run)
        for _ in range(opens):
            assert not _open(file)
        for run in runs:
            assert run.stop() == 128 + signal.SIGINT
    for run in runs:
        assert run.out.read_text().count(file) == opens
        assert run.lost == 0


def _open(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return False
    return True


AHEAD = (
    "import sys, time; from kubectl_gadget.agent import __main__\nfrom kubectl_gadget.agent.host import this_node\n"
    "clocks = this_node.clocks\n"
    "this_node.clocks = lambda: clocks() | {'realtime_ns': time.time_ns() + 10_000_000_000}\n"
    "sys.exit(__main__.main(sys.argv[1:]))"
)


async def test_a_clock_that_is_10_s_ahead_is_corrected_and_reported(tmp_path: Path) -> None:
    file = f"/{uuid.uuid4().hex}"
    right = (sys.executable, "-m", "kubectl_gadget.agent", "session")
    async with FakeCluster(2, {"node-1": right, "node-2": (sys.executable, "-c", AHEAD)}) as cluster:
        kubeconfig = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        words = ("trace", "open", "-A", "--host", "-o", "json", "--path", file, "--kubeconfig", str(kubeconfig))
        process = await asyncio.create_subprocess_exec(
            *GADGET, *words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said = await read_until(process.stderr, "on 2/2 nodes")
        begun = time.time_ns()
        for _ in range(7):
            _open(file)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            out, rest = await process.communicate()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [sum(row["node"] == node for row in rows) for node in cluster.nodes] == [7, 7]
    # Of both nodes together only as far as neither is late (--sort-wait).
    for node in cluster.nodes:
        of_node = [row["timestamp"] for row in rows if row["node"] == node]
        assert of_node == sorted(of_node)
    stamps = [row["timestamp"] for row in rows]
    limit = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun / 1e9 + 9))
    assert max(stamps) < limit
    found = re.search(r"node-2: its clock is ([\d.]+) s ahead; times are corrected", (said + rest).decode())
    assert found, (said + rest).decode()
    assert 5 < float(found[1]) < 15  # known no better than an answer's way takes
