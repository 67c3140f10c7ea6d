"""The hello of TLS: real ones are read, broken ones do no harm."""

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.load import read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.tls import BrokenHello, Sni, from_handshake, from_records
from kubectl_gadget.rows.gadget_kinds import tls_version_name
from tests.protocols.sent import TCP, UDP, read, sent
from tests.protocols.test_quic import REAL

NAME = "ship.rebels.example"


def real_hello(name: str | None = NAME) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


HELLO = real_hello()


def test_name_version_and_protocols_are_read() -> None:
    hello = from_records(HELLO)
    assert hello is not None
    assert (hello.name, hello.version, hello.alpn, hello.ech) == (NAME.encode(), 0x304, [b"h2", b"http/1.1"], False)


@given(st.integers(0, len(HELLO) - 1))
def test_a_hello_that_is_not_whole_is_waited_for(length: int) -> None:
    assert from_records(HELLO[:length]) is None


@given(st.integers(1, 400))
def test_a_hello_in_several_records_is_read(size: int) -> None:
    handshake = HELLO[5:]
    pieces = [handshake[start : start + size] for start in range(0, len(handshake), size)]
    hello = from_records(b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces))
    assert hello is not None
    assert hello.name == NAME.encode()


def test_a_hello_without_extensions_has_no_name() -> None:
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x00\x2f" + b"\x01\0"
    hello = from_handshake(b"\x01" + len(body).to_bytes(3) + body)
    assert hello is not None
    assert (hello.name, hello.version) == (None, 0x303)


def test_offered_encryption_of_the_hello_is_seen() -> None:
    extensions = b"\xfe\x0d\0\x01\0"
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x00\x2f" + b"\x01\0" + len(extensions).to_bytes(2) + extensions
    hello = from_handshake(b"\x01" + len(body).to_bytes(3) + body)
    assert hello is not None
    assert hello.ech


@given(st.binary(max_size=200))
def test_any_bytes_are_read_waited_for_or_refused(data: bytes) -> None:
    for parse in (from_records, from_handshake):
        with suppress(BrokenHello):
            parse(data)


@given(st.lists(st.tuples(st.integers(0, len(HELLO) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_broken_hellos_do_no_harm(changes: list[tuple[int, int]]) -> None:
    broken = bytearray(HELLO)
    for place, byte in changes:
        broken[place] = byte
    with suppress(BrokenHello):
        from_records(bytes(broken))


@pytest.fixture(scope="module")
def gadget(catalogue_built: Path) -> Gadget:
    return read_gadget(catalogue_built / "gadgets" / "trace_sni.json")


def segment(payload: bytes, sequence: int = 0, **more: Any) -> dict[str, Any]:
    return {"payload": payload, "sequence": sequence, "protocol": TCP, "outgoing": 1, "remote_port": 443} | more


def rows(gadget: Gadget, *packets: dict[str, Any]) -> list[dict[str, Any]]:
    stage = Sni(gadget, {})
    found = read(gadget, stage.rows(sent(gadget, *packets), 0))
    assert stage.rest() == b""
    return found


def test_a_hello_is_a_row_when_it_is_whole(gadget: Gadget) -> None:
    packets = [segment(HELLO[:100], 5, timestamp=1), segment(HELLO[100:], 105, timestamp=2)]
    (row,) = rows(gadget, *packets)
    assert (row["name"], row["version"], row["role"]) == (NAME, "TLS1.3", "client")
    assert row["timestamp"] == "1970-01-01T00:00:00.000000002Z"


def test_what_is_sent_again_makes_no_second_row(gadget: Gadget) -> None:
    assert len(rows(gadget, segment(HELLO, 5), segment(HELLO, 5))) == 1


def test_the_same_name_again_on_one_connection_makes_no_row(gadget: Gadget) -> None:
    assert len(rows(gadget, segment(HELLO, 5), segment(HELLO, 5 + len(HELLO)))) == 1


def test_another_name_on_the_same_connection_makes_another_row(gadget: Gadget) -> None:
    told = rows(gadget, segment(HELLO, 5), segment(real_hello("other.example"), 9999))
    assert [row["name"] for row in told] == [NAME, "other.example"]


def test_connections_are_distinguished(gadget: Gadget) -> None:
    first, second = segment(HELLO[:100]), segment(HELLO[:100], local_port=2, outgoing=0)
    told = rows(gadget, first, second, segment(HELLO[100:], 100), segment(HELLO[100:], 100, local_port=2, outgoing=0))
    assert [(row["local_port"], row["role"]) for row in told] == [(40000, "client"), (2, "server")]


def test_names_that_are_not_text_are_kept(gadget: Gadget) -> None:
    (row,) = rows(gadget, segment(HELLO.replace(b"rebels", b"\xff\x1b[2J\n")))
    assert row["name"] == "ship.\ufffd\x1b[2J\n.example"


def test_quic_is_read_too_and_a_servers_answer_is_not(gadget: Gadget) -> None:
    packets = [segment(REAL, protocol=UDP), segment(REAL[:1] + REAL[1:][::-1], protocol=UDP, outgoing=0)]
    (row,) = rows(gadget, *packets)
    assert (row["name"], row["protocol"]) == (NAME, "UDP")


PIECES = st.one_of(st.binary(max_size=30), st.sampled_from([HELLO, HELLO[:70], HELLO[70:], REAL]))
PACKETS = st.fixed_dictionaries(
    {
        "payload": PIECES,
        "sequence": st.sampled_from([0, 70, len(HELLO), 2**32 - 5]),
        "protocol": st.sampled_from([TCP, UDP]),
        "outgoing": st.integers(0, 1),
        "flags": st.integers(0, 255),
    }
)


@given(st.lists(PACKETS, max_size=8))
def test_no_packets_do_harm(gadget: Gadget, packets: list[dict[str, Any]]) -> None:
    assert {row["name"] for row in rows(gadget, *packets)} <= {NAME}


def test_versions_have_their_names() -> None:
    assert [tls_version_name(number) for number in (0x304, 0x300, 0, 0x7F1C)] == ["TLS1.3", "SSL3", "", "0x7f1c"]
