"""trace tty: what this process and its children write to a real pseudo-terminal, and read from it."""

import os
import pty
import struct
from collections.abc import Iterator

import pytest

from tests.bpf import uring
from tests.bpf.deeds import in_child
from tests.bpf.uring import Uring
from tests.bpf.viewed import Viewed

pytestmark = pytest.mark.bpf
TIMES = 11


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends: that of the program behind the terminal, and the terminal."""
    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def test_each_line_that_is_written_is_a_row(terminal: tuple[int, int]) -> None:
    _, tty = terminal
    name = os.ttyname(tty).removeprefix("/dev/").replace("/", "")
    with Viewed("trace_tty", pid=os.getpid()) as tracer:
        for turn in range(TIMES):
            os.write(tty, b"line %d\n" % turn)
        os.writev(tty, [b"in ", b"", b"pieces", b"\n"])
        rows = tracer.rows()
        assert tracer.lost == 0
    assert [row["text"] for row in rows] == [*(f"line {turn}\n" for turn in range(TIMES)), "in pieces\n"]
    assert {(row["pid"], row["terminal"], row["direction"]) for row in rows} == {(os.getpid(), name, "output")}


def test_what_is_typed_is_seen_only_when_asked_and_not_at_the_other_end(terminal: tuple[int, int]) -> None:
    keyboard, tty = terminal
    for asked in (False, True):
        with Viewed("trace_tty", pid=os.getpid(), input=asked) as tracer:
            for turn in range(TIMES):
                os.write(keyboard, b"secret %d\n" % turn)
                os.read(tty, 100)
            rows = tracer.rows()
        assert [row["text"] for row in rows] == [f"secret {turn}\n" for turn in range(TIMES) if asked]
        assert {row["direction"] for row in rows} <= {"input"}


def test_other_files_are_not_terminals() -> None:
    receive, send = os.pipe()
    null = os.open("/dev/null", os.O_WRONLY)
    with Viewed("trace_tty", pid=os.getpid()) as tracer:
        os.write(send, b"pipe\n")
        os.write(null, b"null\n")
        assert tracer.rows() == []
    for fd in (receive, send, null):
        os.close(fd)


def test_the_controlling_terminal_is_known_by_its_own_name(terminal: tuple[int, int]) -> None:
    _, tty = terminal
    name = os.ttyname(tty).removeprefix("/dev/").replace("/", "")

    def write() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(tty), os.O_RDWR))
        fd = os.open("/dev/tty", os.O_WRONLY)
        os.write(fd, b"here\n")

    with Viewed("trace_tty") as tracer:
        child, code = in_child(write)
        assert code == 0
        (row,) = [row for row in tracer.rows() if row["pid"] == child]
    assert (row["text"], row["terminal"]) == ("here\n", name)


def test_of_a_long_write_the_beginning_is_known_and_how_long_it_was(terminal: tuple[int, int]) -> None:
    keyboard, tty = terminal
    os.set_blocking(keyboard, False)
    with Viewed("trace_tty", pid=os.getpid(), calls=True) as tracer:
        written = os.write(tty, b"x" * 5000)
        (row,) = tracer.rows()
    assert row["bytes"] == written
    assert row["text"] == "x" * min(written, 4096)


def test_what_the_kernel_copies_itself_has_no_text(terminal: tuple[int, int]) -> None:
    _, tty = terminal
    file = os.memfd_create("text")
    os.write(file, b"copied\n")
    with Viewed("trace_tty", pid=os.getpid()) as tracer:
        assert os.sendfile(tty, file, 0, 7) == 7
        (row,) = tracer.rows()
    os.close(file)
    assert (row["text"], row["bytes"]) == (None, 7)


def test_what_io_uring_writes_is_a_row(terminal: tuple[int, int]) -> None:
    _, tty = terminal
    with Viewed("trace_tty", pid=os.getpid()) as tracer, Uring() as ring:
        for turn in range(TIMES):
            assert ring.write(tty, b"line %d\n" % turn, in_worker=turn % 2 == 0) == 7 + len(str(turn)) - 1
        pieces = [b"in ", b"pieces", b"\n"]
        vector = b"".join(struct.pack("<QQ", ring.place(piece), len(piece)) for piece in pieces)
        assert ring.run([(uring.OP_WRITEV, 0, ring.place(vector), 0, len(pieces), 0)], tty) == [10]
        rows = tracer.rows()
        assert tracer.lost == 0
    assert [row["text"] for row in rows] == [*(f"line {turn}\n" for turn in range(TIMES)), "in pieces\n"]
    assert {(row["pid"], row["direction"]) for row in rows} == {(os.getpid(), "output")}


def test_what_io_uring_writes_silently_is_shown_as_it_was_to_be_written(terminal: tuple[int, int]) -> None:
    keyboard, tty = terminal
    with Viewed("trace_tty", pid=os.getpid()) as tracer, Uring() as ring:
        ring.register(tty)
        assert ring.write_silently(tty, b"quiet\n") == {}
        assert ring.write_silently(0, b"registered\n", flags=uring.IOSQE_FIXED_FILE) == {}
        rows = tracer.rows()
    assert os.read(keyboard, 100) == b"quiet\r\nregistered\r\n"
    assert [(row["text"], row["bytes"]) for row in rows] == [("quiet\n", None), ("registered\n", None)]


@pytest.mark.parametrize("asked", [False, True])
def test_what_io_uring_reads_is_seen_only_when_asked(terminal: tuple[int, int], asked: bool) -> None:
    keyboard, tty = terminal
    with Viewed("trace_tty", pid=os.getpid(), input=asked) as tracer, Uring() as ring:
        os.write(keyboard, b"secret\n")
        assert ring.read(tty, 100) == 7
        os.write(keyboard, b"quiet\n")
        silent = (uring.OP_READ, uring.IOSQE_CQE_SKIP_SUCCESS, ring.place(bytes(6)), 0, 6, 0)
        assert ring.run_silently([silent], tty) == {}
        rows = tracer.rows()
    expected = [("secret\n", 7, "input"), (None, None, "input")]
    assert [(row["text"], row["bytes"], row["direction"]) for row in rows] == (expected if asked else [])
