"""Files that processes with other roots see: links stay inside, and nothing waits for a file system that a program
serves.
"""

import ctypes
import errno
import mmap
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubectl_gadget.agent.host import foreign_files, procfs
from kubectl_gadget.agent.host.foreign_files import (
    FileSystems,
    Rechecks,
    open_inside,
    open_link,
    status_inside,
    through_one_of,
)
from kubectl_gadget.agent.policies.files import identity_of
from kubectl_gadget.agent.symbols.uprobes import MappedFiles
from tests.bpf import fuse
from tests.waiting import wait_until

pytestmark = pytest.mark.root
PAGE = mmap.PAGESIZE
MAP_FIXED = 16
CLONE_NEWNS = 0x20000
ARG_START = 45
"""The field of /proc/PID/stat, counted from the one after the name."""
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


@contextmanager
def process_in(root: Path, flags: int = 0) -> Iterator[int]:
    """A process with another root, until the block ends. `flags` as of unshare()."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(send)
        if libc.unshare(flags):
            os._exit(1)
        os.chroot(root)
        os.chdir("/")
        os.read(receive, 1)
        os._exit(0)
    os.close(receive)
    try:
        wait_until(lambda: os.path.samefile(f"/proc/{child}/cwd", root))
        yield child
    finally:
        os.close(send)
        os.waitpid(child, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "below").mkdir(parents=True)
    (folder / "file").write_text("inside")
    (tmp_path / "file").write_text("outside")
    return folder


def content(pid: int, path: str) -> str:
    with open(open_inside(pid, path)) as file:
        return file.read()


@pytest.mark.parametrize("target", ["/file", "../file", "../../file", "/below/../file", "./../below//../file"])
def test_links_lead_to_what_the_process_sees(root: Path, target: str) -> None:
    (root / "below" / "link").symlink_to(target)
    (root / "again").symlink_to("below/link")
    (root / "folder").symlink_to("/below")
    with process_in(root) as pid:
        for path in ("/file", "file", "below/link", "/again", "/folder/link", "../below/./../../file"):
            assert content(pid, path) == "inside"


@pytest.mark.parametrize(
    ("path", "number"), [("/nothing", errno.ENOENT), ("/loop", errno.ELOOP), ("/file/x", errno.ENOTDIR)]
)
def test_a_missing_file_is_an_error(root: Path, path: str, number: int) -> None:
    (root / "loop").symlink_to("loop")
    before = len(os.listdir("/dev/fd"))
    with process_in(root) as pid, pytest.raises(OSError, match=os.strerror(number)):
        open_inside(pid, path)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("held", [fuse.LOOKUP, fuse.GETATTR, fuse.OPEN])
def test_no_request_is_sent_to_a_fuse_file_system(root: Path, held: int) -> None:
    """Whatever the path to it."""
    served = root / "served"
    (root / "link").symlink_to("/served/file")
    with fuse.mounted(served, {"file": b"text"}, {held}) as server:
        with process_in(root) as pid:
            for path in ("/served/file", "/link", "/served"):
                refuses(lambda path=path: open_inside(pid, path))
            assert content(pid, "/file") == "inside"
        refuses(lambda: open_inside(os.getpid(), str(served / "file")))
        assert set(server.asked) <= {fuse.INIT}


@pytest.fixture(params=["openat2", "name by name"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without openat2(), which a seccomp profile may refuse."""
    if request.param != "openat2":
        monkeypatch.setattr(foreign_files, "_OPENAT2", 1 << 20)


@pytest.mark.usefixtures("way")
def test_a_file_is_opened_beneath_its_folder_only(root: Path) -> None:
    def opened(path: str, folder: str = "/below") -> str:
        with os.fdopen(foreign_files.open_beneath(str(root), folder, path)) as file:
            return file.read()

    (root / "below" / "bundle").mkdir()
    (root / "below" / "bundle" / "file").write_text("text")
    (root / "below" / "link").symlink_to("../file")
    (root / "below" / "away").symlink_to("/")
    (root / "below" / "magic").symlink_to("/proc/self/root/etc")
    os.mkfifo(root / "below" / "fifo")
    assert opened("bundle/file") == "text"
    for path in ("../file", "bundle/../../file", "link", "away/file", "magic/hosts", "/etc/hosts", "fifo", "bundle"):
        with pytest.raises(OSError, match=r"."):
            opened(path)


@pytest.mark.usefixtures("way")
def test_a_fuse_file_system_beneath_a_folder_gets_no_request(root: Path) -> None:
    with fuse.mounted(root / "served", {"file": b"text"}, {fuse.LOOKUP, fuse.GETATTR, fuse.OPEN}) as server:
        for path in ("served/file", "served"):
            with pytest.raises(OSError, match=r"."):
                foreign_files.open_beneath("", str(root), path)
        assert set(server.asked) <= {fuse.INIT}


