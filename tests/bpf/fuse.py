"""A FUSE file system whose server answers when a test lets it: what a container mounts to make the kernel wait.

    with fuse.mounted(tmp_path / "mount", {"link": Path("/secret"), "file": b"text"}, holds={fuse.READLINK}) as server:
        …                          # in another thread or process: open(tmp_path / "mount" / "link")
        server.wait()              # until the kernel asks for what is held
        server.release()           # the answer to it, and to all later ones

A process that waits for an answer cannot be killed, so everything is answered in the end, and the mount goes.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

LOOKUP, FORGET, GETATTR, READLINK, OPEN, READ, STATFS, RELEASE = 1, 2, 3, 5, 14, 15, 17, 18
FLUSH, INIT, OPENDIR, RELEASEDIR, ACCESS, INTERRUPT, BATCH_FORGET = 25, 26, 27, 29, 34, 36, 42
_EMPTY = (FLUSH, RELEASE, RELEASEDIR, ACCESS)
_UNANSWERED = (FORGET, BATCH_FORGET, INTERRUPT)
_ROOT = 1
_HEAD = struct.Struct("<IIQQIIII")
_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """`files` are texts, and paths for symbolic links, by name. Requests of the kinds in `holds` are not answered."""

    def __init__(self, device: int, files: Mapping[str, bytes | Path], holds: Collection[int]) -> None:
        self._device = device
        self._names = ["", *files]
        self._files = files
        self._holds = set(holds)
        self._held: list[tuple[int, bytes]] = []
        self._lock = threading.Condition()
        self.asked: list[int] = []
        """the kinds of requests so far"""

    def serve(self) -> None:
        with suppress(OSError):  # ENODEV: it was unmounted
            while True:
                request = os.read(self._device, 1 << 20)
                _, kind, *_ = _HEAD.unpack_from(request)
                with self._lock:
                    self.asked.append(kind)
                    if kind in self._holds:
                        self._held.append((kind, request))
                    self._lock.notify_all()
                if kind not in self._holds:
                    self._answer(kind, request)

    def wait(self, count: int = 1) -> None:
        """Until so many requests are held."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self._held) >= count, 60), f"only {self.asked}"

    def release(self) -> None:
        with self._lock:
            self._holds.clear()
            held, self._held = self._held, []
        for kind, request in held:
            self._answer(kind, request)

    def _answer(self, kind: int, request: bytes) -> None:
        if kind in _UNANSWERED:
            return
        unique, node = _HEAD.unpack_from(request)[2:4]
        body = self._body(kind, node, request[_HEAD.size :])
        error, text = (-body, b"") if isinstance(body, int) else (0, body)
        with suppress(OSError):  # who asked does not wait any more
            os.write(self._device, struct.pack("<IiQ", 16 + len(text), error, unique) + text)

    def _body(self, kind: int, node: int, asked: bytes) -> bytes | int:
        """An answer, or an errno."""
        if kind == INIT:
            return struct.pack("<IIIIHHIIHHI", 7, 31, 1 << 16, 0, 16, 12, 1 << 16, 1, 0, 0, 0).ljust(64, b"\0")
        if kind == LOOKUP:
            name = asked.partition(b"\0")[0].decode()
            if name not in self._files:
                return errno.ENOENT
            number = self._names.index(name) + _ROOT
            return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + self._attributes(number)
        if kind == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        if kind in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, 0, 0)
        if kind == STATFS:
            return bytes(80)
        content = self._content(node)
        if kind == READLINK:
            return content
        if kind == READ:
            _, start, size = struct.unpack_from("<QQI", asked)
            return content[start : start + size]
        return b"" if kind in _EMPTY else errno.ENOSYS

    def _content(self, node: int) -> bytes:
        found = self._files.get(self._names[node - _ROOT], b"")
        return bytes(found)

    def _attributes(self, node: int) -> bytes:
        file = self._files.get(self._names[node - _ROOT])
        mode = stat.S_IFDIR if file is None else stat.S_IFLNK if isinstance(file, Path) else stat.S_IFREG
        return struct.pack("<QQQQQQIII", node, len(self._content(node)), 0, 0, 0, 0, 0, 0, 0) + struct.pack(
            "<IIIIIII", mode | 0o755, 1, 0, 0, 0, 4096, 0
        )


@contextmanager
def mounted(folder: Path, files: Mapping[str, bytes | Path], holds: Collection[int]) -> Iterator[Server]:
    """Mounts it at a new folder. Skips the test where there is no FUSE."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"/dev/fuse cannot be opened here: {error.strerror}")
    folder.mkdir()
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _libc.mount(b"test", bytes(folder), b"fuse", 0, options):
        os.close(device)
        pytest.skip(f"no FUSE file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    server = Server(device, files, holds)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.release()
        _libc.umount2(bytes(folder), _DETACH)
        thread.join()
        os.close(device)
