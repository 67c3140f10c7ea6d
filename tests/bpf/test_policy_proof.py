"""A file that a policy protects stays as it is, byte for byte, and so does its peer, by whatever way somebody tries.

Descriptors from before the policy are what an attacker would have, so each way is tried with one that was open already.
What no hook can hold up (a mapping that can be written to already) has a test that says so.
"""

import ctypes
import functools
import hashlib
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from kubectl_gadget.agent.bpf import btf
from kubectl_gadget.policies.model import (
    Action,
    Argument,
    Hook,
    HookFilter,
    Policy,
    Range,
    Selector,
    Subject,
    Test,
    Value,
)
from tests.bpf.deeds import AT_FDCWD, syscall
from tests.bpf.policy_engine import Enforcer, in_force
from tests.bpf.test_policy import in_child
from tests.bpf.uring import Uring

pytestmark = pytest.mark.bpf
EACCES, MAY_WRITE = 13, 2
PAGE = mmap.PAGESIZE
DENY = (Action("Override", error=-EACCES),)
RENAMEAT2 = 316 if os.uname().machine == "x86_64" else 276
RENAME_EXCHANGE = 2
MSG_FASTOPEN = 0x20000000
_libc = ctypes.CDLL(None, use_errno=True)


def denying(kind: str, arguments: tuple[Argument, ...], *filters: HookFilter) -> Hook:
    return Hook("lsm", kind, arguments=arguments, selectors=(Selector(filters=filters, actions=DENY),))


def at(position: int, test: Test, *values: Value) -> HookFilter:
    return HookFilter(Subject("argument", position), test, values)


def protecting(folder: Path) -> Policy:
    """A guard of all files in a folder, contents, names and modes. Whatever is open or mapped already is asked again at
    each call."""
    inside = at(0, "prefix", f"{folder}/")
    file, number, path = Argument(0, "file"), Argument(1, "int"), Argument(0, "path")
    lengths = (Argument(1, "ulong"), Argument(2, "ulong"), Argument(3, "ulong"))
    # Of what is named by an entry of a folder, the folder is given as a path and the entry by its name.
    parent = at(0, "equal", str(folder))
    names = (path, Argument(1, "dentry"))
    # Since 3350607dc637 "security: Create file_truncate hook from path_truncate hook" (6.2).
    truncating = [denying("file_truncate", (file,), inside)] if btf.kernel().prototype("bpf_lsm_file_truncate") else []
    return Policy(
        "protect",
        hooks=(
            denying("file_permission", (file, number), inside, at(1, "mask", MAY_WRITE)),
            denying("mmap_file", (file, *lengths), inside, at(1, "mask", mmap.PROT_WRITE)),
            denying(
                "file_mprotect",
                (Argument(0, "file", resolve=("vm_file",)), Argument(1, "ulong")),
                inside,
                at(1, "mask", mmap.PROT_WRITE),
            ),
            *truncating,
            denying("path_truncate", (path,), inside),
            denying("path_unlink", names, parent),
            Hook(
                "lsm",
                "path_rename",
                arguments=(path, Argument(1, "dentry"), Argument(2, "path")),
                selectors=(
                    Selector(filters=(parent,), actions=DENY),
                    Selector(filters=(at(2, "equal", str(folder)),), actions=DENY),
                ),
            ),
            denying("path_chmod", (path,), inside),
            denying("bprm_check_security", (Argument(0, "linux_binprm"),), inside),
        ),
    )


def folder_of(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}")).parent


def failed(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "denied")
    return result


def checked(result: int) -> int:
    """Of `syscall`, which gives errors as negative numbers."""
    if result < 0:
        raise OSError(-result, "denied")
    return result


def buffered(fd: int) -> None:
    os.write(fd, b"x" * 100)


def at_the_end(fd: int) -> None:
    os.write(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND), b"x")


def positioned(fd: int) -> None:
    os.pwritev(fd, [b"x", b"y"], 10)


def flushed(fd: int) -> None:
    """pwritev2(), since there are flags."""
    os.pwritev(fd, [b"x"], 10, os.RWF_SYNC)


def direct(fd: int) -> None:
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, PAGE) as page:
        os.pwritev(other, [page], 0)


def splice_from_pipe(fd: int) -> None:
    read, write = os.pipe()
    os.write(write, b"x" * 100)
    os.splice(read, fd, 100)


def splice_from_socket(fd: int) -> None:
    left, right = socket.socketpair()
    left.send(b"x" * 100)
    read, write = os.pipe()
    os.splice(right.fileno(), write, 100)
    os.splice(read, fd, 100)


