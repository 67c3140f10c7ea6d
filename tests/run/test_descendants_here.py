"""--pid N --descendants on this machine, and what is left out of --host: the agent and its client."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gadget_run import GADGET, PROJECT, GadgetRun

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]
FAMILY = Path(__file__).parent / "programs" / "family.py"
ALL = {"itself", "old-child", "old-grandchild", "child", "of-thread", "daemon", "daemon-exec", "sibling"}


class Family:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(FAMILY), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin
        assert self.process.stdout
        self._in, self._out = self.process.stdin, self.process.stdout
        self.child = int(self._out.readline())

    def go(self) -> None:
        """Until all have opened their files."""
        self._in.write("\n")
        self._in.flush()
        assert self._out.readline() == "done\n"

    def end(self) -> None:
        self._in.close()
        self.process.wait()
        self._out.close()


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    found = Family(tmp_path / "family")
    yield found
    found.end()


def opened(run: GadgetRun, folder: Path) -> set[str]:
    paths = [row["path"] for row in run.rows() if row.get("operation", "open") == "open"]
    return {path.removeprefix(f"{folder}/") for path in paths if path and path.startswith(f"{folder}/")}


@pytest.mark.parametrize("gadget", ["open", "fileuse"])
def test_all_descendants_are_followed_old_ones_new_ones_and_daemons(
    family: Family, tmp_path: Path, gadget: str
) -> None:
    words = ("trace", gadget, "--local", "--host", "-o", "json", "--pid", str(family.process.pid), "--descendants")
    with GadgetRun(tmp_path, *words) as run:
        (family.folder / "stranger").touch()
        family.go()
        assert run.stop() == 130
    assert opened(run, family.folder) == ALL


def test_without_the_flag_it_is_one_process(family: Family, tmp_path: Path) -> None:
    words = ("trace", "open", "--local", "--host", "-o", "json", "--pid", str(family.process.pid))
    with GadgetRun(tmp_path, *words) as run:
        family.go()
        assert run.stop() == 130
    assert opened(run, family.folder) == {"itself"}


def test_the_parent_of_a_child_is_not_its_descendant(family: Family, tmp_path: Path) -> None:
    words = ("trace", "open", "--local", "--host", "-o", "json", "--pid", str(family.child), "--descendants")
    with GadgetRun(tmp_path, *words) as run:
        family.go()
        assert run.stop() == 130
    assert opened(run, family.folder) == {"old-child", "old-grandchild"}


@pytest.mark.parametrize("gadget", ["snapshot process", "snapshot file"])
def test_tables_are_about_the_descendants_too(family: Family, gadget: str) -> None:
    words = [*gadget.split(), "--local", "--host", "-o", "json", "--pid", str(family.process.pid), "--descendants"]
    done = subprocess.run([*GADGET, *words], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert f'"pid":{family.process.pid},' in done.stdout.replace(" ", "")
    assert f'"pid":{family.child},' in done.stdout.replace(" ", "")
    assert f'"pid":{os.getpid()},' not in done.stdout.replace(" ", "")


def own_rows(tmp_path: Path, *flags: str) -> set[int]:
    """Which of the client and its agent are seen to make system calls."""
    words = ("trace", "syscalls", "--local", "--host", "-o", "json", "--syscalls", "write,read,sendto,epoll_wait,poll")
    with GadgetRun(tmp_path, *words, *flags) as run:
        own = processes_of(run.process.pid)
        assert len(own) == 2
        if flags:
            run.until(lambda: bool(own & {row["pid"] for row in run.rows()}), "its own rows")
        else:
            os.close(os.open("/dev/null", os.O_RDONLY))
            run.until(lambda: bool(run.rows()), "a row")
        run.stop()
    return own & {row["pid"] for row in run.rows()}


def own_events(tmp_path: Path, *flags: str) -> set[int]:
    """Which of the client and its agent are in the events of a policy at bpf()."""
    policy = tmp_path / "policy.yaml"
    spec = "{kprobes: [{call: sys_bpf, syscall: true, selectors: [{matchActions: [{action: Post}]}]}]}"
    head = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: own}\n"
    policy.write_text(f"{head}spec: {spec}\n")
    with GadgetRun(tmp_path, "observe", "--local", "--host", "-o", "json", "-f", str(policy), *flags) as run:
        own = processes_of(run.process.pid)
        subprocess.run([sys.executable, "-c", BPF_CALL], check=True)
        run.until(lambda: any("process_kprobe" in row for row in run.rows()), "a call")
        if flags:
            run.until(lambda: bool(own & pids(run.rows())), "its own calls")
        run.stop()
    return own & pids(run.rows())


BPF_CALL = "import ctypes; ctypes.CDLL(None).syscall(321, -1, 0, 0)"
"""bpf() on x86-64; it fails."""


def pids(rows: list[Any]) -> set[int]:
    return {row["process_kprobe"]["process"]["pid"] for row in rows if "process_kprobe" in row}


def processes_of(client: int) -> set[int]:
    children = Path(f"/proc/{client}/task/{client}/children").read_text().split()
    return {client, *map(int, children)}


def test_the_agent_and_its_client_are_left_out_of_host_unless_they_are_asked_for(tmp_path: Path) -> None:
    assert own_rows(tmp_path) == set()
    assert own_rows(tmp_path, "--own-processes")
    assert own_events(tmp_path) == set()
    assert own_events(tmp_path, "--own-processes")


def test_a_process_of_ours_that_is_named_by_its_number_is_asked_for(tmp_path: Path) -> None:
    words = "trace syscalls --local --host -o json --syscalls write,read,sendto,epoll_wait,poll --max-events 1 --pid"
    script = f'exec "$@" {words} $$'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *GADGET], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=120
    )
    assert '"pid"' in done.stdout


def test_descendants_without_a_process_are_refused() -> None:
    words = ["trace", "open", "--local", "--descendants"]
    done = subprocess.run([*GADGET, *words], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--descendants needs a process" in done.stderr
