"""trace fsnotify: watches of this process and the events it gets, of what its children do to real files."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.gadgets.load import load_gadget
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from tests.bpf.deeds import in_child
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 7
IN_CREATE, IN_DELETE, IN_MOVED, IN_ISDIR = 0x100, 0x200, 0xC0, 0x40000000
FAN_CLASS_NOTIF, FAN_MARK_ADD, FAN_MARK_REMOVE, FAN_OPEN, FAN_EVENT_ON_CHILD = 0, 1, 2, 0x20, 0x8000000
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fanotify_mark.argtypes = (ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p)


def rows(tracer: Tracer) -> list[dict[str, Any]]:
    assert tracer.lost == 0
    return MemberRows().records(Rows([decode(load_gadget("trace_fsnotify"), "node", tracer.data())]))


def knows_causers(tracer: Tracer) -> bool:
    return "inotify_event_happens" in tracer.programs


def test_each_event_is_a_row_with_watch_path_name_and_causer_where_it_can_be_known(tmp_path: Path) -> None:
    fd = _libc.inotify_init1(os.O_NONBLOCK)
    with Tracer("trace_fsnotify", pid=os.getpid()) as tracer:
        watch = _libc.inotify_add_watch(fd, os.fsencode(tmp_path), IN_CREATE | IN_DELETE)
        child, code = in_child(lambda: [(tmp_path / f"file {turn}").touch() for turn in range(TIMES)])
        assert code == 0
        os.read(fd, 65536)
        added, *events = rows(tracer)
        causer = child if knows_causers(tracer) else None
    os.close(fd)
    assert (added["operation"], added["mask"], added["path"]) == ("watch", "CREATE|DELETE", str(tmp_path))
    assert (added["watch"], added["errno"]) == (watch, 0)
    assert [row["name"] for row in events] == [f"file {turn}" for turn in range(TIMES)]
    assert {(row["operation"], row["api"], row["mask"], row["watch"], row["path"]) for row in events} == {
        ("event", "inotify", "CREATE", watch, str(tmp_path))
    }
    assert {row["causer_pid"] for row in events} == {causer}
    assert {row["pid"] for row in events} == {os.getpid()}


def test_both_events_of_a_rename_have_the_same_cookie(tmp_path: Path) -> None:
    fd = _libc.inotify_init1(os.O_NONBLOCK)
    (tmp_path / "old").mkdir()
    with Tracer("trace_fsnotify", pid=os.getpid()) as tracer:
        _libc.inotify_add_watch(fd, os.fsencode(tmp_path), IN_MOVED)
        (tmp_path / "old").rename(tmp_path / "new")
        os.read(fd, 65536)
        _, before, after = rows(tracer)
    os.close(fd)
    assert [(row["mask"], row["name"]) for row in (before, after)] == [
        ("MOVED_FROM|ISDIR", "old"),
        ("MOVED_TO|ISDIR", "new"),
    ]
    assert before["cookie"] == after["cookie"] != 0


def test_a_watch_that_cannot_be_made_says_why_and_one_that_ends_says_which(tmp_path: Path) -> None:
    fd = _libc.inotify_init1(os.O_NONBLOCK)
    with Tracer("trace_fsnotify", pid=os.getpid(), api="inotify") as tracer:
        for _ in range(TIMES):
            assert _libc.inotify_add_watch(fd, os.fsencode(tmp_path / "none"), IN_CREATE) == -1
        watch = _libc.inotify_add_watch(fd, os.fsencode(tmp_path), IN_CREATE)
        assert _libc.inotify_rm_watch(fd, watch) == 0
        found = [row for row in rows(tracer) if row["operation"] != "event"]
    os.close(fd)
    *failed, _, ended = found
    assert [(row["error"], row["path"]) for row in failed] == [("ENOENT", str(tmp_path / "none"))] * TIMES
    assert (ended["operation"], ended["watch"], ended["path"]) == ("unwatch", watch, str(tmp_path))


def test_an_older_watcher_is_known_though_not_what_it_watches(tmp_path: Path) -> None:
    fd = _libc.inotify_init1(os.O_NONBLOCK)
    watch = _libc.inotify_add_watch(fd, os.fsencode(tmp_path), IN_CREATE)
    with Tracer("trace_fsnotify", pid=os.getpid()) as tracer:
        (tmp_path / "file").touch()
        os.read(fd, 65536)
        (row,) = rows(tracer)
    os.close(fd)
    assert (row["pid"], row["watch"], row["path"], row["name"]) == (os.getpid(), watch, None, "file")


def test_fanotify_reports_the_file_and_the_pid_that_opened_it(tmp_path: Path) -> None:
    fd = _libc.fanotify_init(FAN_CLASS_NOTIF | 2, os.O_RDONLY)
    if fd < 0:
        pytest.skip(f"fanotify_init: {os.strerror(ctypes.get_errno())}")
    file = tmp_path / "file"
    file.touch()
    with Tracer("trace_fsnotify", pid=os.getpid(), api="fanotify") as tracer:
        marked = _libc.fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN | FAN_EVENT_ON_CHILD, AT_FDCWD, os.fsencode(tmp_path))
        if marked < 0:
            assert ctypes.get_errno() in (errno.ENODEV, errno.EINVAL, errno.EXDEV)
            pytest.skip("this file system cannot be watched by fanotify")
        children = [in_child(lambda: file.open().close())[0] for _ in range(TIMES)]
        events = os.read(fd, 65536)
        added, *found = rows(tracer)
    for at in range(0, len(events), 24):
        os.close(int.from_bytes(events[at + 16 : at + 20], "little"))
    os.close(fd)
    assert (added["operation"], added["mask"], added["path"]) == ("watch", "OPEN|EVENT_ON_CHILD", str(tmp_path))
    assert [(row["path"], row["causer_container_pid"]) for row in found] == [(str(file), child) for child in children]
    assert {(row["api"], row["mask"], row["causer_comm"], row["causer_pid"]) for row in found} == {
        ("fanotify", "OPEN", None, None)
    }


def test_an_instance_that_is_one_too_many_is_a_row_with_the_error() -> None:
    """The user of another namespace has limits of their own, so that this machine's are not used up."""
    limit = 3

    def deed() -> None:
        os.unshare(os.CLONE_NEWUSER)
        Path("/proc/sys/user/max_inotify_instances").write_text(str(limit))
        for _ in range(limit + TIMES):
            _libc.inotify_init1(os.O_CLOEXEC)

    with Tracer("trace_fsnotify") as tracer:
        child, code = in_child(deed)
        found = [row for row in rows(tracer) if row["pid"] == child]
    assert code == 0
    assert {(row["operation"], row["api"], row["path"]) for row in found} == {("create", "inotify", None)}
    assert [row["error"] for row in found] == [""] * limit + ["EMFILE"] * TIMES


def test_a_watch_that_is_one_too_many_is_a_row_with_the_error(tmp_path: Path) -> None:
    limit = 2

    def deed() -> None:
        os.unshare(os.CLONE_NEWUSER)
        Path("/proc/sys/user/max_inotify_watches").write_text(str(limit))
        fd = _libc.inotify_init1(os.O_CLOEXEC)
        for number in range(limit + TIMES):
            path = tmp_path / str(number)
            path.touch()
            _libc.inotify_add_watch(fd, os.fsencode(path), IN_CREATE)

    tmp_path.chmod(0o777)
    with Tracer("trace_fsnotify", failed=True) as tracer:
        child, code = in_child(deed)
        found = [row for row in rows(tracer) if row["pid"] == child]
    assert code == 0
    assert [(row["operation"], row["error"], row["path"]) for row in found] == [
        ("watch", "ENOSPC", str(tmp_path / str(limit + number))) for number in range(TIMES)
    ]
