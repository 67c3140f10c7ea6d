"""trace open --resolve: the path that the kernel resolved, as the process sees it."""

import hashlib
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.sources.contents import Contents
from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
LONGEST_NAME = 255


def resolved(path: str | bytes, flags: int = os.O_RDONLY, deed: Any = deeds.openat) -> str | None:
    """What --resolve shows for an open of `path` in a process of its own."""
    path = os.fsencode(path)
    with Tracer("trace_open", resolve=True) as tracer:
        pid, code = deeds.in_child(lambda: deed(path, flags))
        assert code == 0
        (record,) = [item for item in tracer.records() if item["pid"] == pid and item["path"] == os.fsdecode(path)]
    assert record["fd"] >= 0, os.strerror(record["errno"])
    result: str | None = record["resolved"]
    return result


@contextmanager
def mounted(target: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_symbolic_links_and_dots_are_gone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    assert resolved(f"{tmp_path}/link/../link/./file") == f"{tmp_path}/real/file"


def test_the_root_is_a_slash() -> None:
    assert resolved("/proc/self/../..") == "/"


def test_a_relative_path_becomes_absolute(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def there(path: bytes, flags: int) -> None:
        os.chdir(tmp_path)
        deeds.openat(path, flags)

    assert resolved("file", deed=there) == f"{tmp_path}/file"


def test_mounts_are_crossed(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    with mounted(outer):
        inner = outer / "inner"
        inner.mkdir()
        with mounted(inner):
            (inner / "file").touch()
            assert resolved(inner / "file") == f"{inner}/file"
            assert resolved(inner) == str(inner)


def test_a_chroot_changes_no_path(tmp_path: Path) -> None:
    (tmp_path / "jail").mkdir()
    (tmp_path / "jail" / "file").touch()

    def jailed(path: bytes, flags: int) -> None:
        os.chroot(tmp_path / "jail")
        deeds.openat(path, flags)

    assert resolved("/file", deed=jailed) == f"{tmp_path}/jail/file"


def test_a_container_sees_paths_from_its_own_root(tmp_path: Path) -> None:
    """A mount namespace whose root is a mount, as runtimes make it."""
    root = tmp_path / "root"
    root.mkdir()
    with mounted(root):
        (root / "file").touch()
        (root / "old").mkdir()

        def contained(path: bytes, flags: int) -> None:
            os.unshare(os.CLONE_NEWNS)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            os.chdir(root)
            assert deeds.syscall(155 if deeds.X86 else 41, b".", b"old") == 0
            os.chdir("/")
            assert deeds.openat(path, flags) >= 0

        assert resolved("/file", deed=contained) == "/file"


def test_long_names_and_many_directories_are_whole(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * LONGEST_NAME] * 10)
    deep.mkdir(parents=True)
    assert resolved(deep) == str(deep)
    many = tmp_path.joinpath(*["d"] * 80)
    many.mkdir(parents=True)
    assert resolved(many) == str(many)


def test_a_path_that_is_too_deep_lacks_its_upper_part_and_says_so(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 120, "leaf")
    deep.mkdir(parents=True)
    found = resolved(deep)
    assert found is not None
    assert found.startswith("…/d/d/d")
    assert found.endswith("/d/leaf")


def test_a_pipe_has_no_path() -> None:
    def pipe(path: bytes, flags: int) -> None:
        read, _ = os.pipe()
        os.dup2(read, 99)
        deeds.openat(path, flags)

    assert resolved("/proc/self/fd/99", deed=pipe) is None


def test_what_io_uring_opens_is_resolved(tmp_path: Path) -> None:
    from tests.bpf.uring import Request, Uring

    file = tmp_path / uuid.uuid4().hex
    file.touch()

    def ring(path: bytes, _: int) -> None:
        with Uring() as uring:
            assert uring.open([Request(path)])[0] >= 0

    assert resolved(f"{tmp_path}/./{file.name}", deed=ring) == str(file)


def test_the_mount_that_a_file_lies_on_is_reported(tmp_path: Path) -> None:
    with mounted(tmp_path), Tracer("trace_open", resolve=True) as tracer:
        file = os.fsencode(tmp_path / "file")
        pid, code = deeds.in_child(lambda: deeds.openat(file, os.O_WRONLY | os.O_CREAT, 0o600))
        (record,) = [item for item in tracer.records() if item["pid"] == pid and item["path"] == os.fsdecode(file)]
    assert code == 0
    assert (record["mount"], record["fstype"]) == (str(tmp_path), "tmpfs")


def test_a_library_that_is_read_has_the_digest_of_its_contents(tmp_path: Path) -> None:
    library, text, other = tmp_path / "libown.so.1.2", tmp_path / "own.sofa", tmp_path / "own.so"
    for number, file in enumerate((library, text, other)):
        file.write_bytes(b"contents %d" % number)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (library, text, other)]

    def read_all() -> None:
        for file in (library, text, other):
            deeds.openat(bytes(file), os.O_RDONLY)
        deeds.openat(bytes(other), os.O_RDWR)

    with Tracer("trace_open", resolve=True, hash=True) as tracer:
        contents = Contents(tracer.object.required_map("gadget_contents"))
        pid, code = deeds.in_child(read_all)
        assert code == 0
        contents.take(time.monotonic())  # the process has ended, but not its parent
        names = contents.take_new(0)
        records = [item for item in tracer.records() if item["pid"] == pid and "own.so" in (item["path"] or "")]

    assert names is not None
    known = {id: names.frames[place] for id, (place,) in names.stacks.items()}
    assert [known.get(item["sha256"]) for item in records] == [digests[0], None, digests[2], None]
    assert [item["sha256"] != 0 for item in records] == [True, False, True, False]


def test_contents_are_read_only_of_the_file_that_was_opened_and_within_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"lib{name}.so" for name in ("kept", "replaced", "large")]
    for path in paths:
        path.write_bytes(b"x" * 1000)
    paths[2].write_bytes(b"x" * 2000)
    monkeypatch.setattr("kubectl_gadget.agent.sources.contents._LARGEST", 1000)

    with Tracer("trace_open", resolve=True, hash=True) as tracer:
        contents = Contents(tracer.object.required_map("gadget_contents"))
        _, code = deeds.in_child(lambda: [deeds.openat(bytes(path), os.O_RDONLY) for path in paths])
        assert code == 0
        (tmp_path / "new").write_bytes(b"y" * 1000)
        (tmp_path / "new").rename(paths[1])
        contents.take(time.monotonic())
        names = contents.take_new(0)

    assert names is not None
    assert hashlib.sha256(b"x" * 1000).hexdigest() in names.frames
    assert not {hashlib.sha256(text).hexdigest() for text in (b"y" * 1000, b"x" * 2000)} & set(names.frames)
