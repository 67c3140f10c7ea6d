"""View dns: questions and answers find each other, and nothing that comes does harm."""

from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.load import read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.dns import MALFORMED, Dns, read_message
from tests.protocols.sent import CLIENT, SERVER, TCP, read, sent

SECOND = 1_000_000_000
OTHER = b"\0" * 10 + b"\xff\xff\x0a\0\0\x36"


@pytest.fixture(scope="module")
def gadget(catalogue_built: Path) -> Gadget:
    return read_gadget(catalogue_built / "gadgets" / "trace_dns.json")


def query(name: str = "a.example", kind: str = "A", number: int = 7) -> bytes:
    return dns.message.make_query(name, kind, id=number).to_wire()


def answer(wire: bytes, *records: str, rcode: str = "NOERROR") -> bytes:
    response = dns.message.make_response(dns.message.from_wire(wire))
    response.set_rcode(dns.rcode.from_text(rcode))
    for record in records:
        kind, _, value = record.partition(" ")
        response.answer.append(dns.rrset.from_text(response.question[0].name, 60, "IN", kind, value))
    return response.to_wire()


def asked(wire: bytes, time: int = 0, **more: Any) -> dict[str, Any]:
    return {"payload": wire, "timestamp": time, "outgoing": 1} | more


def came(wire: bytes, time: int = 0, **more: Any) -> dict[str, Any]:
    return {"payload": wire, "timestamp": time, "outgoing": 0} | more


def rows(gadget: Gadget, *packets: dict[str, Any], until: int = 0) -> list[dict[str, Any]]:
    stage = Dns(gadget, {"wait": 5})
    return read(gadget, stage.rows(sent(gadget, *packets), until))


def test_question_and_answer_are_one_row(gadget: Gadget) -> None:
    wire = query()
    (row,) = rows(gadget, asked(wire, 100), came(answer(wire, "A 10.1.2.3", "TXT hello"), 400))
    assert (row["name"], row["type"], row["rcode"], row["latency"]) == ("a.example", "A", "NOERROR", 300)
    assert (row["addresses"], row["answers"]) == (["10.1.2.3"], ["A 10.1.2.3", 'TXT "hello"'])
    assert (row["server"], row["client"], row["role"], row["pid"]) == ("10.0.0.53", "10.0.0.7", "client", 42)


def test_an_answer_without_a_question_has_no_latency(gadget: Gadget) -> None:
    (row,) = rows(gadget, came(answer(query(), "A 10.1.2.3"), 400))
    assert (row["latency"], row["rcode"], row["name"]) == (None, "NOERROR", "a.example")


def test_one_question_to_two_servers_at_once_is_two_rows(gadget: Gadget) -> None:
    wire = query()
    packets = [asked(wire, 1), asked(wire, 2, remote=OTHER), came(answer(wire), 8, remote=OTHER), came(answer(wire), 9)]
    told = rows(gadget, *packets)
    assert [(row["server"], row["latency"]) for row in told] == [("10.0.0.54", 6), ("10.0.0.53", 8)]


def test_an_answer_from_another_address_is_taken_when_only_one_question_is_open(gadget: Gadget) -> None:
    wire = query()
    (row,) = rows(gadget, asked(wire, 1), came(answer(wire), 5, remote=OTHER))
    assert (row["latency"], row["server"]) == (4, "10.0.0.54")


def test_a_server_distinguishes_clients_with_the_same_number(gadget: Gadget) -> None:
    wire = query()
    ends = {"local": SERVER, "local_port": 53, "remote_port": 40000}
    packets = [
        came(wire, 1, remote=CLIENT, **ends),
        came(wire, 2, remote=OTHER, **ends),
        asked(answer(wire), 10, remote=OTHER, **ends),
        asked(answer(wire), 21, remote=CLIENT, **ends),
    ]
    told = [(row["role"], row["client"], row["latency"]) for row in rows(gadget, *packets)]
    assert told == [("server", "10.0.0.54", 8), ("server", "10.0.0.7", 20)]


def test_a_process_that_is_known_only_later_is_the_rows(gadget: Gadget) -> None:
    wire = query()
    (row,) = rows(gadget, asked(wire, 1, pid=0), came(answer(wire), 5, pid=43))
    assert row["pid"] == 43


