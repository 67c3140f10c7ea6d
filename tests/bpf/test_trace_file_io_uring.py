"""trace file: what io_uring makes, removes, renames, links and changes, without a system call of its own."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds, uring
from tests.bpf.deeds import AT_FDCWD
from tests.bpf.test_trace_open_io_uring import why_no_uring
from tests.bpf.tracer import kept
from tests.bpf.uring import IOSQE_ASYNC, IOSQE_CQE_SKIP_SUCCESS, Uring

pytestmark = [pytest.mark.bpf, pytest.mark.skipif(why_no_uring() is not None, reason=f"io_uring: {why_no_uring()}")]
AT_REMOVEDIR = 0x200
FALLOCATE = 17
ENOENT, ENOTDIR, EINVAL, EOPNOTSUPP = 2, 20, 22, 95
UNKNOWN = -1
NONE = 2**64 - 1
IN_32_BITS = 2**32


class Texts:
    """Addresses of texts that live as long as this does."""

    def __init__(self) -> None:
        self._kept: list[object] = []

    def __call__(self, text: str) -> int:
        buffer = ctypes.create_string_buffer(text.encode())
        self._kept.append(buffer)
        return ctypes.addressof(buffer)


def traced(deed: Callable[[], object], **parameters: Any) -> list[dict[str, Any]]:
    """The records of `deed`, run in a child."""
    tracer = kept("trace_file", **parameters)
    lost = tracer.lost
    pid, code = deeds.in_child(deed)
    records = [record for record in tracer.records() if record["pid"] == pid]
    assert tracer.lost == lost
    assert code == 0
    return records


def told(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("operation", "errno", "path", "path_base", "to", "to_base"))


@pytest.mark.parametrize("flags", [0, IOSQE_ASYNC])
def test_each_request_is_seen_once_with_its_directory(tmp_path: Path, flags: int) -> None:
    here = str(tmp_path)

    def deed() -> None:
        text = Texts()
        directory = os.open(tmp_path, os.O_RDONLY)
        os.chdir("/")
        with Uring() as ring:
            for operation, fd, address, second, length, more in (
                (uring.MKDIRAT, directory, text("a"), 0, 0o750, 0),
                (uring.SYMLINKAT, directory, text("../x"), text("e"), 0, 0),
                (uring.RENAMEAT, directory, text("e"), text(f"{here}/f"), AT_FDCWD % IN_32_BITS, 0),
                (uring.LINKAT, directory, text("f"), text("a/g"), directory, 0),
                (uring.UNLINKAT, AT_FDCWD, text(f"{here}/a/g"), 0, 0, 0),
                (uring.UNLINKAT, directory, text("f"), 0, 0, 0),
                (uring.UNLINKAT, directory, text("a"), 0, 0, AT_REMOVEDIR),
                (uring.UNLINKAT, directory, text("a"), 0, 0, AT_REMOVEDIR),
            ):
                ring.run([(operation, flags, address, second, length, more)], fd)

    assert [told(record) for record in traced(deed)] == [
        ("mkdir", 0, "a", here, None, None),
        ("symlink", 0, "e", here, "../x", None),
        ("rename", 0, "e", here, f"{here}/f", None),
        ("link", 0, "a/g", here, "f", here),
        ("unlink", 0, f"{here}/a/g", None, None, None),
        ("unlink", 0, "f", here, None, None),
        ("rmdir", 0, "a", here, None, None),
        ("rmdir", ENOENT, "a", here, None, None),
    ]


def test_lengths_and_attributes_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    def deed() -> None:
        text = Texts()
        fd = os.open(file, os.O_RDWR)
        with Uring() as ring:
            name, value = text("user.colour"), text("blue")
            for request in (
                (uring.FSETXATTR, 0, name, value, 4, 0),
                (uring.FTRUNCATE, 0, 0, 77, 0, 0),
            ):
                assert ring.run([request], fd)[0] in (0, -EOPNOTSUPP, -EINVAL)

    records = [record for record in traced(deed) if record["errno"] != EINVAL]
    assert [(record["operation"], record["path"], record["path_base"]) for record in records[:2]] == [
        ("setxattr", "", str(file)),
        ("truncate", "", str(file)),
    ][: len(records)]
    assert [(record["attribute"], record["size"]) for record in records] == [("user.colour", NONE), (None, 77)]


def test_what_is_not_reported_is_seen_without_its_result(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def deed() -> None:
        text = Texts()
        with Uring() as ring:
            request = (uring.UNLINKAT, IOSQE_CQE_SKIP_SUCCESS, text(f"{tmp_path}/file"), 0, 0, 0)
            # The kernel does not report its failure either.
            assert ring.run_silently([request, request]) == {}

    for failed in (False, True):
        records = traced(deed, path=f"{tmp_path}/", operation="unlink", failed=failed)
        assert [(record["path"], record["errno"]) for record in records] == [(f"{tmp_path}/file", UNKNOWN)] * 2
    assert not (tmp_path / "file").exists()


def test_others_are_left_out(tmp_path: Path) -> None:
    def deed() -> None:
        text = Texts()
        with Uring() as ring:
            for name in ("a", "b"):
                ring.run([(uring.MKDIRAT, 0, text(f"{tmp_path}/{name}"), 0, 0o700, 0)])
            ring.run([(uring.UNLINKAT, 0, text(f"{tmp_path}/a"), 0, 0, AT_REMOVEDIR)])

    found = [record["operation"] for record in traced(deed, path=f"{tmp_path}/a")]
    assert found == ["mkdir", "rmdir"]
    assert [record["operation"] for record in traced(deed, operation="rmdir")] == ["rmdir"]
    assert [record["errno"] for record in traced(deed, failed=True)] == [17]


def test_a_hole_in_a_file_is_seen_but_not_what_only_allocates(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(20_000))

    def deed() -> None:
        fd = os.open(file, os.O_RDWR)
        with Uring() as ring:
            for mode in (0, 1 | 2):  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
                ring.run([(FALLOCATE, 0, 8192, 4096, mode, 0)], fd)

    (record,) = traced(deed)
    assert told(record)[:4] == ("fallocate", 0, "", str(file))
    assert record["size"] == 8192
