"""Requests of HTTP/2 and calls of gRPC: an h2 at both ends, whose bytes come in packets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.load import read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.http import Http
from kubectl_gadget.protocols.tcp import FIN, RST
from tests.protocols.sent import TCP, read, sent

SECOND, MILLISECOND = 1_000_000_000, 1_000_000
Headers = list[tuple[str, str]]
CLIENT, SERVER = 1, 0
"""As `outgoing` has it: the client's end is the one that is traced."""


@pytest.fixture(scope="module")
def gadget(catalogue_built: Path) -> Gadget:
    return read_gadget(catalogue_built / "gadgets" / "trace_http.json")


def asking(path: str, *more: tuple[str, str], method: str = "GET") -> Headers:
    return [(":method", method), (":scheme", "http"), (":authority", "shop"), (":path", path), *more]


def calling(path: str) -> Headers:
    return asking(path, ("content-type", "application/grpc"), ("te", "trailers"), method="POST")


OK = [(":status", "200"), ("content-type", "text/plain")]
GRPC_OK = [(":status", "200"), ("content-type", "application/grpc+proto")]


class Talk:
    """Two ends that talk; all that one has to say at once is a packet, a millisecond after the one before."""

    def __init__(self) -> None:
        self.ends = {
            CLIENT: H2Connection(H2Configuration(client_side=True)),
            SERVER: H2Connection(H2Configuration(client_side=False)),
        }
        self.packets: list[dict[str, Any]] = []
        self._next = {CLIENT: 1000, SERVER: 5}
        for end in (CLIENT, SERVER):
            self.ends[end].initiate_connection()
            self.flush(end)

    def flush(self, end: int, flags: int = 0, pieces: int = 1) -> "Talk":
        """What an end has to say goes out, cut into so many packets."""
        data = self.ends[end].data_to_send()
        size = -(-len(data) // pieces) or 1
        for start in range(0, len(data) or 1, size):
            piece = data[start : start + size]
            packet = {"payload": piece, "payload_bytes": len(piece), "outgoing": end, "protocol": TCP, "flags": flags}
            packet |= {"sequence": self._next[end], "timestamp": MILLISECOND * len(self.packets)}
            self.packets.append(packet)
            self._next[end] += len(piece)
        self.ends[not end].receive_data(data)
        return self

    def ask(self, headers: Headers, body: bytes | None = None, pieces: int = 1) -> int:
        """Makes a request; returns its stream."""
        client = self.ends[CLIENT]
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, headers, end_stream=body is None)
        if body is not None:
            client.send_data(stream, body, end_stream=True)
        self.flush(CLIENT, pieces=pieces)
        return stream

    def answer(self, stream: int, headers: Headers = OK, body: bytes = b"", trailers: Headers | None = None) -> "Talk":
        """Answers, each part in a packet of its own."""
        server = self.ends[SERVER]
        server.send_headers(stream, headers)
        self.flush(SERVER)
        server.send_data(stream, body, end_stream=trailers is None)
        self.flush(SERVER)
        if trailers is not None:
            server.send_headers(stream, trailers, end_stream=True)
            self.flush(SERVER)
        return self

    def call(self, path: str, status: int = 0, body: bytes = b"", **more: Any) -> "Talk":
        """A call of gRPC with its end."""
        return self.answer(self.ask(calling(path), b"12345", **more), GRPC_OK, body, [("grpc-status", str(status))])


def rows(gadget: Gadget, packets: list[dict[str, Any]], until: int = 0) -> list[dict[str, Any]]:
    return read(gadget, Http(gadget, {"wait": 30}).rows(sent(gadget, *packets), until))


def told(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["protocol"], row["target"], row["status"], row["grpc_status"]) for row in found]