def sendfile(fd: int) -> None:
    with open("/proc/self/exe", "rb") as source:
        os.sendfile(fd, source.fileno(), 0, 100)


def copy_file_range(fd: int) -> None:
    with tempfile.TemporaryFile(dir=folder_of(fd).parent) as source:
        source.write(b"x" * 100)
        source.flush()
        os.copy_file_range(source.fileno(), fd, 100, 0)


def mapped(fd: int) -> None:
    with mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as page:
        page[0:4] = b"xxxx"


def mapped_for_reading_first(fd: int) -> None:
    _libc.mmap.restype = ctypes.c_void_p
    address = _libc.mmap(None, ctypes.c_size_t(PAGE), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    both = mmap.PROT_READ | mmap.PROT_WRITE
    failed(_libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), both))
    ctypes.memset(address, 0x78, 4)


def ftruncate(fd: int) -> None:
    os.ftruncate(fd, 1)


def punched(fd: int) -> None:
    failed(_libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(PAGE)))


def extended(fd: int) -> None:
    os.posix_fallocate(fd, 0, 2 * PAGE)


def uring(fd: int) -> None:
    with Uring() as ring:
        checked(ring.write(fd, b"x" * 100))


def uring_in_worker(fd: int) -> None:
    with Uring() as ring:
        checked(ring.write(fd, b"x" * 100, in_worker=True))


def by_name(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))


def truncate(fd: int) -> None:
    os.truncate(by_name(fd), 1)


def opened_and_truncated(fd: int) -> None:
    os.open(by_name(fd), os.O_WRONLY | os.O_TRUNC)


def unlink(fd: int) -> None:
    by_name(fd).unlink()


def renamed(fd: int) -> None:
    path = by_name(fd)
    path.rename(path.parent.parent / "renamed")


def replaced(fd: int) -> None:
    path = by_name(fd)
    new = path.parent.parent / f"new-{path.parent.name}"
    new.write_text("new")
    new.rename(path)


def exchanged(fd: int) -> None:
    path = by_name(fd)
    new = path.parent.parent / f"other-{path.parent.name}"
    new.write_text("new")
    checked(syscall(RENAMEAT2, AT_FDCWD, bytes(new), AT_FDCWD, bytes(path), RENAME_EXCHANGE))


def chmod(fd: int) -> None:
    by_name(fd).chmod(0o600)


def fchmod(fd: int) -> None:
    os.fchmod(fd, 0o600)


def executed(fd: int) -> None:
    os.execv(by_name(fd), ["x"])


def executed_by_descriptor(fd: int) -> None:
    program = os.open(by_name(fd), os.O_RDONLY)
    os.set_inheritable(program, True)  # the interpreter opens the script by its number
    os.execve(program, ["x"], {})


WAYS: tuple[Callable[[int], None], ...] = (
    *(buffered, at_the_end, positioned, flushed, direct, splice_from_pipe, splice_from_socket, sendfile),
    *(copy_file_range, mapped, mapped_for_reading_first, ftruncate, punched, extended, uring, uring_in_worker),
    *(truncate, opened_and_truncated, unlink, renamed, replaced, exchanged, chmod, fchmod),
    *(executed, executed_by_descriptor),
)
SCRIPT = b"#!/bin/true\n"


def state(path: Path) -> tuple[str, int, int, list[str]]:
    """What an attempt must not change: contents, mode, which file it is, and what lies beside it."""
    status = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return digest, status.st_mode, status.st_ino, sorted(os.listdir(path.parent))


class Guarded(NamedTuple):
    """Two folders with a file for each way, of which one is protected. `mapped`: of a file there, from before."""

    protected: Path
    other: Path
    mapped: mmap.mmap
    enforcer: Enforcer


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """In force for all tests here, since the verifier takes a second for each hook."""
    with tempfile.TemporaryDirectory() as name:
        protected, other = Path(name) / "protected", Path(name) / "other"
        for folder in (protected, other):
            folder.mkdir()
            for way in WAYS:
                path = folder / way.__name__
                path.write_bytes(SCRIPT + os.urandom(PAGE - len(SCRIPT)))
                path.chmod(0o755)
        (protected / "early").write_bytes(bytes(PAGE))
        with (
            (protected / "early").open("r+b") as file,
            mmap.mmap(file.fileno(), PAGE) as early,
            in_force(protecting(protected), enforce=True, pid=0) as enforcer,
        ):
            yield Guarded(protected, other, early, enforcer)


