"""Who is taken for the container runtime (gadget/processes/runtime.h), and who that only looks like it is not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bpf import deeds
from tests.bpf.test_filters import UNWANTED_HOST, WANTED, Tree, id_of
from tests.bpf.test_filters import tree as tree  # noqa: PLC0414  a fixture
from tests.bpf.test_policy_evasions import CLONE_NEWNS, CLONE_NEWPID, unshare
from tests.bpf.tracer import Tracer
from tests.vm import modules

pytestmark = pytest.mark.bpf
PROGRAM = Path(sys.executable).resolve()
CLONED = "runc_cloned:/proc/self/exe"
OPENS = ["python", "-ISc", "import os; os.access('/', 0); os.path.exists('/') and open('/etc/passwd').close()"]


def executed(tree: Tree, *, parent: str = "runc", namespaces: int = 0, more: bytes = b"", execs: int = 1) -> set[str]:
    """The names of the threads of a container that open a file, where a process of the node that is called `parent`
    forks one that executes a copy of the same program, in memory, `execs` times."""

    def child() -> None:
        (tree.container / "cgroup.procs").write_text("0")
        if namespaces & CLONE_NEWNS:
            unshare(CLONE_NEWNS)
        copy = os.memfd_create(CLONED, 0)
        os.write(copy, PROGRAM.read_bytes() + more)
        again = f"import os; os.execv('/proc/self/fd/{copy}', {OPENS})"
        os.set_inheritable(copy, True)
        os.execv(f"/proc/self/fd/{copy}", ["python", "-ISc", again] if execs == 2 else OPENS)

    def runtime() -> None:
        (tree.node / "cgroup.procs").write_text("0")
        deeds.name_thread(parent)
        if namespaces & CLONE_NEWPID:
            unshare(CLONE_NEWPID)
        assert deeds.in_child(child)[1] == 0

    verdicts = {id_of(tree.node): UNWANTED_HOST, id_of(tree.container): WANTED}
    with Tracer("trace_open", verdicts=verdicts, path="/etc/passwd") as tracer:
        assert deeds.in_child(runtime)[1] == 0
        return {record["comm"] for record in tracer.records() if record["cgroup"] == id_of(tree.container)}


@pytest.mark.parametrize("execs", [1, 2])
def test_what_runc_executes_of_itself_before_it_forks_is_the_runtimes(tree: Tree, execs: int) -> None:
    assert executed(tree, execs=execs) == set()


@pytest.mark.parametrize("execs", [1, 2])
@pytest.mark.parametrize("namespaces", [CLONE_NEWNS, CLONE_NEWPID], ids=["mount", "PID"])
def test_such_a_copy_in_namespaces_of_a_container_is_the_containers(tree: Tree, namespaces: int, execs: int) -> None:
    assert executed(tree, namespaces=namespaces, execs=execs)


def test_another_program_that_bears_the_copys_name_is_the_containers(tree: Tree) -> None:
    assert executed(tree, more=b"more")


def test_a_copy_whose_parent_is_not_runc_is_the_containers(tree: Tree) -> None:
    assert executed(tree, parent="sh")


def opened_after_its_parent_ended(tree: Tree, *, seen: bool, execs: bool) -> set[str]:
    """As executed(), but the process that the node's one forks opens the file when that one has ended, as a container
    that was created and is started later; `seen`: it has opened it before, too; `execs`: it executes a program then."""
    waits, goes = os.pipe()

    def child() -> None:
        (tree.container / "cgroup.procs").write_text("0")
        parent = os.getppid()
        if seen:
            Path("/etc/passwd").read_text()
        os.write(goes, b"c")
        while os.getppid() == parent:
            os.sched_yield()
        if execs:
            os.execv(PROGRAM, OPENS)
        Path("/etc/passwd").read_text()

    def runtime() -> None:
        (tree.node / "cgroup.procs").write_text("0")
        deeds.name_thread("runc")
        if not os.fork():
            child()
            os._exit(0)
        os.read(waits, 1)

    verdicts = {id_of(tree.node): UNWANTED_HOST, id_of(tree.container): WANTED}
    with Tracer("trace_open", verdicts=verdicts, path="/etc/passwd") as tracer:
        assert deeds.in_child(runtime)[1] == 0
        while (tree.container / "cgroup.procs").read_text():
            os.sched_yield()
        return {record["comm"] for record in tracer.records() if record["cgroup"] == id_of(tree.container)}


def test_the_runtime_is_recognized_when_its_parent_has_ended(tree: Tree) -> None:
    assert opened_after_its_parent_ended(tree, seen=True, execs=False) == set()


def test_what_it_executes_then_is_the_containers(tree: Tree) -> None:
    assert opened_after_its_parent_ended(tree, seen=True, execs=True)


def test_a_process_that_was_not_seen_with_its_parent_is_the_containers(tree: Tree) -> None:
    assert opened_after_its_parent_ended(tree, seen=False, execs=False)


def test_an_interpreter_that_was_opened_in_advance_and_has_its_parents_parent_is_the_containers(
    tree: Tree, tmp_path: Path
) -> None:
    """binfmt_misc with the flag F runs a program of its own choice in the container; CLONE_PARENT makes what that
    forks a child of the runtime."""
    interpreter, script = tmp_path / "interpreter", tmp_path / "script"
    interpreter.write_bytes(PROGRAM.read_bytes() + b"more")
    interpreter.chmod(0o755)
    magic = f"#kg{os.getpid()}"
    script.write_text(f"{magic}\n{FORKS}")
    script.chmod(0o755)

    def child() -> None:
        (tree.container / "cgroup.procs").write_text("0")
        os.execv(script, [str(script)])

    def runtime() -> None:
        (tree.node / "cgroup.procs").write_text("0")
        deeds.name_thread("runc")
        assert deeds.in_child(child)[1] == 0
        os.wait()  # for the child's child, which is this process's

    verdicts = {id_of(tree.node): UNWANTED_HOST, id_of(tree.container): WANTED}
    with binary_format(magic, interpreter), Tracer("trace_open", verdicts=verdicts, path="/etc/passwd") as tracer:
        assert deeds.in_child(runtime)[1] == 0
        records = [record for record in tracer.records() if record["cgroup"] == id_of(tree.container)]
    assert len({record["pid"] for record in records}) == 2


FORKS = f"""
import ctypes, os
libc = ctypes.CDLL(None)
child = libc.syscall({56 if deeds.X86 else 220}, 0x8000 | 17, 0, 0, 0, 0)
open("/etc/passwd").close()
os._exit(0)
"""


@contextmanager
def binary_format(magic: str, interpreter: Path) -> Iterator[None]:
    """Files that begin so are executed by the interpreter, which is opened now."""
    modules.load("binfmt_misc")
    root = Path("/proc/sys/fs/binfmt_misc")
    is_mounted = (root / "register").exists()
    if not is_mounted and subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", root], check=False).returncode:
        pytest.skip("binfmt_misc cannot be mounted here")
    entry = root / magic.removeprefix("#")
    try:
        (root / "register").write_text(f":{entry.name}:M:0:{magic}::{interpreter}:F")
        interpreter.unlink()  # it is opened already
        yield
    finally:
        if entry.exists():
            entry.write_text("-1")
        if not is_mounted:
            subprocess.run(["umount", root], check=True)
