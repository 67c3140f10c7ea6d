"""trace fdpass: descriptors passed between known processes, a prime number of times."""

import ctypes
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds, map_shares
from tests.bpf.test_filters import Tree, id_of, tree  # noqa: F401
from tests.bpf.tracer import Tracer
from tests.bpf.uring import Message, Uring

pytestmark = pytest.mark.bpf
TIMES = 31
SENDMMSG, RECVMMSG = (307, 299) if deeds.X86 else (269, 243)
SENDER, CREDENTIALS, RING = 1, 2, 3
NO_FILE = 0o170000
LONG_BEFORE = 0x7FFF


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def received_by_child(sock: socket.socket, times: int = 1, enter: Callable[[], object] = lambda: None) -> int:
    """The pid of a child that receives so many messages."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        enter()
        os.write(write, b"x")
        for _ in range(times):
            for fd in socket.recv_fds(sock, 1, 16)[1]:
                os.close(fd)
        os._exit(0)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return pid


def of(records: list[dict[str, Any]], *pids: int) -> list[dict[str, Any]]:
    return [record for record in records if record["pid"] in pids]


def test_each_descriptor_is_seen_at_both_ends(pair: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Tracer("trace_fdpass") as tracer:
        child = received_by_child(pair[1], TIMES)
        for _ in range(TIMES):
            socket.send_fds(pair[0], [b"x"], [fd])
        os.waitpid(child, 0)
        records = of(tracer.records(), os.getpid(), child)
        assert tracer.lost == 0
    inode = os.fstat(fd).st_ino
    os.close(fd)
    sent = [record for record in records if record["operation"] == "send"]
    received = [record for record in records if record["operation"] == "receive"]
    assert (len(sent), len(received), len(records)) == (TIMES, TIMES, 2 * TIMES)
    for record in records:
        assert (record["path"], record["inode"]) == (str(tmp_path / "file"), inode)
        assert (record["type"], record["name"]) == (stat.S_IFREG, None)
        assert record["flags"] & (os.O_ACCMODE | os.O_APPEND) == os.O_WRONLY | os.O_APPEND
        assert (record["peer_pid"], record["peer_comm"]) == (os.getpid(), sent[0]["comm"])
        assert (record["peer"], record["peer_uid"]) == (sent[0]["cgroup"], os.getuid())
    own, other = sent[0], received[0]
    assert (own["pid"], own["fd"], own["socket_fd"]) == (os.getpid(), fd, pair[0].fileno())
    assert (own["peer_source"], own["peer_fd"]) == (CREDENTIALS, -1)
    assert own["socket_inode"] == os.fstat(pair[0].fileno()).st_ino
    assert (other["pid"], other["peer_source"], other["peer_fd"]) == (child, SENDER, fd)
    assert (other["socket_fd"], other["socket_inode"]) == (pair[1].fileno(), os.fstat(pair[1].fileno()).st_ino)


def test_all_descriptors_of_a_full_message_are_seen(pair: tuple[socket.socket, socket.socket]) -> None:
    fd = os.open("/etc/passwd", os.O_RDONLY)
    with Tracer("trace_fdpass", operation="send") as tracer:
        socket.send_fds(pair[0], [b"x"], [fd] * 253)
        records = of(tracer.records(), os.getpid())
    os.close(fd)
    assert [record["fd"] for record in records] == [fd] * 253


def test_what_has_no_path_has_a_name_and_a_memfd_both_in_one(pair: tuple[socket.socket, socket.socket]) -> None:
    fds = [os.memfd_create("something"), os.eventfd(0)]
    with Tracer("trace_fdpass", operation="send") as tracer:
        socket.send_fds(pair[0], [b"x"], fds)
        records = of(tracer.records(), os.getpid())
    for fd in fds:
        os.close(fd)
    assert [(record["path"], record["name"]) for record in records] == [
        ("/memfd:something", None),
        (None, "[eventfd]"),
    ]


def test_what_cannot_be_sent_says_why(pair: tuple[socket.socket, socket.socket]) -> None:
    with Tracer("trace_fdpass", failed=True) as tracer:
        for _ in range(TIMES):
            with pytest.raises(OSError, match="Bad file descriptor"):
                socket.send_fds(pair[0], [b"x"], [LONG_BEFORE])
        socket.send_fds(pair[0], [b"x"], [0])
        records = of(tracer.records(), os.getpid())
    assert len(records) == TIMES
    told = {(record["fd"], record["errno"], record["type"], record["path"], record["name"]) for record in records}
    assert told == {(LONG_BEFORE, errno.EBADF, NO_FILE, None, None)}


def test_what_was_sent_before_the_trace_began_comes_from_whom_the_credentials_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        accepted, _ = server.accept()
        with accepted:
            socket.send_fds(client, [b"x"], [0])
            with Tracer("trace_fdpass", operation="receive") as tracer:
                child = received_by_child(accepted)
                os.waitpid(child, 0)
                (record,) = of(tracer.records(), child)
    assert (record["peer_pid"], record["peer_source"]) == (os.getpid(), CREDENTIALS)
    assert record["peer"] == record["cgroup"]


def test_datagrams_to_an_address_have_their_sender(tmp_path: Path) -> None:
    fd = os.open("/etc/passwd", os.O_RDONLY)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as source,
    ):
        to.bind(str(tmp_path / "s"))
        with Tracer("trace_fdpass") as tracer:
            child = received_by_child(to)
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            # socket.send_fds() takes an address and does not use it.
            source.sendmsg([b"x"], control, 0, str(tmp_path / "s"))
            os.waitpid(child, 0)
            records = of(tracer.records(), child, os.getpid())
    os.close(fd)
    (sent,) = [record for record in records if record["operation"] == "send"]
    (received,) = [record for record in records if record["operation"] == "receive"]
    assert (sent["peer_pid"], sent["peer_source"]) == (0, 0)
    assert (received["peer_pid"], received["peer_source"], received["peer_fd"]) == (os.getpid(), SENDER, fd)


def rights(fd: int) -> bytes:
    return struct.pack("<QiiiI", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, fd, 0)


def test_several_messages_at_once_are_all_examined(pair: tuple[socket.socket, socket.socket]) -> None:
    count = 3
    controls = [ctypes.create_string_buffer(rights(0), 24) for _ in range(count)]
    data = ctypes.create_string_buffer(b"x", 1)
    vector = ctypes.create_string_buffer(struct.pack("<QQ", ctypes.addressof(data), 1), 16)
    messages = ctypes.create_string_buffer(
        b"".join(
            struct.pack("<QQQQQQQQ", 0, 0, ctypes.addressof(vector), 1, ctypes.addressof(control), 24, 0, 0)
            for control in controls
        ),
        64 * count,
    )
    with Tracer("trace_fdpass") as tracer:
        assert deeds.syscall(SENDMMSG, pair[0].fileno(), messages, count, 0) == count
        assert deeds.syscall(RECVMMSG, pair[1].fileno(), messages, count, 0, None) == count
        records = of(tracer.records(), os.getpid())
    fds = [struct.unpack_from("<i", control.raw, 16)[0] for control in controls]
    for fd in fds:
        os.close(fd)
    assert [(record["operation"], record["fd"]) for record in records] == [
        *[("send", 0)] * count,
        *[("receive", fd) for fd in fds],
    ]
    assert {record["peer_source"] for record in records if record["operation"] == "receive"} == {SENDER}


def test_descriptors_behind_more_control_messages_than_are_examined_count_as_lost(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    own = struct.pack("iII", os.getpid(), os.getuid(), os.getgid())
    credentials = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, own)]
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", 0))]
    with Tracer("trace_fdpass", pid=os.getpid()) as tracer:
        pair[0].sendmsg([b"x"], credentials * 3 + passed)
        assert [record["fd"] for record in of(tracer.records(), os.getpid())] == [0]
        assert tracer.lost == 0
        pair[0].sendmsg([b"x"], credentials * 4 + passed)
        assert of(tracer.records(), os.getpid()) == []
        assert tracer.lost == tracer.unexamined == 1


def test_messages_without_descriptors_are_not_shown(pair: tuple[socket.socket, socket.socket]) -> None:
    with Tracer("trace_fdpass") as tracer:
        pair[0].sendmsg([b"x"])
        pair[1].recvmsg(1, 100)
        assert of(tracer.records(), os.getpid()) == []


@pytest.mark.parametrize(("sender", "receiver", "seen"), [(1, 2, 1), (2, 1, 1), (1, 1, 1), (2, 2, 0)])
def test_a_receipt_is_sent_when_sender_or_receiver_is_wanted(
    tree: Tree,  # noqa: F811
    pair: tuple[socket.socket, socket.socket],
    sender: int,
    receiver: int,
    seen: int,
) -> None:
    """Verdict 1 is WANTED, 2 UNWANTED."""

    def deed() -> None:
        (tree.container / "cgroup.procs").write_text("0")
        socket.send_fds(pair[0], [b"x"], [0])

    verdicts = {id_of(tree.container): sender, id_of(tree.nested): receiver}
    with Tracer("trace_fdpass", verdicts=verdicts, operation="receive") as tracer:
        child = received_by_child(pair[1], 1, lambda: (tree.nested / "cgroup.procs").write_text("0"))
        pid, code = deeds.in_child(deed)
        os.waitpid(child, 0)
        records = of(tracer.records(), child)
    assert code == 0
    assert len(records) == seen
    for record in records:
        assert (record["cgroup"], record["peer"], record["peer_pid"]) == (
            *(id_of(tree.nested), id_of(tree.container), pid),
        )


@pytest.mark.parametrize("is_silent", [False, True])
def test_what_io_uring_sends_and_receives_is_seen(
    is_silent: bool, pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    fd = os.open(tmp_path / "file", os.O_RDONLY | os.O_CREAT)
    sender, receiver = pair
    with Tracer("trace_fdpass") as tracer, Uring() as ring:
        assert ring.send_message(sender.fileno(), Message(fd), is_silent) in (1, None)
        message = Message()
        assert ring.receive_message(receiver.fileno(), message) == 1
        records = of(tracer.records(), os.getpid())
        assert tracer.lost == 0
    os.close(message.fd)
    os.close(fd)
    assert [(one["operation"], one["fd"], one["socket_fd"], one["path"]) for one in records] == [
        ("send", fd, sender.fileno(), str(tmp_path / "file")),
        ("receive", message.fd, receiver.fileno(), str(tmp_path / "file")),
    ]
    sent, received = records
    assert sent["errno"] in ((None, -1, 2**32 - 1) if is_silent else (0,))
    assert (received["peer_source"], received["peer_pid"], received["peer_fd"]) == (SENDER, os.getpid(), fd)


def test_what_io_uring_cannot_send_says_why(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].close()
    with Tracer("trace_fdpass", failed=True) as tracer, Uring() as ring:
        assert ring.send_message(pair[0].fileno(), Message(0)) == -errno.EPIPE
        (record,) = of(tracer.records(), os.getpid())
    assert (record["operation"], record["errno"]) == ("send", errno.EPIPE)


@pytest.mark.parametrize("is_silent", [False, True])
def test_what_a_ring_passes_to_another_is_seen_with_its_file(is_silent: bool, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDONLY | os.O_CREAT)
    with Tracer("trace_fdpass") as tracer, Uring() as ring, Uring() as other:
        ring.register(-1, fd)
        other.register_slots(2)
        assert ring.pass_file(other, slot=1, to=0, is_silent=is_silent) == ({} if is_silent else {0: 0})
        assert ring.pass_file(other, slot=0, to=0) == {0: -errno.EBADF}
        sent, failed = of(tracer.records(), os.getpid())
        assert tracer.lost == 0
        # It has arrived: the other ring reads from it.
        assert other.read_slot(0, 1) == 0
    os.close(fd)
    assert (sent["operation"], sent["path"], sent["fd"]) == ("send", str(tmp_path / "file"), -1)
    assert sent["errno"] in ((None, -1, 2**32 - 1) if is_silent else (0,))
    assert (sent["peer_source"], sent["peer_pid"], sent["socket_fd"]) == (RING, os.getpid(), other.fd)
    assert (failed["errno"], failed["type"], failed["path"]) == (errno.EBADF, NO_FILE, None)


def test_files_in_transit_of_one_container_leave_room_for_those_of_others(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    shares = "sender_shares"
    with Tracer("trace_fdpass") as tracer:
        before = map_shares.entries(tracer, shares, share=0)
        map_shares.fill(tracer, shares, "senders", share=1)
        for source in (SENDER, CREDENTIALS):
            os.waitpid(child := received_by_child(pair[1], enter=lambda: socket.send_fds(pair[0], [b"x"], [0])), 0)
            records = of(tracer.records(), child)
            assert [record["peer_source"] for record in records if record["operation"] == "receive"] == [source]
            assert map_shares.lost(tracer, share=0) == tracer.lost == (source == CREDENTIALS)
            assert map_shares.entries(tracer, shares, share=0) == before or source == CREDENTIALS
            map_shares.fill(tracer, shares, "senders", share=0)


def test_files_that_were_received_or_not_sent_take_no_room(pair: tuple[socket.socket, socket.socket]) -> None:
    fd = os.open("/etc/passwd", os.O_RDONLY)
    with Tracer("trace_fdpass") as tracer:
        before = map_shares.entries(tracer, "sender_shares", share=0)
        for _ in range(2):
            socket.send_fds(pair[0], [b"x"], [fd])
        assert map_shares.entries(tracer, "sender_shares", share=0) == before + 1
        for flags in (socket.MSG_PEEK, 0, 0):
            # Not recv_fds(), which ignores flags.
            _, [(_, _, data)], *_ = pair[1].recvmsg(1, socket.CMSG_LEN(4), flags)
            os.close(*struct.unpack("<i", data))
        records = [record for record in of(tracer.records(), os.getpid()) if record["operation"] == "receive"]
        assert [record["peer_source"] for record in records] == [SENDER] * 3
        pair[1].close()
        with pytest.raises(BrokenPipeError):
            socket.send_fds(pair[0], [b"x"], [fd])
        assert map_shares.entries(tracer, "sender_shares", share=0) == before
        assert tracer.lost == 0
    os.close(fd)
