"""Opens files that processes of containers see, without waiting for FUSE file systems of containers.

A container may mount a FUSE file system, whose server may never answer: a process that looks up a name there, or opens
or reads a file, waits until it does, and cannot be killed. So paths are walked name by name, and a file on such a mount
is refused before the server gets a request. Links are resolved inside the process's root; the kernel would resolve an
absolute link in our own. The trap: stat() and statfs() send requests too, but the mount's number in fdinfo, and a
statx() for no fields, do not. Two cases can still make the agent wait: FUSE below an overlayfs, and a network file
system, such as a pod's NFS volume, whose server does not answer.

open_beneath() is for files that the node itself wrote, such as a runtime's: it does not leave their folder.
FileSystems lists the roots in which the node's processes see files.
"""

import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Set
from typing import Generic, TypeVar

from kubectl_gadget.agent.host import procfs

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MOST_LINKS = 40
"""As in the kernel."""
_MOST_ANCESTORS = 64
_STATX = {"x86_64": 332, "aarch64": 291}
_WITHOUT_REQUEST = 0x1000 | 0x4000
"""AT_EMPTY_PATH | AT_STATX_DONT_SYNC"""
_DEVICE = struct.Struct("<136xII112x")
"""struct statx; the device is always filled in."""
_OPENAT2 = 437
"""The same on all architectures."""
_HOW = struct.Struct("<QQQ")
"""struct open_how"""
_NO_XDEV, _NO_MAGICLINKS, _BENEATH, _IN_ROOT = 0x01, 0x02, 0x08, 0x10
"""RESOLVE_…"""
_RETRIES = 8
"""The kernel answers EAGAIN when something above was renamed during the walk."""


def open_inside(pid: int | str, path: str) -> int:
    """Opens a regular file below the root of a process. Raises OSError, with EREMOTEIO for a file served by FUSE."""
    with _Walk(pid) as walk:
        walk.go(path)
        return _opened(walk.place)


def open_link(pid: int, name: str) -> int:
    """Opens what /proc/PID/NAME leads to, such as `exe`. Raises OSError, as open_inside()."""
    place = os.open(f"/proc/{pid}/{name}", os.O_PATH | os.O_CLOEXEC)
    try:
        _check(pid, place)
        return _opened(place)
    finally:
        os.close(place)


def status_inside(pid: int, path: str) -> os.stat_result:
    """Returns the status of a file below the root of a process. Raises OSError, as open_inside()."""
    with _Walk(pid) as walk:
        walk.go(path)
        return os.fstat(walk.place)


def identity_inside(pid: int, path: str) -> tuple[int, int]:
    """Returns device and inode of a file below the root of a process as the kernel stores them; the device has 12 bits
    of major and 20 of minor number. Raises OSError, as open_inside()."""
    with _Walk(pid) as walk:
        walk.go(path)
        major, minor = map(int, walk.device.split(b":"))
        return major << 20 | minor, int(_fdinfo(walk.place, b"ino:"))