def test_a_request_is_a_row_when_its_answer_begins(gadget: Gadget) -> None:
    talk = Talk()
    talk.answer(talk.ask(asking("/a?b", ("user-agent", "probe"))), [*OK, ("content-length", "3")], b"abc")
    (row,) = rows(gadget, talk.packets)
    assert (row["protocol"], row["method"], row["target"], row["host"], row["status"]) == (
        "HTTP/2",
        "GET",
        "/a?b",
        "shop",
        200,
    )
    assert (row["agent"], row["content_type"], row["request_bytes"], row["response_bytes"]) == (
        "probe",
        "text/plain",
        0,
        3,
    )
    assert (row["role"], row["latency"], row["grpc_status"], row["reset"]) == ("client", MILLISECOND, None, None)


def test_a_call_is_a_row_when_it_ends_with_its_status_and_sizes(gadget: Gadget) -> None:
    talk = Talk().call("/shop.Carts/Get", 5, b"x" * 9000)
    (row,) = rows(gadget, talk.packets)
    assert (row["protocol"], row["target"], row["grpc_status"], row["grpc_status_raw"]) == (
        "gRPC",
        "/shop.Carts/Get",
        "NOT_FOUND",
        5,
    )
    assert (row["status"], row["request_bytes"], row["response_bytes"]) == (200, 5, 9000)
    assert row["latency"] == 3 * MILLISECOND


def test_an_answer_of_trailers_alone_ends_a_call(gadget: Gadget) -> None:
    talk = Talk()
    stream = talk.ask(calling("/a.B/C"), b"")
    ended = [*GRPC_OK, ("grpc-status", "16"), ("grpc-message", "no%20token: ü")]
    talk.ends[SERVER].send_headers(stream, ended, end_stream=True)
    (row,) = rows(gadget, talk.flush(SERVER).packets)
    assert (row["grpc_status"], row["grpc_message"], row["response_bytes"]) == ("UNAUTHENTICATED", "no token: ü", 0)


def test_a_server_is_reported_by_its_answer_going_out(gadget: Gadget) -> None:
    talk = Talk().call("/a.B/C")
    for packet in talk.packets:
        packet["outgoing"] ^= 1
    (row,) = rows(gadget, talk.packets)
    assert (row["role"], row["target"], row["grpc_status"]) == ("server", "/a.B/C", "OK")


def test_streams_that_are_interleaved_are_not_mixed_up(gadget: Gadget) -> None:
    talk = Talk()
    streams = [talk.ask(calling(f"/a.B/C{number}"), b"") for number in range(7)]
    for stream in reversed(streams):
        talk.ends[SERVER].send_headers(stream, GRPC_OK)
    talk.flush(SERVER)
    for number, stream in enumerate(streams):
        talk.ends[SERVER].send_data(stream, bytes(number))
        talk.ends[SERVER].send_headers(stream, [("grpc-status", str(number))], end_stream=True)
    found = rows(gadget, talk.flush(SERVER).packets)
    assert [(row["target"], row["grpc_status_raw"], row["response_bytes"]) for row in found] == [
        (f"/a.B/C{number}", number, number) for number in range(7)
    ]


@pytest.mark.parametrize("pieces", [1, 2, 13, 1009])
def test_headers_that_go_on_in_further_frames_and_packets_are_read(gadget: Gadget, pieces: int) -> None:
    talk = Talk()
    large = ("x-large", "".join(map(str, range(9000))))
    talk.ends[CLIENT].max_outbound_frame_size = 5000
    talk.answer(talk.ask([*asking("/large"), large], pieces=pieces))
    assert b"\x09\x04\x00\x00\x00\x01" in b"".join(packet["payload"] for packet in talk.packets)  # a CONTINUATION
    assert told(rows(gadget, talk.packets)) == [("HTTP/2", "/large", 200, None)]