def test_a_container_that_has_changed_its_root_by_chroot_is_read(root: Path) -> None:
    """No process of its mount namespace lists the mount of its root."""
    with process_in(root, CLONE_NEWNS) as pid:
        assert f" {root} " not in Path(f"/proc/{pid}/mountinfo").read_text()
        assert content(pid, "/file") == "inside"
        assert status_inside(pid, "/").st_ino == root.stat().st_ino
        assert identity_of([pid], "/file") == identity_of([os.getpid()], str(root / "file"))


def test_a_fuse_file_system_known_only_by_its_device_gets_no_request_either(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_files, "_of_same_mounts", lambda pid: iter(()))
    with fuse.mounted(root / "served", {"file": b"text"}, {fuse.LOOKUP, fuse.GETATTR, fuse.OPEN}) as server:
        refuses(lambda: open_inside(os.getpid(), str(root / "served")))
        assert set(server.asked) <= {fuse.INIT}
        assert content(os.getpid(), str(root / "file")) == "inside"
        monkeypatch.setattr(foreign_files, "_device", lambda place: b"")
        with pytest.raises(OSError, match="mount is not listed"):
            open_inside(os.getpid(), str(root / "file"))


def test_a_fuse_root_gets_no_request(root: Path) -> None:
    with fuse.mounted(root / "served", {}, ()) as server, process_in(root / "served") as pid:
        asked = server.asked.copy()
        refuses(lambda: status_inside(pid, "/"))
        refuses(lambda: open_inside(pid, "/file"))
        assert server.asked == asked


def test_a_program_on_a_fuse_file_system_is_not_opened(root: Path) -> None:
    program = Path("/bin/sleep").read_bytes()
    with fuse.mounted(root / "served", {"sleep": program}, ()) as server:
        pid = os.fork()  # spawn would wait for the server, a thread, without letting it run
        if not pid:
            os.execv(root / "served" / "sleep", ["sleep", "1000"])
        try:
            wait_until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("/served/sleep"))
            opens = server.asked.count(fuse.OPEN)
            refuses(lambda: open_link(pid, "exe"))
            files = MappedFiles(lambda _: True, lambda name: name == "sleep")
            assert not [one for one in files.look().values() if one.pid == pid]
            assert server.asked.count(fuse.OPEN) == opens
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_the_arguments_of_a_process_never_wait(root: Path) -> None:
    """The kernel does not read them from a file that is mapped there (Linux 4.17)."""
    receive, send = os.pipe()
    with fuse.mounted(root / "served", {"file": bytes(PAGE)}, {fuse.READ}) as server:
        pid = os.fork()
        if not pid:
            start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[ARG_START])
            file = os.open(root / "served" / "file", os.O_RDONLY)
            place = libc.mmap(start & -PAGE, PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE | MAP_FIXED, file, 0)
            os.write(send, b"y" if place == start & -PAGE else b"n")
            signal.pause()
        try:
            assert os.read(receive, 1) == b"y"
            procfs.command_line(pid)
            assert fuse.READ not in server.asked
        finally:
            os.kill(pid, signal.SIGKILL)
            server.release()
            os.waitpid(pid, 0)


def refuses(opened: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="may not answer") as error:
        opened()
    assert error.value.errno == errno.EREMOTEIO


# Of each file system the processes are known, and one that lasts is asked.


@pytest.fixture
def later() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_a_short_program_does_not_take_the_place_of_the_process_that_was_known_first(
    later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = {os.getpid()}
    monkeypatch.setattr(procfs, "pids", lambda: pids)
    found = FileSystems(lambda cgroup: True)
    assert list(found.look().values()) == [[os.getpid()]]
    pids.add(later)
    assert list(found.look().values()) == [[os.getpid(), later]]
    pids.remove(os.getpid())
    assert list(found.look().values()) == [[later]]


def test_the_next_process_is_asked_only_where_one_has_ended(later: int) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert through_one_of([ended.pid, os.getpid(), later], opened_root) == os.getpid()
    assert through_one_of([ended.pid], opened_root) is None

    def refuse(pid: int) -> int:
        asked.append(pid)
        raise FileNotFoundError

    asked: list[int] = []
    with pytest.raises(FileNotFoundError):
        through_one_of([ended.pid, later, os.getpid()], refuse)
    assert asked == [ended.pid, later]


def opened_root(pid: int) -> int:
    os.close(os.open(f"/proc/{pid}/root", os.O_RDONLY))
    return pid


# New things are looked at soon and often, old ones rarely.


def test_old_things_are_checked_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(foreign_files.time, "monotonic", lambda: now)
    found, looks = Rechecks[str](), []
    for tenth in range(200):
        now = 100.0 + tenth / 10
        looks += [tenth] * len(found.due({"a"}))
    assert looks[:6] == [0, 1, 3, 8, 18, 38]
    assert looks[6:] == [88, 138, 188]


def test_a_thing_that_reappears_is_new() -> None:
    found = Rechecks[str]()
    assert found.due({"a", "b"})
    assert not found.due({"a", "b"})
    found.due({"b"})
    assert found.due({"a", "b"}) == ["a"]
