"""top tcp: prime numbers of bytes over loopback, counted at both ends, and whose they are."""

import os
import socket
import struct
from pathlib import Path

import pytest

from tests.bpf import network
from tests.bpf.answers import Answers
from tests.bpf.network import address, in_namespace

pytestmark = pytest.mark.bpf
ASKED, ANSWERED = 1_000_003, 50_021
COMM = open("/proc/self/comm").read().strip()


def send_and_receive(sock: socket.socket, bytes_sent: int, bytes_received: int) -> None:
    sock.sendall(bytes(bytes_sent))
    while bytes_received:
        bytes_received -= len(sock.recv(bytes_received))


def sent_again(sock: socket.socket) -> int:
    """Bytes of data that the kernel has sent more than once: tcpi_bytes_retrans of struct tcp_info."""
    (found,) = struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 208)
    return int(found)


def talk(host: str) -> tuple[int, int, int, int, int]:
    """A child asks, this process answers. Returns the child's pid, its port and the server's, and how many bytes each
    sent again, which a busy machine does over loopback, too."""
    reader, writer = os.pipe()
    with network.listener(host) as server:
        name = server.getsockname()
        pid = os.fork()
        if pid == 0:
            with socket.socket(server.family) as client:
                client.connect((host, name[1]))
                send_and_receive(client, ASKED, ANSWERED)
                os.write(writer, struct.pack("Q", sent_again(client)))
            os._exit(0)
        accepted, peer = server.accept()
        with accepted:
            send_and_receive(accepted, 0, ASKED)
            send_and_receive(accepted, ANSWERED, 0)
            assert accepted.recv(1) == b""
            again = sent_again(accepted)
        (asked_again,) = struct.unpack("Q", os.read(reader, 8))
        os.waitpid(pid, 0)
        return pid, peer[1], name[1], asked_again, again


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_both_ends_of_a_connection_have_the_exact_bytes_and_their_process(host: str) -> None:
    with Answers("top_tcp") as top:
        server, (client, client_port, server_port, asked_again, answered_again) = in_namespace(lambda: talk(host))
        records = [record for record in top.take() if record["pid"] in (server, client)]
        assert top.lost == 0
    rows = {
        record["pid"]: (record["local_port"], record["remote_port"], record["sent"], record["received"])
        for record in records
        if record["sent"] or record["received"]
    }
    assert rows == {
        client: (client_port, server_port, ASKED + asked_again, ANSWERED + answered_again),
        server: (server_port, client_port, ANSWERED + answered_again, ASKED + asked_again),
    }
    assert {address(record[end]) for record in records for end in ("local", "remote")} == {host}
    assert {(record["comm"], record["uid"]) for record in records} == {(COMM, os.getuid())}
    assert all(record["sent_packets"] >= record["sent"] // 65536 for record in records)


def test_only_connections_of_the_process_asked_for_count() -> None:
    with Answers("top_tcp", pid=os.getpid()) as top:
        in_namespace(lambda: talk(network.V4))
        assert top.take() == []


def test_what_was_there_before_the_run_has_its_process() -> None:
    with network.listener(network.V4) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted, Answers("top_tcp", pid=os.getpid()) as top:
            client.sendall(bytes(7919))
            send_and_receive(accepted, 0, 7919)
            records = top.take()
    assert sorted((record["sent"], record["received"]) for record in records) == [(0, 7919), (7919, 0)]


@pytest.mark.parametrize("options", [{}, {"comm": "late"}], ids=["every process", "the server only"])
def test_what_came_before_accept_counts_for_the_process_that_accepts(options: dict[str, str]) -> None:
    with Answers("top_tcp", **options) as top:
        _, (_, port) = in_namespace(lambda: network.accept_late(network.V4, bytes(7919), bytes(13), "late"))
        rows = [record for record in top.take() if record["remote_port"] == port and record["sent"]]
        assert top.lost == 0
    assert [(row["comm"], row["received"], row["sent"]) for row in rows] == [("late", 7919, 13)]


def test_sums_of_two_intervals_agree_when_accept_comes_in_the_second() -> None:
    with (
        Answers("top_tcp") as top,
        network.listener(network.V4) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        client.sendall(bytes(7919))
        port = client.getsockname()[1]
        before = [record for record in top.take() if record["remote_port"] == port]
        accepted, _ = server.accept()
        with accepted:
            after = [record for record in top.take() if record["remote_port"] == port]
    assert [record["received"] for record in before] == []
    assert [(record["pid"], record["received"]) for record in after] == [(os.getpid(), 7919)]


def talk_across_exec(server: socket.socket, folder: Path) -> tuple[int, int]:
    """A child connects, sends 13 bytes, and executes cat, which sends back what it gets. Returns its pid and port."""
    executed = folder / "executed"
    os.mkfifo(executed)
    pid = os.fork()
    if pid == 0:
        client = socket.create_connection(server.getsockname())
        client.sendall(bytes(13))
        os.dup2(client.fileno(), 0)
        os.dup2(client.fileno(), 1)
        os.execv("/bin/cat", ["cat", str(executed), "-"])
    accepted, peer = server.accept()
    with accepted:
        # Opened when cat opens it, or the child may get the answer before it has executed cat.
        executed.open("wb").close()
        send_and_receive(accepted, 7919, 13 + 7919)
        accepted.shutdown(socket.SHUT_WR)
        assert accepted.recv(1) == b""
        os.waitpid(pid, 0)
    return pid, peer[1]


@pytest.mark.parametrize("options", [{}, {"comm": "cat"}], ids=["every process", "the program that was executed"])
def test_a_connection_has_the_name_of_the_program_that_its_process_runs(
    options: dict[str, str], tmp_path: Path
) -> None:
    with network.listener(network.V4) as server, Answers("top_tcp", **options) as top:
        pid, port = talk_across_exec(server, tmp_path)
        rows = [row for row in top.take() if row["local_port"] == port]
        assert top.lost == 0
    # What was sent before the exec is not that of a process that is called cat.
    sent = 7919 if options else 13 + 7919
    assert [(row["pid"], row["comm"], row["received"], row["sent"]) for row in rows] == [(pid, "cat", 7919, sent)]


def test_a_connection_of_a_program_that_was_replaced_is_not_of_the_one_asked_for(tmp_path: Path) -> None:
    with network.listener(network.V4) as server, Answers("top_tcp", comm=COMM) as top:
        _, port = talk_across_exec(server, tmp_path)
        rows = [row for row in top.take() if row["local_port"] == port]
    assert [(row["comm"], row["received"], row["sent"]) for row in rows] == [(COMM, 0, 13)]