def test_a_number_that_is_used_again_ends_the_question_before(gadget: Gadget) -> None:
    second = query("b.example")
    told = rows(gadget, asked(query(), 1), asked(second, 5), came(answer(second), 6))
    assert [(row["name"], row["rcode"], row["latency"]) for row in told] == [
        ("a.example", "NOANSWER", 4),
        ("b.example", "NOERROR", 1),
    ]


def test_no_answer_is_reported_when_the_node_is_past_the_wait(gadget: Gadget) -> None:
    stage = Dns(gadget, {"wait": 5})
    assert stage.rows(sent(gadget, asked(query(), 10)), 5 * SECOND) == b""
    (row,) = read(gadget, stage.rows(sent(gadget), 5 * SECOND + 10))
    assert (row["rcode"], row["latency"], row["timestamp"]) == (
        "NOANSWER",
        5 * SECOND,
        "1970-01-01T00:00:05.000000010Z",
    )
    assert stage.rest() == b""


def test_rows_may_come_out_of_several_batches(gadget: Gadget) -> None:
    stage = Dns(gadget, {"wait": 5})
    wire = query()
    assert stage.rows(sent(gadget, asked(wire, 10)), 20) == b""
    (row,) = read(gadget, stage.rows(sent(gadget, came(answer(wire), 30)), 40))
    assert row["latency"] == 20


def test_over_tcp_messages_need_not_begin_with_a_packet(gadget: Gadget) -> None:
    wire = query()
    whole = len(wire).to_bytes(2) + wire
    packets = [
        asked(whole[:9], 1, protocol=TCP, sequence=100),
        asked(whole[9:], 2, protocol=TCP, sequence=109),
        came(len(answer(wire)).to_bytes(2), 5, protocol=TCP, sequence=7),
        came(answer(wire), 6, protocol=TCP, sequence=9),
    ]
    (row,) = rows(gadget, *packets)
    assert (row["protocol"], row["latency"], row["rcode"]) == ("TCP", 4, "NOERROR")


def test_escapes_in_names_do_no_harm(gadget: Gadget) -> None:
    wire = dns.message.make_query(dns.name.Name([b"\x1b[2J\n", b"ex\0ample", b""]), "A", id=7).to_wire()
    (row,) = rows(gadget, asked(wire, 1), came(answer(wire), 5))
    assert row["name"] == "\\027[2J\\010.ex\\000ample"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_malformed(wire: bytes) -> None:
    message = read_message(wire)
    assert message.size == len(wire)
    assert message.rcode >= 0 or message.rcode == MALFORMED


WIRE = answer(
    query(kind="ANY"), "A 10.1.2.3", "AAAA ::1", "TXT x", "MX 1 m.example.", "SRV 1 2 3 s.example.", "NS n.example."
)


@given(st.lists(st.tuples(st.integers(0, len(WIRE) - 1), st.integers(0, 255)), max_size=12), st.integers(0, len(WIRE)))
def test_broken_answers_are_malformed_or_read(changes: list[tuple[int, int]], length: int) -> None:
    wire = bytearray(WIRE)
    for place, byte in changes:
        wire[place] = byte
    message = read_message(bytes(wire[:length]))
    assert len(message.answers) <= 64


PACKETS = st.fixed_dictionaries(
    {
        "payload": st.one_of(st.binary(max_size=40), st.sampled_from([query(), WIRE, query(number=8)])),
        "timestamp": st.integers(0, 2**63),
        "outgoing": st.integers(0, 1),
        "protocol": st.sampled_from([TCP, 17]),
        "sequence": st.integers(0, 2**32 - 1),
        "flags": st.integers(0, 255),
        "socket": st.integers(0, 2),
    }
)


@given(st.lists(st.lists(PACKETS, max_size=6), max_size=4), st.integers(0, 2**63))
def test_no_packets_do_harm_or_wait_for_ever(gadget: Gadget, batches: list[list[dict[str, Any]]], until: int) -> None:
    stage = Dns(gadget, {"wait": 5})
    for packets in batches:
        read(gadget, stage.rows(sent(gadget, *packets), until))
    read(gadget, stage.rest())
    assert stage.rest() == b""
