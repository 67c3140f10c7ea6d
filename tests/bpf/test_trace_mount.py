"""trace mount: known mounts in a mount namespace of their own, a prime number of times."""

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.deeds import AT_FDCWD, syscall
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
MOUNT, UMOUNT2, UNSHARE = (165, 166, 272) if deeds.X86 else (40, 39, 97)
CLONE_NEWNS = 0x20000
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, FSPICK, MOUNT_SETATTR = 428, 429, 430, 431, 432, 433, 442
MS_RDONLY, MS_NODEV, MS_REC, MS_PRIVATE, MS_SLAVE = 1, 4, 1 << 14, 1 << 18, 1 << 19
MNT_DETACH = 2
SET_STRING, CMD_CREATE = 1, 6
OF_MOUNT, OF_UMOUNT, OF_FSOPEN, OF_FSPICK, OF_FSCONFIG, OF_ATTRIBUTES, OF_MOVE, OF_TREE = range(1, 9)


def traced(deed: Callable[[], object], **parameters: Any) -> list[dict[str, Any]]:
    """The records of `deed`, run in a child with its own mounts."""

    def isolated() -> None:
        assert syscall(UNSHARE, CLONE_NEWNS) == 0
        assert syscall(MOUNT, None, b"/", None, MS_PRIVATE | MS_REC, None) == 0
        deed()

    with Tracer("trace_mount", **parameters) as tracer:
        pid, code = deeds.in_child(isolated)
        records = [record for record in tracer.records() if record["pid"] == pid]
        assert tracer.lost == 0
    assert code == 0
    return [record for record in records if not (record["target"] == "/" and record["flags"] & MS_PRIVATE)]


def test_each_mount_and_umount_is_seen_once(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path)

    def deed() -> None:
        for _ in range(TIMES):
            assert syscall(MOUNT, b"a source", target, b"tmpfs", MS_RDONLY | MS_NODEV, b"size=1m,mode=700") == 0
            assert syscall(UMOUNT2, target, MNT_DETACH) == 0

    records = traced(deed)
    assert [record["operation"] for record in records] == ["mount", "umount"] * TIMES
    first, second = records[:2]
    assert (first["source"], first["target"], first["type"]) == ("a source", str(tmp_path), "tmpfs")
    assert (first["options"], first["errno"], first["fd"]) == ("size=1m,mode=700", 0, -1)
    assert first["flags"] == OF_MOUNT << 32 | MS_RDONLY | MS_NODEV
    assert second["flags"] == OF_UMOUNT << 32 | MNT_DETACH
    assert (second["target"], second["source"], second["type"]) == (str(tmp_path), None, None)
    assert all(0 < record["latency"] < 60 * 10**9 for record in records)


def test_a_mount_that_fails_says_why(tmp_path: Path) -> None:
    missing = os.fsencode(tmp_path / "missing")

    def deed() -> None:
        syscall(MOUNT, b"x", os.fsencode(tmp_path), b"tmpfs", 0, None)
        for _ in range(TIMES):
            syscall(MOUNT, b"x", missing, b"tmpfs", 0, None)
            syscall(MOUNT, b"x", os.fsencode(tmp_path), b"no such type", 0, None)
            syscall(UMOUNT2, missing, 0)

    records = traced(deed, failed=True)
    found = [(record["operation"], record["errno"], record["type"]) for record in records]
    assert found == [("mount", 2, "tmpfs"), ("mount", 19, "no such type"), ("umount", 2, None)] * TIMES


