"""top udp: prime numbers of packets over loopback, counted at both ends."""

import os
import socket

import pytest

from tests.bpf import network
from tests.bpf.answers import Answers
from tests.bpf.network import address, in_namespace
from tests.bpf.test_trace_udp import COMM, HOSTS, PACKETS, REPLIES, REPLY, SIZE, talk

pytestmark = pytest.mark.bpf


@pytest.mark.parametrize("connect", [True, False])
@pytest.mark.parametrize("host", HOSTS)
def test_both_ends_of_a_flow_have_the_exact_sums(host: str, connect: bool) -> None:
    with Answers("top_udp") as top:
        pid, (client, server) = in_namespace(lambda: talk(host, connect))
        records = [record for record in top.take() if record["pid"] == pid]
        assert top.lost == 0
    sums = {
        (record["local_port"], record["remote_port"]): (
            (record["sent_packets"], record["sent"]),
            (record["received_packets"], record["received"]),
        )
        for record in records
    }
    asked, answered = (PACKETS, PACKETS * SIZE), (REPLIES, REPLIES * REPLY)
    assert sums == {(client, server): (asked, answered), (server, client): (answered, asked)}
    shown = host.removeprefix("::ffff:")
    assert {address(record[end]) for record in records for end in ("local", "remote")} == {shown}
    assert {(record["comm"], record["uid"]) for record in records} == {(COMM, os.getuid())}


def test_only_flows_of_the_port_asked_for_count() -> None:
    port = 5381

    def deed() -> None:
        talk(network.V4, connect=False)
        talk(network.V4, connect=True, port=port)

    with Answers("top_udp", port=port) as top:
        pid, _ = in_namespace(deed)
        records = [record for record in top.take() if record["pid"] == pid]
    assert sorted({record["local_port"], record["remote_port"]} & {port} != set() for record in records) == [True, True]


def test_a_flow_has_the_name_of_the_program_that_its_process_runs() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        Answers("top_udp") as top,
    ):
        server.bind((network.V4, 0))
        pid = os.fork()
        if pid == 0:
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.connect(server.getsockname())
            client.send(b"x")
            os.dup2(client.fileno(), 1)
            os.execv("/bin/echo", ["echo", "hello"])
        assert server.recv(9) == b"x"
        assert server.recv(9) == b"hello\n"
        os.waitpid(pid, 0)
        rows = [row for row in top.take() if row["pid"] == pid]
    assert [(row["comm"], row["sent"]) for row in rows] == [("echo", 7)]
