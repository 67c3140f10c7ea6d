"""View http: requests and answers find each other, and nothing that comes does harm."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.load import read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.http import Http
from kubectl_gadget.protocols.tcp import FIN, RST
from tests.protocols.sent import TCP, read, sent

SECOND = 1_000_000_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(scope="module")
def gadget(catalogue_built: Path) -> Gadget:
    return read_gadget(catalogue_built / "gadgets" / "trace_http.json")


class Talk:
    """Packets of one connection, a millisecond apart."""

    def __init__(self) -> None:
        self.packets: list[dict[str, Any]] = []
        self._next = {0: 1000, 1: 5}

    def say(self, payload: bytes, outgoing: int, missing: int = 0, **more: Any) -> "Talk":
        packet = {"payload": payload, "payload_bytes": len(payload) + missing, "outgoing": outgoing, "protocol": TCP}
        packet |= {"sequence": self._next[outgoing], "timestamp": 1_000_000 * len(self.packets)}
        self._next[outgoing] += len(payload) + missing
        self.packets.append(packet | more)
        return self

    def ask(self, target: str, method: str = "GET", **more: Any) -> "Talk":
        return self.say(b"%b %b HTTP/1.1\r\nHost: h\r\n\r\n" % (method.encode(), target.encode()), 1, **more)

    def answer(self, payload: bytes = OK, **more: Any) -> "Talk":
        return self.say(payload, 0, **more)


def rows(gadget: Gadget, talk: Talk, until: int = 0) -> list[dict[str, Any]]:
    stage = Http(gadget, {"wait": 30})
    return read(gadget, stage.rows(sent(gadget, *talk.packets), until))


def told(found: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(row["target"], row["status"]) for row in found]


def test_request_and_answer_are_one_row(gadget: Gadget) -> None:
    (row,) = rows(gadget, Talk().ask("/a").answer())
    assert (row["method"], row["target"], row["host"], row["status"], row["latency"]) == ("GET", "/a", "h", 200, 10**6)
    assert (row["role"], row["response_bytes"], row["protocol"]) == ("client", 0, "HTTP/1.1")


def test_a_server_is_reported_by_its_answer_going_out(gadget: Gadget) -> None:
    talk = Talk().ask("/a").answer()
    for packet in talk.packets:
        packet["outgoing"] ^= 1
    (row,) = rows(gadget, talk)
    assert row["role"] == "server"


def test_http_100_continue_does_not_count_as_the_response(gadget: Gadget) -> None:
    talk = Talk().ask("/a", "POST").answer(b"HTTP/1.1 100 Continue\r\n\r\n").answer()
    assert told(rows(gadget, talk)) == [("/a", 200)]


def test_head_and_304_have_no_body_whatever_they_say(gadget: Gadget) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    same = b"HTTP/1.1 304 Same\r\nContent-Length: 99\r\n\r\n"
    talk = Talk().ask("/a", "HEAD").answer(head).ask("/b").answer(same).ask("/c").answer()
    assert told(rows(gadget, talk)) == [("/a", 200), ("/b", 304), ("/c", 200)]


def test_what_follows_a_change_of_protocol_is_left_alone(gadget: Gadget) -> None:
    talk = Talk().ask("/chat").answer(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n")
    talk.say(b"GET / HTTP/1.1\r\n\r\n", 1)
    assert told(rows(gadget, talk)) == [("/chat", 101)]


def test_an_answer_without_a_length_ends_where_the_next_begins(gadget: Gadget) -> None:
    talk = Talk().ask("/a").answer(b"HTTP/1.1 200 OK\r\n\r\nGET is not a message", missing=77).ask("/b").answer()
    assert told(rows(gadget, talk)) == [("/a", 200), ("/b", 200)]


def test_after_a_gap_the_last_request_is_the_one_that_is_answered(gadget: Gadget) -> None:
    talk = Talk().ask("/a").answer(b"HTTP/1.1 ", missing=500).ask("/b").answer()
    assert told(rows(gadget, talk)) == [("/a", 0), ("/b", 200)]


def test_an_answer_to_a_request_from_before_has_no_method(gadget: Gadget) -> None:
    (row,) = rows(gadget, Talk().answer())
    assert (row["method"], row["target"], row["latency"], row["status"]) == (None, None, None, 200)


@pytest.mark.parametrize("end", [FIN, RST])
def test_the_end_of_a_connection_ends_what_waits(gadget: Gadget, end: int) -> None:
    (row,) = rows(gadget, Talk().ask("/a").answer(b"", flags=end))
    assert (row["target"], row["status"], row["latency"]) == ("/a", 0, 10**6)


@pytest.mark.parametrize(("outgoing", "error"), [(0, "ECONNRESET"), (1, "ECONNABORTED")])
def test_a_request_lost_on_a_reset_connection_is_a_row_with_the_time_that_it_was_idle(
    gadget: Gadget, outgoing: int, error: str
) -> None:
    talk = Talk().ask("/first", timestamp=1_000).answer(timestamp=2_000)
    talk.ask("/lost", timestamp=60_000_002_000).say(b"", outgoing, flags=RST, timestamp=60_000_003_000)
    first, lost = rows(gadget, talk)
    assert (first["status"], first["error"], first["idle"]) == (200, "", None)
    assert (lost["target"], lost["status"], lost["error"]) == ("/lost", 0, error)
    assert (lost["idle"], lost["latency"]) == (60_000_000_000, 1_000)


def test_a_client_that_sends_no_more_may_still_be_answered(gadget: Gadget) -> None:
    assert told(rows(gadget, Talk().ask("/a").say(b"", 1, flags=FIN).answer())) == [("/a", 200)]


def test_the_same_ends_may_meet_again(gadget: Gadget) -> None:
    first = Talk().ask("/a").answer(flags=FIN).say(b"", 1, flags=FIN)
    second = Talk().ask("/b").answer()
    for packet in second.packets:
        packet["sequence"] = (packet["sequence"] - 90_000) % 2**32
    first.packets += second.packets
    assert told(rows(gadget, first)) == [("/a", 200), ("/b", 200)]


def test_no_answer_is_reported_after_the_wait_and_at_the_end(gadget: Gadget) -> None:
    stage = Http(gadget, {"wait": 30})
    talk = Talk().ask("/a").ask("/b")
    assert stage.rows(sent(gadget, talk.packets[0]), SECOND) == b""
    assert told(read(gadget, stage.rows(sent(gadget), 31 * SECOND))) == [("/a", 0)]
    assert stage.rows(sent(gadget, talk.packets[1] | {"timestamp": 20 * SECOND}), 32 * SECOND) == b""
    (row,) = read(gadget, stage.rest())
    assert row["target"] == "/b"
    assert stage.rest() == b""


def test_escapes_do_no_harm(gadget: Gadget) -> None:
    (row,) = rows(gadget, Talk().ask("/\x1b[2J\xff").answer())
    assert row["status"] == 200


PACKETS = st.fixed_dictionaries(
    {
        "payload": st.one_of(st.binary(max_size=30), st.sampled_from([OK, b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"])),
        "payload_bytes": st.integers(0, 100),
        "sequence": st.one_of(st.integers(0, 90), st.integers(0, 2**32 - 1)),
        "outgoing": st.integers(0, 1),
        "flags": st.integers(0, 255),
        "timestamp": st.integers(0, 2**63),
        "protocol": st.just(TCP),
    }
)


@given(st.lists(PACKETS, max_size=12), st.integers(0, 2**63))
def test_no_packets_do_harm_or_wait_for_ever(gadget: Gadget, packets: list[dict[str, Any]], until: int) -> None:
    stage = Http(gadget, {"wait": 30})
    read(gadget, stage.rows(sent(gadget, *packets), until))
    read(gadget, stage.rest())
    assert stage.rest() == b""