def open_beneath(root: str, folder: str, path: str) -> int:
    """Opens a regular file whose `path` leads neither out of its folder nor to another mount, and does not wait: the
    file may not be a FIFO, and a FUSE file system below the folder gets no request. Links in `folder`, a path below
    `root`, are resolved inside the root. Raises OSError."""
    top = os.open(root or "/", _PLACE & ~os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        within = _folder_in(top, root, folder)
    finally:
        os.close(top)
    try:
        place = _openat2(within, path, _PLACE, _BENEATH | _NO_MAGICLINKS | _NO_XDEV)
        if place is None:
            place = _walked(within, path)
    finally:
        os.close(within)
    try:
        return _opened(place)
    finally:
        os.close(place)


def _folder_in(top: int, root: str, folder: str) -> int:
    flags = _PLACE & ~os.O_NOFOLLOW | os.O_DIRECTORY
    within = _openat2(top, folder.lstrip("/") or ".", flags, _IN_ROOT | _NO_MAGICLINKS)
    return os.open(f"{root}/{folder}", flags) if within is None else within


def _openat2(folder: int, path: str, flags: int, resolve: int) -> int | None:
    """Returns None where the kernel (before Linux 5.6), or a seccomp profile that does not know the call, refuses it.
    Raises OSError."""
    how = _HOW.pack(flags, 0, resolve)
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(_RETRIES):
        number = ctypes.c_long(_OPENAT2)
        found: int = libc.syscall(number, folder, os.fsencode(path), how, ctypes.c_size_t(len(how)))
        if found >= 0:
            return found
        error = ctypes.get_errno()
        if error in (errno.ENOSYS, errno.EPERM):
            return None
        if error != errno.EAGAIN:
            break
    raise OSError(error, os.strerror(error), path)


def _walked(folder: int, path: str) -> int:
    """As openat2() with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_XDEV: name by name. Raises OSError."""
    place = os.dup(folder)
    try:
        mount = _mount_of(place)
        for name in path.split("/"):
            if name in ("", ".", ".."):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
            below = os.open(name, _PLACE, dir_fd=place)
            os.close(place)
            place = below
            if _mount_of(place) != mount or stat.S_ISLNK(os.fstat(place).st_mode):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        return place
    except BaseException:
        os.close(place)
        raise


def _opened(place: int) -> int:
    """Opens a regular file; refuses pipes and devices, where opening may block or have effects."""
    if not stat.S_ISREG(os.fstat(place).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return os.open(f"/proc/self/fd/{place}", _READ)


class _Walk:
    """A walk from the root of a process; `place` is an O_PATH descriptor."""

    def __init__(self, pid: int | str) -> None:
        self._pid = pid
        self._places = [os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)]
        self._mounts: list[tuple[bytes, bytes]] = []
        """number and device of each place's mount, which was found not to be FUSE"""

    def __enter__(self) -> "_Walk":
        try:
            self._mounts.append(_check(self._pid, self._places[0]))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._places:
            os.close(self._places.pop())

    @property
    def place(self) -> int:
        return self._places[-1]

    @property
    def device(self) -> bytes:
        """The device of the mount at `place`. An overlayfs may report other devices for its files."""
        return self._mounts[-1][1]

    def go(self, path: str) -> None:
        left = path.split("/")[::-1]
        links = 0
        while left:
            name = left.pop()
            if name == "..":
                self._up()
            elif name not in ("", "."):
                self._down(name)
                if stat.S_ISLNK(os.fstat(self.place).st_mode):
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    target = os.readlink("", dir_fd=self.place)
                    self._up()
                    while target.startswith("/") and len(self._places) > 1:
                        self._up()
                    left += target.split("/")[::-1]

    def _down(self, name: str) -> None:
        place = os.open(name, _PLACE, dir_fd=self.place)
        self._places.append(place)
        last = self._mounts[-1]
        self._mounts.append(last if _mount_of(place) == last[0] else _check(self._pid, place))

    def _up(self) -> None:
        if len(self._places) > 1:
            os.close(self._places.pop())
            self._mounts.pop()


def _check(pid: int | str, place: int) -> tuple[bytes, bytes]:
    """Returns number and device of the mount. Raises OSError if it may be FUSE. The number is not reused while the
    descriptor is open."""
    mount = _mount_of(place)
    fields = _mountinfo(pid, place, mount)
    if not fields:
        raise OSError(errno.EREMOTEIO, "its mount is not listed, so its file system may be served by a program (FUSE)")
    if fields[fields.index(b"-", 6) + 1].startswith(b"fuse"):
        raise OSError(errno.EREMOTEIO, "its file system is served by a program (FUSE), which may not answer")
    return mount, fields[2]


def _mount_of(place: int) -> bytes:
    return _fdinfo(place, b"mnt_id:")


def _fdinfo(place: int, name: bytes) -> bytes:
    """Returns a number about an open file. Raises OSError if the kernel does not have it."""
    with open(f"/proc/self/fdinfo/{place}", "rb") as file:
        for line in file:
            if line.startswith(name):
                return line.split()[1]
    raise OSError(errno.ENODATA, f"no {name.decode()} in fdinfo")


def _mountinfo(pid: int | str, place: int, mount: bytes) -> list[bytes]:
    """Returns the fields of a mount in mountinfo; [] if it is not listed.

    A container whose first process has changed its root by chroot() does not list the mount that it is in. Another
    mount of the same device then shows the type, such as the one that the runtime made.
    """
    for each in _of_same_mounts(pid):
        if found := _line(each, 0, mount):
            return found
    device = _device(place)
    return next((found for each in _with_ancestors(pid) if (found := _line(each, 2, device))), [])


def _line(pid: int | str, field: int, value: bytes) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            lines = (line.split(b" ") for line in file)
            return next((fields for fields in lines if fields[field] == value and b"-" in fields[6:-1]), [])
    except (OSError, IndexError):
        return []


def _device(place: int) -> bytes:
    """Returns the device that stat() would report, as in mountinfo, without a request to the file system; empty if the
    kernel does not say."""
    found = ctypes.create_string_buffer(_DEVICE.size)
    number = _STATX.get(os.uname().machine)
    if number is None or ctypes.CDLL(None).syscall(ctypes.c_long(number), place, b"", _WITHOUT_REQUEST, 0, found):
        return b""
    return b"%d:%d" % _DEVICE.unpack(found.raw)


def _of_same_mounts(pid: int | str) -> Iterator[int | str]:
    """Yields the process, and ancestors with the same mounts: one that has changed its root sees fewer of them."""
    namespace = procfs.link(f"/proc/{pid}/ns/mnt")
    for each in _with_ancestors(pid):
        if each != pid and procfs.link(f"/proc/{each}/ns/mnt") != namespace:
            return
        yield each


def _with_ancestors(pid: int | str) -> Iterator[int | str]:
    yield pid
    for _ in range(_MOST_ANCESTORS if isinstance(pid, int) else 0):
        pid = procfs.parent(int(pid))
        if not pid:
            return
        yield pid


# The file systems that the node's processes see. Each is accessed through /proc/PID/root of one of its processes, or
# of another one when that has ended.
#
# /proc is polled, since no event says when a process changes its root.

RootId = tuple[int, int, int]
"""Mount namespace, device and inode of a process's root."""
Found = TypeVar("Found")


def through_one_of(pids: Iterable[int], look: Callable[[int], Found]) -> Found | None:
    """Returns what `look` returns for the first of these processes that has not ended; None when all have. Raises
    OSError, when `look` does so for a process that has not ended."""
    for pid in pids:
        try:
            return look(pid)
        except OSError:
            if procfs.link(f"/proc/{pid}/root"):
                raise
    return None


class FileSystems:
    """`wanted_cgroup` decides by a path in /proc/PID/cgroup whether a cgroup's processes matter."""

    def __init__(self, wanted_cgroup: Callable[[str], bool]) -> None:
        self._wanted_cgroup = wanted_cgroup
        self._rechecks = Rechecks[int]()
        self._roots: dict[int, RootId | None] = {}
        """of processes"""

    def look(self) -> dict[RootId, list[int]]:
        """Returns the processes of each file system. Those known longest come first: they are the least likely to
        end."""
        present = procfs.pids()
        for gone in self._roots.keys() - present:
            del self._roots[gone]
        for pid in self._rechecks.due(present):
            self._roots[pid] = self._root_of(pid)
        found: dict[RootId, list[int]] = {}
        for pid, root in self._roots.items():
            if root:
                found.setdefault(root, []).append(pid)
        return found

    def _root_of(self, pid: int) -> RootId | None:
        """Returns None when the process is gone, a kernel thread, or not wanted."""
        try:
            if not procfs.link(f"/proc/{pid}/exe") or not self._wanted_cgroup(procfs.cgroup(pid)):
                return None
            root = status_inside(pid, "/")
            return os.stat(f"/proc/{pid}/ns/mnt").st_ino, root.st_dev, root.st_ino
        except OSError:
            return None


# When to check things again whose changes no event reports, such as what a process has mapped: often while they are
# new, rarely when they are old.

Key = TypeVar("Key", bound=Hashable)

INTERVALS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two checks of one thing; the last value is repeated."""


class Rechecks(Generic[Key]):
    """The times of the next checks."""

    def __init__(self) -> None:
        self._next: dict[Key, tuple[int, float]] = {}
        """number of checks, and when the next one is due"""

    def due(self, present: Set[Key]) -> list[Key]:
        """Returns the things to check now, in any order. Forgets what is not present."""
        now = time.monotonic()
        for gone in self._next.keys() - present:
            del self._next[gone]
        found = []
        for key in present:
            checks, due = self._next.get(key, (0, 0.0))
            if due <= now:
                found.append(key)
                self._next[key] = checks + 1, now + INTERVALS[min(checks, len(INTERVALS) - 1)]
        return found
