"""Opens files that processes of containers see, without ever waiting for a container.

A container may mount a FUSE file system, whose server answers when it likes: whoever looks up a name there, or opens or
reads a file, waits for that long, and cannot be killed. So paths are walked name by name, and what lies on such a mount
is refused before anything is asked of it. A path with links is resolved inside the process's root: an absolute link
would lead out of it, into our own. The trap: stat() and statfs() ask the server, too; the number of a mount, in fdinfo,
does not. Not noticed is FUSE below an overlayfs.
"""

import errno
import os
import stat
from collections.abc import Iterator

from kubectl_gadget.agent.host import procfs

_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MOST_LINKS = 40
"""As in the kernel."""
_MOST_ANCESTORS = 64


def open_inside(pid: int | str, path: str, flags: int = _READ) -> int:
    """Opens a file below the root of a process. Raises OSError, with EREMOTEIO for what a program serves."""
    with _Walk(pid) as walk:
        walk.go(path)
        return walk.last() if flags & os.O_PATH else os.open(f"/proc/self/fd/{walk.place}", flags)


def open_link(pid: int, name: str) -> int:
    """Opens what /proc/PID/NAME leads to, such as `exe`. Raises OSError, as open_inside()."""
    place = os.open(f"/proc/{pid}/{name}", os.O_PATH | os.O_CLOEXEC)
    try:
        _check(pid, place)
        return os.open(f"/proc/self/fd/{place}", _READ)
    finally:
        os.close(place)


def root_status(pid: int) -> os.stat_result:
    """Returns the status of a process's root. Raises OSError, as open_inside()."""
    with _Walk(pid) as walk:
        return os.fstat(walk.place)


class _Walk:
    """A walk from the root of a process; `place` is an O_PATH descriptor."""

    def __init__(self, pid: int | str) -> None:
        self._pid = pid
        self._places = [os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)]
        self._mounts: list[bytes] = []
        """of places; each was found not to be served"""

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

    def last(self) -> int:
        """The same, which stays open after the walk."""
        return self._places.pop()

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
        mount = _mount_of(place)
        if mount != self._mounts[-1]:
            _check(self._pid, place)
        self._mounts.append(mount)

    def _up(self) -> None:
        if len(self._places) > 1:
            os.close(self._places.pop())
            self._mounts.pop()


def _check(pid: int | str, place: int) -> bytes:
    """Returns the number of the mount, which cannot be used again while the descriptor is open."""
    mount = _mount_of(place)
    kind = next((found for each in _of_same_mounts(pid) if (found := _kind_of(each, mount))), None)
    if kind is None or kind.startswith(b"fuse"):
        raise OSError(errno.EREMOTEIO, "a program serves its file system, and may not answer")
    return mount


def _mount_of(place: int) -> bytes:
    with open(f"/proc/self/fdinfo/{place}", "rb") as file:
        return next((line.split()[1] for line in file if line.startswith(b"mnt_id:")), b"")


def _kind_of(pid: int | str, mount: bytes) -> bytes | None:
    """Returns the type of a mount's file system; None if the process does not see the mount."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            line = next((line for line in file if line.startswith(mount + b" ")), b"")
        fields = line.split(b" ")
        return fields[fields.index(b"-", 6) + 1]
    except (OSError, ValueError, IndexError):
        return None


def _of_same_mounts(pid: int | str) -> Iterator[int | str]:
    """Yields the process, and ancestors with the same mounts: one that has changed its root sees fewer of them."""
    yield pid
    namespace = procfs.link(f"/proc/{pid}/ns/mnt")
    for _ in range(_MOST_ANCESTORS if isinstance(pid, int) else 0):
        pid = procfs.parent(int(pid))
        if not pid or procfs.link(f"/proc/{pid}/ns/mnt") != namespace:
            return
        yield pid
