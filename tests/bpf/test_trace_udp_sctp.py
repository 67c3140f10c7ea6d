"""trace udp --sctp: associations over loopback, where the kernel has SCTP; the virtual machine's has it as a module."""

import os
import socket
from typing import Any

import pytest

from tests.bpf import network
from tests.bpf.network import address, in_namespace
from tests.bpf.tracer import Tracer
from tests.vm import modules

pytestmark = pytest.mark.bpf
MESSAGES, SIZE = 31, 1009
END, SCTP = 3, 132
END_BYTES = 64


def why_no_sctp() -> str:
    """Why there is no SCTP here, or nothing."""
    try:
        if os.geteuid() == 0:
            modules.load("sctp")
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP).close()
    except OSError as error:
        return f"this kernel has no SCTP: {error.strerror}"
    return ""


def talk(host: str) -> tuple[int, int]:
    """Sends messages one way. Returns the client's and the server's port."""
    kinds = (network.FAMILIES[host], socket.SOCK_STREAM, SCTP)
    with socket.socket(*kinds) as listener, socket.socket(*kinds) as client:
        listener.bind((host, 0))
        listener.listen(1)
        client.connect(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        ports = client.getsockname()[1], listener.getsockname()[1]
        with accepted:
            left = MESSAGES * SIZE
            for _ in range(MESSAGES):
                client.send(bytes(SIZE))
            while left:
                left -= len(accepted.recv(SIZE))
        return ports


def of_end(records: list[dict[str, Any]], host: str, port: int) -> list[dict[str, Any]]:
    return [record for record in records if (address(record["local"]), record["local_port"]) == (host, port)]


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_both_ends_of_an_association_count_its_bytes(host: str) -> None:
    if reason := why_no_sctp():
        pytest.skip(reason)
    with Tracer("trace_udp", interval=0, sctp=True) as tracer:
        pid, (client, server) = in_namespace(lambda: talk(host))
        records = [record for record in tracer.records() if record["pid"] == pid]
        assert tracer.lost == 0
    assert {record["protocol"] for record in records} == {SCTP}
    ended = [record for record in records if record["operation"] == END]
    (asked,), answered = of_end(ended, host, client), of_end(ended, host, server)
    # The socket that listens has what came before there was one that was accepted; and what an association says at its
    # end comes when its sockets are closed: chunks of a few bytes.
    for out, back in (("sent", "received"), ("received", "sent")):
        assert abs(asked[out] - sum(record[back] for record in answered)) < END_BYTES
    assert asked["sent"] >= MESSAGES * SIZE
    assert sum(record["received"] for record in answered) >= MESSAGES * SIZE
    assert asked["received"] < MESSAGES * SIZE


def test_sctp_is_not_reported_unless_asked_for() -> None:
    if reason := why_no_sctp():
        pytest.skip(reason)
    with Tracer("trace_udp", interval=0) as tracer:
        pid, _ = in_namespace(lambda: talk(network.V4))
        assert [record for record in tracer.records() if record["pid"] == pid] == []
