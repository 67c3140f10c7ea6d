"""Handshakes of TLS: those of Python's ssl in memory are told by their packets, broken ones do no harm."""

import ssl
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.load import read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.handshake import Tls, alert_name, cipher_name, read_certificate
from kubectl_gadget.protocols.tcp import FIN
from tests.bpf.test_trace_tls import NAME, TLS_1_2, TLS_1_3, certificate, contexts
from tests.protocols.sent import TCP, read, sent

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def gadget(catalogue_built: Path) -> Gadget:
    return read_gadget(catalogue_built / "gadgets" / "trace_tls.json")


def exchange(server: ssl.SSLContext, client: ssl.SSLContext) -> list[dict[str, Any]]:
    """The packets of a handshake, of a message each way after it, or of its failure, at the client."""
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(*wires, server_hostname=NAME), server.wrap_bio(*wires[::-1], server_side=True)
    found: list[dict[str, Any]] = []
    next_ = {1: 5, 0: 1000}
    for turn in range(12):
        is_server = turn % 2
        with suppress(ssl.SSLError):
            ends[is_server].do_handshake()
            ends[is_server].write(b"x")
        with suppress(ssl.SSLError):
            ends[is_server].read(1)
        # The packets are copied on their way from one end to the other.
        wire = wires[0] if is_server else wires[1]
        data = wire.read()
        wire.write(data)
        if data:
            packet = {"payload": data, "outgoing": 1 - is_server, "sequence": next_[1 - is_server], "protocol": TCP}
            next_[1 - is_server] += len(data)
            found.append(packet | {"timestamp": 1_000 * len(found), "remote_port": 443})
    return found


def rows(gadget: Gadget, packets: list[dict[str, Any]], until: int = 0, **parameters: Any) -> list[dict[str, Any]]:
    stage = Tls(gadget, {"wait": 10} | parameters)
    return read(gadget, stage.rows(sent(gadget, *packets), until))


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_handshake_is_one_row_however_its_packets_are_cut(
    gadget: Gadget, tmp_path: Path, version: ssl.TLSVersion, size: int
) -> None:
    packets = []
    for packet in exchange(*contexts(certificate(tmp_path), version)):
        payload = packet["payload"]
        # The kernel begins with a segment that shows that it is a hello.
        cuts = [0, *range(max(size, 9), len(payload), size), len(payload)]
        for start, end in pairwise(cuts):
            packets.append(packet | {"payload": payload[start:end], "sequence": packet["sequence"] + start})
    (row,) = rows(gadget, packets)
    assert (row["result"], row["role"], row["name"], row["ended_by"]) == ("established", "client", NAME, "")
    assert row["certificate"] == ([NAME, "10.0.0.7"] if version == TLS_1_2 else [])
    assert rows(gadget, packets, failed=True) == []


def test_a_rejected_certificate_is_told_by_its_alert(gadget: Gadget, tmp_path: Path) -> None:
    (row,) = rows(gadget, exchange(*contexts(certificate(tmp_path, -30))))
    assert (row["result"], row["alert"], row["ended_by"]) == ("alert", "certificate_expired (45)", "client")
    assert row["not_after"].startswith("2025-12-02")


def test_in_tls_1_3_an_alert_is_told_by_its_length(gadget: Gadget, tmp_path: Path) -> None:
    hello, flight = exchange(*contexts(certificate(tmp_path), TLS_1_3))[:2]
    alert = {"payload": b"\x14\x03\x03\0\x01\x01" + b"\x17\x03\x03\0\x13" + bytes(19), "outgoing": 1}
    (row,) = rows(gadget, [hello, flight, hello | alert | {"sequence": hello["sequence"] + len(hello["payload"])}])
    assert (row["result"], row["alert"], row["ended_by"]) == ("encrypted alert", None, "client")


def test_a_client_that_closes_after_the_certificate_is_named(gadget: Gadget, tmp_path: Path) -> None:
    hello, flight = exchange(*contexts(certificate(tmp_path)))[:2]
    end = {"payload": b"", "outgoing": 1, "sequence": hello["sequence"] + len(hello["payload"]), "flags": FIN}
    (row,) = rows(gadget, [hello, flight, hello | end])
    assert (row["result"], row["ended_by"], row["certificate"]) == ("closed", "client", [NAME, "10.0.0.7"])


def test_a_hello_that_nobody_answers_is_shown_after_the_wait(gadget: Gadget, tmp_path: Path) -> None:
    hello = exchange(*contexts(certificate(tmp_path), TLS_1_3))[:1]
    assert rows(gadget, hello, 9 * SECOND) == []
    (row,) = rows(gadget, hello, 11 * SECOND)
    assert (row["result"], row["version"], row["cipher"], row["duration"]) == ("no answer", "TLS1.3", None, 10 * SECOND)


@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=80), st.integers(0, 40)), max_size=12))
def test_no_packets_do_harm(gadget: Gadget, pieces: list[tuple[int, bytes, int]]) -> None:
    hello = {"payload": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", "outgoing": 1, "sequence": 1, "protocol": TCP}
    packets = [{"payload": data, "outgoing": way, "sequence": at, "protocol": TCP} for way, data, at in pieces]
    rows(gadget, [hello, *packets], 20 * SECOND)


@given(st.binary(max_size=300))
def test_broken_certificates_are_not_read(data: bytes) -> None:
    assert read_certificate(data) is None


def test_unknown_numbers_are_shown_as_numbers() -> None:
    assert (alert_name(48), alert_name(201)) == ("unknown_ca (48)", "alert (201)")
    assert (cipher_name(0x1301), cipher_name(0xABCD)) == ("TLS_AES_128_GCM_SHA256", "0xabcd")