def outcome(way: Callable[[int], None], path: Path) -> int:
    """The exit code of a process that tries; the descriptor was open before, and for execution must not be."""
    fd = os.open(path, os.O_RDONLY if way in (executed, executed_by_descriptor) else os.O_RDWR)
    try:
        return os.waitstatus_to_exitcode(in_child(functools.partial(way, fd)))
    finally:
        os.close(fd)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_protected_file_stays_as_it_is(way: Callable[[int], None], guarded: Guarded) -> None:
    protected, other, _, enforcer = guarded
    path = protected / way.__name__
    # Or nothing would have been shown.
    if code := outcome(way, other / way.__name__):
        pytest.skip(f"this way does not work here at all: {os.strerror(code)}")
    before = state(path)
    enforcer.matches()
    assert outcome(way, path) == EACCES
    assert -EACCES in {match.found.verdict for match in enforcer.matches()}
    assert state(path) == before


def test_a_mapping_that_can_be_written_to_already_is_not_denied(guarded: Guarded) -> None:
    path = guarded.protected / "early"
    guarded.mapped[0] = 1
    assert path.read_bytes()[0] == 1
    with pytest.raises(PermissionError), path.open("r+b") as file:
        file.write(b"x")


def connecting(port: int) -> Policy:
    """No connection and no datagram to a port."""
    to_port = at(1, "destination_port", Range(port, port))
    socket_ = Argument(0, "socket")
    message = (socket_, Argument(1, "sockaddr", resolve=("msg_name",)))
    return Policy(
        "connecting",
        hooks=(
            denying("socket_connect", (socket_, Argument(1, "sockaddr")), to_port),
            denying("socket_sendmsg", message, to_port),
        ),
    )


def plainly(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.send(b"x")


def without_waiting(port: int) -> None:
    with socket.socket() as client:
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect(("127.0.0.1", port))
        client.setblocking(True)
        client.send(b"x")


def through_ipv6(port: int) -> None:
    with socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", port))
        client.send(b"x")


def with_the_first_data(port: int) -> None:
    with socket.socket() as client:
        client.sendto(b"x", MSG_FASTOPEN, ("127.0.0.1", port))


def by_uring(port: int) -> None:
    with socket.socket() as client, Uring() as ring:
        address = struct.pack("<HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton("127.0.0.1"))
        checked(ring.connect(client.fileno(), address))
        client.send(b"x")


def with_mptcp(port: int) -> None:
    with socket.socket(proto=262) as client:
        client.connect(("127.0.0.1", port))
        client.send(b"x")


CONNECTS = (plainly, without_waiting, through_ipv6, with_the_first_data, by_uring, with_mptcp)


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[socket.socket, socket.socket, Enforcer]]:
    """A server that may not be reached, and one that may. Both take IPv4 through IPv6, too."""
    with (
        socket.create_server(("127.0.0.1", 0)) as forbidden,
        socket.create_server(("127.0.0.1", 0)) as other,
        in_force(connecting(forbidden.getsockname()[1]), enforce=True, pid=0) as enforcer,
    ):
        yield forbidden, other, enforcer


@pytest.mark.parametrize("way", CONNECTS, ids=lambda way: way.__name__)
def test_a_forbidden_peer_gets_no_connection_and_no_byte(
    way: Callable[[int], None], ports: tuple[socket.socket, socket.socket, Enforcer]
) -> None:
    forbidden, other, enforcer = ports
    port = other.getsockname()[1]
    if code := os.waitstatus_to_exitcode(in_child(lambda: way(port))):
        pytest.skip(f"this way does not work here at all: {os.strerror(code)}")
    client, _ = other.accept()
    with client:
        assert client.recv(10) == b"x"
    enforcer.matches()
    assert os.waitstatus_to_exitcode(in_child(lambda: way(forbidden.getsockname()[1]))) == EACCES
    assert {match.found.verdict for match in enforcer.matches()} == {-EACCES}
    forbidden.settimeout(0)
    with pytest.raises(BlockingIOError):
        forbidden.accept()


def test_a_forbidden_peer_gets_no_datagram(ports: tuple[socket.socket, socket.socket, Enforcer]) -> None:
    forbidden, _, _ = ports
    with socket.socket(type=socket.SOCK_DGRAM) as peer, socket.socket(type=socket.SOCK_DGRAM) as client:
        peer.bind(("127.0.0.1", forbidden.getsockname()[1]))
        with pytest.raises(PermissionError):
            client.sendto(b"x", peer.getsockname())
        with pytest.raises(PermissionError):
            client.connect(peer.getsockname())
        peer.settimeout(0)
        with pytest.raises(BlockingIOError):
            peer.recv(10)
