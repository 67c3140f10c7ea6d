"""Installed policies in the node's bpf file system, which keeps them in force while no agent runs.

Each set of policies in force is a folder there, gNUMBER_OWNER, with its links, its maps, and one more map with the
description that an agent needs to take it over. A folder gets its name when it is complete. OWNER is the UID of the
deployment's namespace. The trap: names must not contain dots, and the file system has no regular files, so
even the description is in a map.
"""

import fcntl
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import ARRAY, OpenMap, make_map
from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import OwnedPins, ReleasedPins
from kubectl_gadget.wire.message import parse
from kubectl_gadget.wire.policy_messages import InstalledPolicy

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
        """True if no other process has removed pins of the set."""
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
        # The kernel detaches a link some time after its last pin is removed, but immediately with its last descriptor.
        for fd in found.values():
            os.close(fd)

    def _get(self, name: str, found: dict[str, int]) -> None:
        for piece in os.listdir(f"{self._folder}/{name}"):
            found[piece] = int(libbpf.load().call("bpf_obj_get", f"{self._folder}/{name}/{piece}".encode()))

    def remove_all(self, owner: str | None = None) -> int:
        """Removes all sets, or one owner's, and the folder if it is then empty. Returns how many sets there were.
        Raises OSError when one of them cannot be removed."""
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


# Owners: which deployments have policies pinned on this node, this agent's and others.
#
# The owner is in the pins' path, kubectl-gadget-policies/NAMESPACE/gNUMBER_UID in the bpf file system: so it is
# created and removed together with the pins, and can be read without BPF capabilities. UID is the namespace's, so a
# namespace that was created again is another owner. Agents cannot ask the API server whether an owner exists, so they
# list what they find (HELLO), and clients decide. The trap: trying a lock takes it for a moment, which would fail an
# agent that starts then. So whether a lock is held is read in /proc/locks.


def owners_of_others() -> tuple[OwnedPins, ...]:
    """Like owners(), without the sets that an agent of this pod's namespace keeps in force."""
    own = this_node.pod_namespace()
    return owners(lambda namespace, is_held: namespace != own or not is_held)


def owners(is_listed: Callable[[str, bool], bool] = lambda _namespace, _is_held: True) -> tuple[OwnedPins, ...]:
    """Returns the owners of what is pinned on this node. `is_listed` selects by namespace, and by whether an agent
    holds the sets."""
    sets: dict[tuple[str, str], list[str]] = {}
    for namespace, folder in _folders():
        for name in procfs.listed(folder):
            sets.setdefault((namespace, owner_of(name)), []).append(f"{folder}/{name}")
    return tuple(
        OwnedPins(
            namespace=namespace,
            uid=uid,
            sets=len(folders),
            held=held,
            policies=tuple(sorted({name for folder in folders for name in _policies(folder)})),
        )
        for (namespace, uid), folders in sorted(sets.items())
        if is_listed(namespace, held := _is_held(os.path.dirname(folders[0])))
    )


def remove_of(namespace: str, uid: str | None) -> int:
    """Removes the sets of one owner; with `uid` None, all of the namespace. Returns how many there were. Raises
    PinsTakenError when an agent holds them, and AgentError."""
    folder = dict(_folders()).get(namespace)
    if folder is None:
        return 0
    pins = Pins(folder)
    try:
        return pins.remove_all(uid)
    except OSError as error:
        raise AgentError(f"{folder} cannot be removed: {error.strerror}") from None
    finally:
        pins.close()


def _folders() -> Iterator[tuple[str, str]]:
    """Yields each namespace with pins, and its folder."""
    for namespace in procfs.listed(this_node.all_pins()):
        yield namespace, f"{this_node.all_pins()}/{namespace}"


def _policies(folder: str) -> list[str]:
    try:
        policies = parse(read_state(folder)).get("policies")
        return [InstalledPolicy.from_json(one).title for one in policies or ()]
    except (AgentError, FrameError, TypeError):
        return []  # of a version that describes them otherwise


def _is_held(folder: str) -> bool:
    try:
        status = os.stat(folder)
        with open("/proc/locks") as file:
            locks = [line.split() for line in file]
    except OSError:
        return False
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(words[1] == "FLOCK" and place in words for words in locks)


# The commands that list the policies pinned on this node, and take them out of force; both print JSON.
#
# `release own` is for the agent's own deployment: its agent puts nothing in force again until the pod is recreated.
# Other words are owners, NAMESPACE/UID. Only the client can find out whether an owner still exists, so sets that a
# running agent holds are never removed as another owner's.

OWN = "own"
_SECONDS = 20.0
"""Time for the pod's process to release the policies; it ends when it finds the file."""
_SECONDS_OF_OTHERS = 3.0
"""Time for another command to release them: two clients may undeploy at the same time."""


def list_pins() -> int:
    """Prints the list of all owners."""
    sys.stdout.write(json.dumps([one.to_json() for one in owners()]) + "\n")
    return 0


def release(words: Sequence[str]) -> int:
    """Takes policies out of force. Prints how many sets each owner had, and why sets of other owners are kept."""
    deadline = time.monotonic() + (_SECONDS if OWN in words else _SECONDS_OF_OTHERS)
    if OWN in words:
        with open(presence.RELEASE, "w"):
            pass
    removed: dict[str, int] = {}
    kept: dict[str, str] = {}
    for word in words:
        try:
            removed[word] = _release(word, deadline)
        except AgentError as error:
            kept[word] = str(error)
    sys.stdout.write(json.dumps(ReleasedPins(removed=removed, kept=kept).to_json()) + "\n")
    return 0


def _release(word: str, deadline: float) -> int:
    namespace, _, uid = word.partition("/")
    while True:
        try:
            if word == OWN:
                return remove_of(this_node.pod_namespace() or this_node.NO_NAMESPACE, None)
            return remove_of(namespace, uid)
        except PinsTakenError:
            if time.monotonic() >= deadline:
                raise AgentError("a running agent keeps them in force") from None
            time.sleep(0.1)
