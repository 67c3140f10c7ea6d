"""Other ways to a file, to a program: which of them a policy still holds up, by path and by the file itself.

Each is tried by a process against a file, a program and a script, of which one set is guarded by path and another one
by device and inode. docs/policies.md has the same table, and a test compares them. A way that fails for another reason
would look held, so each is tried on a file that nobody guards first.
"""

import ctypes
import functools
import mmap
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kubectl_gadget.policies.model import Action, Argument, Hook, HookFilter, Policy, Selector, Subject, Test, Value
from tests.bpf import deeds
from tests.bpf.policy_engine import in_force
from tests.bpf.test_policy import in_child
from tests.bpf.uring import Request, Uring
from tests.vm import modules

pytestmark = pytest.mark.bpf
EACCES = 13
DENY = (Action("Override", error=-EACCES),)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWCGROUP = 0x20000, 0x10000000, 0x20000000, 0x2000000
MS_BIND, MS_PRIVATE, MS_REC = 4096, 1 << 18, 16384
RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 4, 8
O_PATH = 0o10000000
SCRIPT = "script"
DOCS = Path(__file__).parents[2] / "docs" / "policies.md"
_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """Of `syscall`: errors are negative numbers."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def mount(source: Path, target: Path, flags: int) -> None:
    if _libc.mount(bytes(source), bytes(target), None, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), "mount")


def unshare(flags: int) -> None:
    if _libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")


def by_its_name(path: Path) -> None:
    path.read_bytes()


def roundabout(path: Path) -> None:
    os.chdir(path.parent)
    Path(f"../{path.parent.name}/./{path.name}").read_bytes()


def by_openat2(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    how = ctypes.create_string_buffer(bytes(16) + RESOLVE_BENEATH.to_bytes(8, "little"), 24)
    checked(deeds.syscall(deeds.OPENAT2, folder, os.fsencode(path.name), how, 24))


def by_handle(path: Path) -> None:
    checked(deeds.open_by_handle_at(path, os.O_RDONLY))


def by_uring(path: Path) -> None:
    with Uring() as ring:
        checked(ring.open([Request(bytes(path))])[0])


def by_urings_worker(path: Path) -> None:
    with Uring() as ring:
        checked(ring.open([Request(bytes(path), in_worker=True)])[0])


def by_symbolic_link(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        link.symlink_to(path)
        link.read_bytes()


def by_proc_root(path: Path) -> None:
    Path(f"/proc/self/root{path}").read_bytes()


def by_descriptor_of_a_path(path: Path) -> None:
    fd = os.open(path, O_PATH)
    Path(f"/proc/self/fd/{fd}").read_bytes()


def in_chroot(path: Path) -> None:
    os.chroot(path.parent)
    Path(f"/{path.name}").read_bytes()


def in_nested_namespaces(path: Path) -> None:
    unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWCGROUP)
    if code := os.waitstatus_to_exitcode(in_child(path.read_bytes)):
        raise OSError(code, "in a process of the new namespaces")


def by_hard_link(path: Path) -> None:
    link = path.parent.parent / f"{path.parent.name}-hard-link"
    link.hardlink_to(path)
    link.read_bytes()


def by_bind_mount(path: Path) -> None:
    unshare(CLONE_NEWNS)
    mount(Path("/"), Path("/"), MS_PRIVATE | MS_REC)
    target = path.parent.parent / f"{path.parent.name}-mounted"
    target.mkdir()
    mount(path.parent, target, MS_BIND)
    (target / path.name).read_bytes()


def after_a_rename(path: Path) -> None:
    moved = path.parent.parent / f"{path.parent.name}-moved"
    path.parent.rename(moved)
    try:
        (moved / path.name).read_bytes()
    finally:
        moved.rename(path.parent)


def run(arguments: list[str]) -> None:
    """As the current process: how it is refused is an OSError."""
    os.execv(arguments[0], arguments)


def as_a_program(path: Path) -> None:
    run([str(path)])


def by_its_descriptor(path: Path) -> None:
    os.execve(os.open(path, os.O_RDONLY), ["x"], {})


def as_an_interpreter(path: Path) -> None:
    script = path.parent.parent / f"{path.parent.name}-script"
    script.write_text(f"#!{path}\n")
    script.chmod(0o755)
    run([str(script)])


def through_the_loader(path: Path) -> None:
    loader = next(Path("/lib64").glob("ld-linux-*"))
    done = subprocess.run([loader, path], capture_output=True, check=False)
    if done.returncode:
        raise OSError(EACCES if b"failed to map" in done.stderr else 255, done.stderr)


def as_a_script(path: Path) -> None:
    run([str(path.parent / SCRIPT)])


def as_its_interpreters_argument(path: Path) -> None:
    run(["/bin/sh", str(path.parent / SCRIPT)])


def as_a_copy(path: Path) -> None:
    copy = path.parent.parent / f"{path.parent.name}-copy"
    shutil.copy(path, copy)
    run([str(copy)])


def from_memory_alone(path: Path) -> None:
    fd = os.memfd_create("copy", 0)
    os.write(fd, path.read_bytes())
    os.execve(fd, ["x"], {})


class Way(NamedTuple):
    """`told`: as docs/policies.md calls it."""

    told: str
    deed: Callable[[Path], None]
    by_path: bool = True
    by_file: bool = True


READS = (
    Way("its name", by_its_name),
    Way("`..` and `.`", roundabout),
    Way("a symbolic link", by_symbolic_link),
    Way("`openat2()`", by_openat2),
    Way("`open_by_handle_at()`", by_handle),
    Way("io_uring", by_uring),
    Way("io_uring's workers", by_urings_worker),
    Way("`/proc/self/root`", by_proc_root),
    Way("`/proc/self/fd` of an O_PATH descriptor", by_descriptor_of_a_path),
    Way("chroot", in_chroot),
    Way("nested user, mount, PID and cgroup namespaces", in_nested_namespaces),
    Way("a hard link", by_hard_link, by_path=False),
    Way("a bind mount", by_bind_mount, by_path=False),
    Way("a folder that was renamed", after_a_rename, by_path=False),
)
RUNS = (
    Way("execution", as_a_program),
    Way("`fexecve()`", by_its_descriptor),
    Way("a script's interpreter", as_an_interpreter),
    Way("the dynamic loader as the program", through_the_loader),
    Way("a script, executed", as_a_script),
    Way("a script as its interpreter's argument", as_its_interpreters_argument, by_path=False, by_file=False),
    Way("a copy with another name", as_a_copy, by_path=False, by_file=False),
    Way("a memfd with a copy", from_memory_alone, by_path=False, by_file=False),
)


def hook(target: str, type: str, members: tuple[str, ...], path: Path, by_path: bool) -> Hook:
    """Denies a file by its path, or by device and inode. Of mappings those of code."""
    numbers = tuple(
        Argument(0, name, resolve=(*members, "f_inode", *last))
        for name, last in (("uint64", ("i_ino",)), ("uint32", ("i_sb", "s_dev")))
    )
    status = path.stat()
    # The kernel's own numbers of devices have 20 bits for the minor one.
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)

    def at(position: int, test: Test, value: Value) -> HookFilter:
        return HookFilter(Subject("argument", position), test, (value,))

    filters: tuple[HookFilter, ...] = (at(1, "equal", status.st_ino), at(2, "equal", device))
    if by_path:
        filters = (at(0, "equal", str(path)),)
    arguments: tuple[Argument, ...] = (Argument(0, type), *numbers)
    if target == "mmap_file":
        arguments, filters = (*arguments, Argument(1, "ulong")), (*filters, at(3, "mask", mmap.PROT_EXEC))
    return Hook("lsm", target, arguments=arguments, selectors=(Selector(filters=filters, actions=DENY),))


def guard(file: Path, program: Path, by_path: bool) -> Policy:
    return Policy(
        "by path" if by_path else "by file",
        hooks=(
            hook("file_open", "file", (), file, by_path),
            hook("bprm_check_security", "linux_binprm", ("file",), program, by_path),
            hook("bprm_check_security", "linux_binprm", ("file",), program.parent / SCRIPT, by_path),
            hook("mmap_file", "file", (), program, by_path),
        ),
    )


def fill(folder: Path) -> None:
    """Makes the folder, with the file and the programs that the ways lead to."""
    folder.mkdir()
    (folder / "secret").write_text("secret")
    shutil.copy("/bin/true", folder / "tool")
    (folder / SCRIPT).write_text("#!/bin/sh\n:\n")
    (folder / SCRIPT).chmod(0o755)


@pytest.fixture(scope="module")
def folders() -> Iterator[dict[str, Path]]:
    """One whose files are guarded by path, one whose files are by inode, and one without a policy."""
    with tempfile.TemporaryDirectory() as name:
        found = {kind: Path(name) / kind.replace(" ", "-") for kind in ("by path", "by file", "free")}
        for folder in found.values():
            fill(folder)
        guards = (
            guard(found[kind] / "secret", found[kind] / "tool", kind == "by path") for kind in ("by path", "by file")
        )
        with in_force(*guards, enforce=True, pid=0):
            yield found


@pytest.mark.parametrize("way", [*READS, *RUNS], ids=lambda way: way.deed.__name__)
def test_a_way_is_denied_as_the_table_says(way: Way, folders: dict[str, Path]) -> None:
    name = "secret" if way in READS else "tool"

    def outcome(kind: str) -> int:
        return os.waitstatus_to_exitcode(in_child(functools.partial(way.deed, folders[kind] / name)))

    if code := outcome("free"):
        pytest.skip(f"this way does not work here at all: {os.strerror(code)}")
    expected = {"by path": EACCES if way.by_path else 0, "by file": EACCES if way.by_file else 0}
    assert {kind: outcome(kind) for kind in expected} == expected


def test_a_file_of_a_containers_image_is_reported_once(tmp_path: Path) -> None:
    modules.load("overlay")
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "secret").write_text("secret")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    if _libc.mount(b"overlay", bytes(tmp_path / "merged"), b"overlay", ctypes.c_ulong(0), options.encode()):
        pytest.skip(f"overlayfs cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    postfix = HookFilter(Subject("argument", 0), "postfix", ("/secret",))
    selectors = (Selector(filters=(postfix,)),)
    hooks = (
        Hook("lsm", "file_open", arguments=(Argument(0, "file"),), selectors=selectors),
        Hook("lsm", "file_permission", arguments=(Argument(0, "file"), Argument(1, "int")), selectors=selectors),
    )
    try:
        with in_force(Policy("watch", hooks=hooks)) as enforcer:
            fd = os.open(tmp_path / "merged" / "secret", os.O_RDONLY)
            os.read(fd, 100)
            os.close(fd)
            matches = [(match.place.hook.target, match.values[0]) for match in enforcer.matches()]
    finally:
        _libc.umount(bytes(tmp_path / "merged"))
    assert [(name, value and value.text.decode()) for name, value in matches] == [
        ("file_open", f"{tmp_path}/merged/secret"),
        ("file_permission", f"{tmp_path}/merged/secret"),
    ]


def test_the_table_of_the_docs_is_what_is_tried() -> None:
    rows = re.findall(r"^\| (.+?) \|.*\| (held|not held) \| (held|not held) \|$", DOCS.read_text(), re.MULTILINE)
    words = {True: "held", False: "not held"}
    assert rows == [(way.told, words[way.by_path], words[way.by_file]) for way in (*READS, *RUNS)]