def test_on_a_connection_joined_late_references_are_unknown_until_sent_again(gadget: Gadget) -> None:
    talk = Talk().call("/a.B/Old")
    before = len(talk.packets)
    talk.call("/a.B/Old").call("/a.B/New").call("/a.B/New", 3)
    found = rows(gadget, talk.packets[before:])
    # What is in HPACK's own table is known, and what refers to the first call is not, even that it is gRPC.
    assert [(row["method"], row["target"], row["host"], row["status"]) for row in found] == [
        ("POST", None, None, 200),
        ("POST", "/a.B/New", None, 200),
        ("POST", "/a.B/New", None, 200),
    ]
    assert {(row["protocol"], row["grpc_status"]) for row in found} == {("HTTP/2", None)}


def test_after_a_packet_was_lost_nothing_is_guessed(gadget: Gadget) -> None:
    talk = Talk().call("/a.B/C")
    before = len(talk.packets)
    talk.call("/a.B/Lost").call("/a.B/Again").call("/a.B/Lost").call("/a.B/Again")
    lost = talk.packets[before]
    packets = [packet for packet in talk.packets if packet is not lost]
    # The stream gives up what does not come only when much has come behind it.
    for number in range(70):
        talk.ends[CLIENT].ping(b"%08d" % number)
        talk.flush(CLIENT)
        packets.append(talk.packets[-1])
    found = rows(gadget, packets)
    assert ("gRPC", "/a.B/C", 200, "OK") in told(found)
    assert "/a.B/Lost" not in [row["target"] for row in found]
    assert {row["target"] for row in found} <= {"/a.B/C", "/a.B/Again", None}


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_packets_that_come_twice_or_in_another_order_change_nothing(gadget: Gadget, random: Any, copies: int) -> None:
    talk = Talk().call("/a.B/C", 1).call("/a.B/D", 2)
    head, rest = talk.packets[:1], talk.packets[1:]
    client = [packet for packet in rest if packet["outgoing"] == CLIENT]
    server = [packet for packet in rest if packet["outgoing"] == SERVER]
    packets = head + client + server[:1] + random.sample(server[1:], len(server) - 1) * copies
    assert sorted(told(rows(gadget, packets))) == [
        ("gRPC", "/a.B/C", 200, "CANCELLED"),
        ("gRPC", "/a.B/D", 200, "UNKNOWN"),
    ]


def test_a_stream_that_is_reset_says_why(gadget: Gadget) -> None:
    talk = Talk()
    stream = talk.ask(calling("/a.B/C"), b"")
    talk.ends[CLIENT].reset_stream(stream, 8)
    (row,) = rows(gadget, talk.flush(CLIENT).packets)
    assert (row["reset"], row["status"], row["grpc_status"], row["role"]) == ("CANCEL", 0, None, "client")


@pytest.mark.parametrize("end", [FIN, RST])
def test_the_end_of_a_connection_ends_what_waits(gadget: Gadget, end: int) -> None:
    talk = Talk()
    talk.ask(asking("/a"))
    assert told(rows(gadget, talk.flush(SERVER, end).packets)) == [("HTTP/2", "/a", 0, None)]


def test_a_client_that_sends_no_more_may_still_be_answered(gadget: Gadget) -> None:
    talk = Talk()
    stream = talk.ask(asking("/a"))
    talk.flush(CLIENT, FIN).answer(stream)
    assert told(rows(gadget, talk.packets)) == [("HTTP/2", "/a", 200, None)]


