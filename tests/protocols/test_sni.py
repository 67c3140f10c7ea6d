"""View sni: hellos become rows, once each, and nothing that comes does harm."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.load import read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.sni import Sni
from kubectl_gadget.rows.protocol_names import tls_version_name
from tests.protocols.sent import TCP, UDP, read, sent
from tests.protocols.test_client_hello import HELLO, NAME, real_hello
from tests.protocols.test_quic import REAL


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
