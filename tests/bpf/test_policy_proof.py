"""A file that a policy protects stays as it is, byte for byte, by whatever way somebody writes to it.

The trap: descriptors and mappings from before the policy are what an attacker would have, so each way is tried with a
descriptor that was open already. Only stores to a mapping that is there already cannot be held up by any hook; the last
test says so.
"""

import ctypes
import hashlib
import mmap
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kubectl_gadget.policies.model import Action, Argument, Filter, Hook, Policy, Selector, Subject
from tests.bpf.test_policy import in_child, in_force
from tests.bpf.uring import Uring

pytestmark = pytest.mark.bpf
EACCES, MAY_WRITE = 13, 2
PAGE = mmap.PAGESIZE
SPLICE_MOVE = 1
DENY = (Action("Override", error=-EACCES),)
_libc = ctypes.CDLL(None, use_errno=True)


def protecting(path: Path) -> Policy:
    """A guard of a file's contents: descriptors may be open already, so each write and mapping is asked."""
    is_file = Filter(Subject("argument", 0), "equal", (str(path),))

    def mask(position: int, bits: int) -> Filter:
        return Filter(Subject("argument", position), "mask", (bits,))

    def selector(*filters: Filter) -> tuple[Selector, ...]:
        return (Selector(filters=(is_file, *filters), actions=DENY),)

    file, number = Argument(0, "file"), Argument(1, "int")
    lengths = (Argument(1, "ulong"), Argument(2, "ulong"), Argument(3, "ulong"))
    return Policy(
        "protect",
        hooks=(
            Hook("lsm", "file_permission", arguments=(file, number), selectors=selector(mask(1, MAY_WRITE))),
            Hook("lsm", "mmap_file", arguments=(file, *lengths), selectors=selector(mask(1, mmap.PROT_WRITE))),
            Hook("lsm", "file_truncate", arguments=(file,), selectors=selector()),
            Hook("lsm", "path_truncate", arguments=(Argument(0, "path"),), selectors=selector()),
        ),
    )


def failed(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "denied")
    return result


def buffered(fd: int) -> None:
    os.write(fd, b"x" * 100)


def positioned(fd: int) -> None:
    os.pwritev(fd, [b"x", b"y"], 10)


def direct(fd: int) -> None:
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, PAGE) as page:
        os.pwritev(other, [page], 0)


def splice(fd: int) -> None:
    read, write = os.pipe()
    os.write(write, b"x" * 100)
    os.splice(read, fd, 100)


def tee_from_socket(fd: int) -> None:
    left, right = socket.socketpair()
    left.send(b"x" * 100)
    read, write = os.pipe()
    os.splice(right.fileno(), write, 100)
    os.splice(read, fd, 100)


def sendfile(fd: int) -> None:
    with open("/proc/self/exe", "rb") as source:
        os.sendfile(fd, source.fileno(), 0, 100)


def copy_range(fd: int) -> None:
    with tempfile.TemporaryFile(dir=Path(os.readlink(f"/proc/self/fd/{fd}")).parent) as source:
        source.write(b"x" * 100)
        source.flush()
        os.copy_file_range(source.fileno(), fd, 100, 0)


def mapping(fd: int) -> None:
    with mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as page:
        page[0:4] = b"xxxx"


def truncated(fd: int) -> None:
    os.ftruncate(fd, 1)


def punched(fd: int) -> None:
    failed(_libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(PAGE)))


def extended(fd: int) -> None:
    os.posix_fallocate(fd, 0, 2 * PAGE)


def uring(fd: int) -> None:
    with Uring() as ring:
        if (result := ring.write(fd, b"x" * 100)) < 0:
            raise OSError(-result, "denied")


def uring_in_worker(fd: int) -> None:
    with Uring() as ring:
        if (result := ring.write(fd, b"x" * 100, in_worker=True)) < 0:
            raise OSError(-result, "denied")


WAYS: tuple[Callable[[int], None], ...] = (
    *(buffered, positioned, direct, splice, tee_from_socket, sendfile, copy_range, mapping, truncated, punched),
    *(extended, uring, uring_in_worker),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_protected_file_stays_as_it_is(way: Callable[[int], None], tmp_path: Path) -> None:
    path, other = tmp_path / "protected", tmp_path / "other"
    for each in (path, other):
        each.write_bytes(os.urandom(PAGE))
    before = hashlib.sha256(path.read_bytes()).digest()
    fd, control = os.open(path, os.O_RDWR), os.open(other, os.O_RDWR)
    with in_force(protecting(path), enforce=True, pid=0):
        # The way works where nothing is protected, or nothing would have been shown.
        if (code := os.waitstatus_to_exitcode(in_child(lambda: way(control)))) != 0:
            pytest.skip(f"here this way to write does not work at all: {os.strerror(code)}")
        assert os.waitstatus_to_exitcode(in_child(lambda: way(fd))) == EACCES
    assert hashlib.sha256(path.read_bytes()).digest() == before
    os.close(fd)
    os.close(control)


def test_a_mapping_from_before_cannot_be_held_up(tmp_path: Path) -> None:
    path = tmp_path / "protected"
    path.write_bytes(bytes(PAGE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), PAGE) as page:
        with in_force(protecting(path), enforce=True, pid=0):
            page[0] = 1
        assert path.read_bytes()[0] == 1