def test_no_answer_is_reported_after_the_wait_and_an_answer_after_all_once_more(gadget: Gadget) -> None:
    stage = Http(gadget, {"wait": 30})
    talk = Talk()
    stream = talk.ask(asking("/slow"))
    assert stage.rows(sent(gadget, *talk.packets), SECOND) == b""
    (row,) = read(gadget, stage.rows(sent(gadget), 31 * SECOND))
    assert (row["target"], row["status"], row["latency"]) == ("/slow", 0, 30 * SECOND)
    before = len(talk.packets)
    for packet in talk.answer(stream).packets[before:]:
        packet["timestamp"] += 40 * SECOND
    (row,) = read(gadget, stage.rows(sent(gadget, *talk.packets[before:]), 41 * SECOND))
    assert (row["target"], row["status"], row["latency"] // SECOND) == ("/slow", 200, 40)


def test_a_call_that_still_goes_on_is_reported_at_the_end(gadget: Gadget) -> None:
    stage = Http(gadget, {"wait": 30})
    talk = Talk()
    stream = talk.ask(calling("/a.B/Watch"), b"")
    talk.ends[SERVER].send_headers(stream, GRPC_OK)
    talk.flush(SERVER)
    assert stage.rows(sent(gadget, *talk.packets), 90 * SECOND) == b""
    assert told(read(gadget, stage.rest())) == [("gRPC", "/a.B/Watch", 200, None)]
    assert stage.rest() == b""


def test_an_upgrade_from_http_1_goes_on_as_stream_1(gadget: Gadget) -> None:
    client, server = H2Connection(H2Configuration(client_side=True)), H2Connection(H2Configuration(client_side=False))
    settings = client.initiate_upgrade_connection() or b""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    asked = b"GET /up HTTP/1.1\r\nHost: shop\r\n%bHTTP2-Settings: %b\r\n\r\n" % (upgrade, settings)
    server.initiate_upgrade_connection(settings)
    server.send_headers(1, OK)
    server.send_data(1, b"abc", end_stream=True)
    answered = b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n" + server.data_to_send()
    client.receive_data(answered.partition(b"\r\n\r\n")[2])
    client.send_headers(3, asking("/next"), end_stream=True)
    second = client.data_to_send()
    server.receive_data(second)
    server.send_headers(3, [(":status", "404")], end_stream=True)
    packets: list[dict[str, Any]] = []
    places = {CLIENT: 0, SERVER: 0}
    for end, data in ((CLIENT, asked), (SERVER, answered), (CLIENT, second), (SERVER, server.data_to_send())):
        packets.append({"payload": data, "outgoing": end, "protocol": TCP, "sequence": places[end]})
        places[end] += len(data)
    assert told(rows(gadget, packets)) == [("HTTP/2", "/up", 200, None), ("HTTP/2", "/next", 404, None)]


def test_what_a_server_promises_is_the_clients(gadget: Gadget) -> None:
    talk = Talk()
    stream = talk.ask(asking("/"))
    talk.ends[SERVER].push_stream(stream, 2, asking("/style.css"))
    talk.flush(SERVER)
    talk.answer(stream).answer(2)
    found = rows(gadget, talk.packets)
    assert [(row["target"], row["role"], row["latency"] is None) for row in found] == [
        ("/", "client", False),
        ("/style.css", "client", True),
    ]


PACKETS = st.fixed_dictionaries(
    {
        "payload": st.binary(max_size=40),
        "payload_bytes": st.integers(0, 100),
        "sequence": st.one_of(st.integers(0, 400), st.integers(0, 2**32 - 1)),
        "outgoing": st.integers(0, 1),
        "flags": st.integers(0, 255),
        "timestamp": st.integers(0, 2**63),
        "protocol": st.just(TCP),
    }
)


@given(st.lists(PACKETS, max_size=9), st.integers(0, 7), st.integers(0, 2**63), st.data())
def test_no_packets_do_harm_or_wait_for_ever(
    gadget: Gadget, packets: list[dict[str, Any]], place: int, until: int, data: Any
) -> None:
    spoil: Callable[[bytes], bytes] = lambda text: data.draw(st.binary(max_size=3)) + text[2:]  # noqa: E731
    talk = Talk().call("/a.B/C").call("/a.B/D")
    spoilt = talk.packets[place]
    spoilt["payload"] = spoil(spoilt["payload"])
    stage = Http(gadget, {"wait": 30})
    read(gadget, stage.rows(sent(gadget, *talk.packets[:place], *packets, *talk.packets[place:]), until))
    read(gadget, stage.rest())
    assert stage.rest() == b""