def test_a_relative_target_has_its_directory(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()

    def deed() -> None:
        os.chdir(tmp_path)
        assert syscall(MOUNT, None, b"here", None, 0, None) < 0
        assert syscall(MOUNT, b"x", b"here", b"tmpfs", 0, None) == 0

    failed, done = traced(deed)
    assert (done["target"], done["target_base"], done["source_base"]) == ("here", str(tmp_path), None)
    assert (failed["type"], failed["source"], failed["options"]) == (None, None, None)
    assert failed["errno"] > 0


def test_the_new_interface_is_seen_step_by_step(tmp_path: Path) -> None:
    def deed() -> None:
        for _ in range(TIMES):
            context = syscall(FSOPEN, b"tmpfs", 1)
            assert syscall(FSCONFIG, context, SET_STRING, b"source", b"a source", 0) == 0
            assert syscall(FSCONFIG, context, SET_STRING, b"size", b"1m", 0) == 0
            assert syscall(FSCONFIG, context, CMD_CREATE, None, None, 0) == 0
            mount = syscall(FSMOUNT, context, 1, 4)
            assert syscall(MOVE_MOUNT, mount, b"", AT_FDCWD, os.fsencode(tmp_path), 4) == 0
            assert syscall(UMOUNT2, os.fsencode(tmp_path), MNT_DETACH) == 0
            os.close(mount)
            os.close(context)

    records = traced(deed)
    names = ["fsopen", "fsconfig", "fsconfig", "fsconfig", "fsmount", "move_mount", "umount"]
    assert [record["operation"] for record in records] == names * TIMES
    opened, source, size, create, mounted, moved, _ = records[:7]
    assert (opened["type"], opened["flags"]) == ("tmpfs", OF_FSOPEN << 32 | 1)
    assert opened["fd"] > 2
    assert (source["options"], source["type"], source["source"]) == ("source=a source", "tmpfs", "a source")
    assert (size["options"], size["flags"]) == ("size=1m", OF_FSCONFIG << 32 | SET_STRING)
    assert (create["options"], create["flags"]) == (None, OF_FSCONFIG << 32 | CMD_CREATE)
    assert (mounted["type"], mounted["source"], mounted["flags"]) == ("tmpfs", "a source", OF_ATTRIBUTES << 32 | 4)
    assert mounted["fd"] > opened["fd"]
    assert (moved["type"], moved["source"], moved["target"]) == ("tmpfs", "a source", str(tmp_path))
    assert moved["flags"] == OF_MOVE << 32 | 4
    assert {record["errno"] for record in records} == {0}


def test_trees_that_are_cloned_changed_and_moved_are_seen(tmp_path: Path) -> None:
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    attributes = ctypes.create_string_buffer(struct.pack("<4Q", 1, 4, MS_SLAVE, 0), 32)

    def deed() -> None:
        directory = os.open(tmp_path, os.O_PATH)
        assert syscall(MOUNT, b"x", os.fsencode(tmp_path / "from"), b"tmpfs", MS_NODEV, None) == 0
        tree = syscall(OPEN_TREE, directory, b"from", 1)
        assert tree >= 0
        assert syscall(MOUNT_SETATTR, tree, b"", 0x1000, attributes, 32) == 0
        assert syscall(MOVE_MOUNT, tree, b"", directory, b"to", 4) == 0
        assert syscall(FSPICK, directory, b"to", 1) >= 0

    _, opened, changed, moved, picked = traced(deed)
    assert (opened["operation"], opened["source"], opened["source_base"]) == ("open_tree", "from", str(tmp_path))
    assert opened["flags"] == OF_TREE << 32 | 1
    assert (changed["operation"], changed["target"]) == ("mount_setattr", "")
    assert (changed["flags"], changed["cleared"]) == (OF_ATTRIBUTES << 32 | 1, OF_ATTRIBUTES << 32 | 4)
    assert changed["propagation"] == OF_MOUNT << 32 | MS_SLAVE
    assert (moved["source"], moved["type"], moved["target"]) == ("x", "tmpfs", "to")
    assert (picked["operation"], picked["target_base"], picked["flags"]) == (
        "fspick",
        str(tmp_path),
        OF_FSPICK << 32 | 1,
    )


def test_a_descriptor_that_does_not_exist_has_no_path() -> None:
    (record,) = traced(lambda: syscall(OPEN_TREE, 99999, b"x", 0))
    assert (record["errno"], record["source"], record["source_base"], record["fd"]) == (9, "x", None, -1)


def test_pivot_root_names_both_roots() -> None:
    (record,) = traced(lambda: syscall(155 if deeds.X86 else 41, b"/new", b"/old"))
    assert (record["operation"], record["source"], record["target"]) == ("pivot_root", "/new", "/old")
    assert record["errno"] > 0


def test_only_what_is_asked_for_is_sent(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def deed() -> None:
        for name in ("one", "two"):
            syscall(MOUNT, b"x", os.fsencode(tmp_path / name), b"tmpfs", 0, None)
            syscall(UMOUNT2, os.fsencode(tmp_path / name), 0)

    records = traced(deed, operation="umount", target=f"{tmp_path}/t")
    assert [(record["operation"], record["target"]) for record in records] == [("umount", f"{tmp_path}/two")]
    assert traced(deed, longer=10**12) == []
