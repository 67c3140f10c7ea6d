"""Installed policies in the node's bpf file system, which keeps them in force while no agent runs.

Each set of policies in force is a folder there, gNUMBER_OWNER, with its links, its maps, and one more map with the
description that an agent needs to take it over. A folder gets its name when it is complete. OWNER is the UID of the
deployment's namespace (owners.py). The trap: names must not contain dots, and the file system has no regular files, so
even the description is in a map.
"""

import fcntl
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import ARRAY, OpenMap, make_map
from kubectl_gadget.errors import AgentError

_PIECE = 4096
_STATE = "state"
_BEGUN = "begun"
_NUMBER = 6
"""Number of digits; fixed, so that names sort."""


class PinsTakenError(AgentError):
    """Another process holds the folder: an agent that is about to end."""


class Pins:
    """The folder of pins, held by one process at a time. Raises AgentError when it cannot be obtained."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pieces: dict[str, set[str]] = {}
        """names of the pins of each set that was pinned or opened here"""
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise AgentError(
                f"{folder} cannot be created or opened: {error.strerror}", "mount -t bpf bpf /sys/fs/bpf"
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(folder)  # the process that held the lock may have removed the folder
        except (BlockingIOError, FileNotFoundError):
            os.close(self._fd)
            raise PinsTakenError(f"another agent uses {folder}") from None

    def names(self) -> list[str]:
        """Returns the complete sets, oldest first. Incomplete ones are removed."""
        found = os.listdir(self._folder)
        for name in found:
            if name.startswith(_BEGUN):
                self.remove(name)
        return sorted(name for name in found if not name.startswith(_BEGUN))

    def pin(self, pieces: Mapping[str, int], state: bytes, owner: str) -> str:
        """Pins file descriptors by name, and `state`. `owner` is a UID, or empty. Returns the new folder's name. Raises
        AgentError, and then leaves nothing pinned."""
        # A number is not used again, since an old set with it may still have to be removed.
        number = max((int(name[1 : 1 + _NUMBER]) for name in [*self.names(), *self._pieces]), default=0) + 1
        folder = f"{self._folder}/{_BEGUN}"
        try:
            os.mkdir(folder, mode=0o700)
            lib = libbpf.load()
            for name, fd in pieces.items():
                lib.call("bpf_obj_pin", fd, f"{folder}/{name}".encode())
            with _array_of(state) as text:
                lib.call("bpf_obj_pin", text, f"{folder}/{_STATE}".encode())
            name = named(f"g{number:0{_NUMBER}}", owner)
            self._pieces[name] = {*pieces, _STATE}
            os.rename(folder, f"{self._folder}/{name}")
        except (OSError, Failure) as error:
            _remove(folder, ignore_errors=True)
            what = error.strerror if isinstance(error, OSError) else os.strerror(error.errno)
            raise AgentError(
                f"nothing can be pinned in {self._folder}: {what}", "mount -t bpf bpf /sys/fs/bpf"
            ) from None
        return name

    def open(self, name: str) -> tuple[dict[str, int], bytes]:
        """Opens a set: returns file descriptors by name, and the state. Raises AgentError."""
        found: dict[str, int] = {}
        try:
            self._get(name, found)
            self._pieces[name] = set(found)
            return found, _read(found.pop(_STATE))
        except (OSError, Failure, KeyError, zlib.error) as error:
            for fd in found.values():
                os.close(fd)
            raise AgentError(f"{self._folder}/{name} cannot be taken over: {error}") from None

    def is_complete(self, name: str) -> bool:
        """Whether no other process has removed pins of the set."""
        try:
            return self._pieces[name] <= set(os.listdir(f"{self._folder}/{name}"))
        except OSError:
            return False

    def remove(self, name: str) -> None:
        """Unpins a set. Links that no other process holds are detached when this returns."""
        found: dict[str, int] = {}
        with suppress(OSError, Failure):
            self._get(name, found)
        _remove(f"{self._folder}/{name}", ignore_errors=True)
        # The kernel detaches a link some time after its last pin is removed, but at once with its last descriptor.
        for fd in found.values():
            os.close(fd)

    def _get(self, name: str, found: dict[str, int]) -> None:
        for piece in os.listdir(f"{self._folder}/{name}"):
            found[piece] = int(libbpf.load().call("bpf_obj_get", f"{self._folder}/{name}/{piece}".encode()))

    def remove_all(self, owner: str | None = None) -> int:
        """Removes all sets, or those of one owner, and the folder if it is then empty. Returns how many sets there
        were. Raises OSError when one of them cannot be removed."""
        names = [name for name in os.listdir(self._folder) if owner in (None, owner_of(name))]
        for name in names:
            self.remove(name)
        for name in names:
            with suppress(FileNotFoundError):
                _remove(f"{self._folder}/{name}")
        if not os.listdir(self._folder):
            os.rmdir(self._folder)
        return len(names)

    def close(self) -> None:
        os.close(self._fd)


def named(name: str, owner: str) -> str:
    """Returns the name of a set's folder with the owner's UID."""
    return f"{name}_{owner}" if owner else name


def owner_of(name: str) -> str:
    """Returns the UID in the name of a set's folder; empty if it was pinned without one."""
    return name.partition("_")[2]


def read_state(folder: str) -> bytes:
    """Returns the description in a set's folder. Raises AgentError."""
    try:
        return _read(int(libbpf.load().call("bpf_obj_get", f"{folder}/{_STATE}".encode())))
    except (OSError, Failure, zlib.error) as error:
        raise AgentError(f"{folder} cannot be read: {error}") from None


@contextmanager
def _array_of(text: bytes) -> Iterator[int]:
    """Yields the file descriptor of a kernel array map with these bytes."""
    pieces = list(_pieces(zlib.compress(text)))
    map = OpenMap(make_map(ARRAY, "policy_state", _PIECE, len(pieces)))
    try:
        for number, piece in enumerate(pieces):
            map.put(number.to_bytes(4, "little"), piece)
        yield map.fd
    finally:
        map.close()


def _pieces(data: bytes) -> Iterator[bytes]:
    whole = len(data).to_bytes(8, "little") + data
    for start in range(0, len(whole), _PIECE):
        yield whole[start : start + _PIECE].ljust(_PIECE, b"\0")


def _read(fd: int) -> bytes:
    map = OpenMap(fd)
    try:
        data = b"".join(map.get(number.to_bytes(4, "little")) or b"" for number in range(map.entries))
    finally:
        map.close()
    return zlib.decompress(data[8 : 8 + int.from_bytes(data[:8], "little")])


def _remove(folder: str, ignore_errors: bool = False) -> None:
    import shutil  # takes 2 ms, and sessions only list pins

    shutil.rmtree(folder, ignore_errors)
