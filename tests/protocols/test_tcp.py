"""Streams are put together from whatever comes."""

from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.protocols.tcp import ACK, SYN, TCP, Connections, Packet, Stream


def packet(sequence: int, payload: bytes = b"", missing: int = 0, flags: int = 0, **more: Any) -> Packet:
    numbers: dict[str, Any] = {
        "time": 0,
        "head": bytes(80),
        "exec_id": bytes(16),
        "socket": 1,
        "local_port": 1,
        "remote_port": 2,
    } | more
    ends = {"local": bytes(16), "remote": bytes(16), "protocol": TCP, "outgoing": numbers.pop("outgoing", True)}
    return Packet(**numbers, **ends, flags=flags, sequence=sequence % 2**32, payload=payload, missing=missing)


def read(stream: Stream, *packets: Packet) -> list[bytes | int]:
    return [piece for one in packets for piece in stream.feed(one)]


def joined(pieces: list[bytes | int]) -> bytes:
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1), st.integers(), st.lists(st.integers(1, 30)))
def test_order_repetition_and_overlap_do_not_matter(data: bytes, start: int, seed: int, sizes: list[int]) -> None:
    random = Random(seed)
    segments, place = [], 0
    for size in [*sizes, len(data)]:
        early = max(0, place - random.randrange(3))
        segments += [(early, data[early : place + size])] * random.randrange(1, 3)
        place += size
    random.shuffle(segments)
    stream = Stream()
    pieces = read(stream, packet(start, flags=SYN), *(packet(start + at, part) for at, part in segments))
    assert joined(pieces) == data
    assert all(isinstance(piece, bytes) for piece in pieces)
    assert stream.from_start


def test_a_stream_without_its_beginning_begins_with_what_is_seen_first() -> None:
    stream = Stream()
    assert read(stream, packet(70, b"abc"), packet(73, b"d")) == [b"abc", b"d"]
    assert not stream.from_start


def test_what_a_packet_did_not_bring_is_a_number() -> None:
    assert read(Stream(), packet(0, b"ab", missing=7), packet(9, b"c")) == [b"ab", 7, b"c"]


def test_what_comes_whole_the_second_time_is_whole() -> None:
    assert read(Stream(), packet(0, b"ab", flags=SYN), packet(4, b"x", 3), packet(4, b"xyz!"), packet(2, b"cd")) == [
        b"ab",
        b"cd",
        b"xyz!",
    ]


def test_a_missing_piece_is_given_up_after_many_later_ones() -> None:
    stream = Stream()
    behind = [packet(10 + number, b"x") for number in range(200)]
    pieces = read(stream, packet(0, b"ab"), *behind)
    assert pieces[:2] == [b"ab", 8]
    assert joined(pieces) == b"ab" + b"x" * 200


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=5), st.integers(0, 2**32), st.integers(0, 31))))
def test_no_packets_do_harm(packets: list[tuple[int, bytes, int, int]]) -> None:
    stream = Stream()
    for sequence, payload, missing, flags in packets:
        for piece in stream.feed(packet(sequence, payload, missing, flags)):
            assert piece or piece == b""


@dataclass
class Kept:
    number: int = 0


def test_a_connection_is_found_by_its_ends_and_a_new_syn_begins_another() -> None:
    connections = Connections(Kept)
    first = connections.of(packet(5, flags=SYN))
    assert connections.of(packet(9, flags=SYN | ACK, outgoing=False)) is first
    assert connections.of(packet(5, flags=SYN)) is first
    assert connections.of(packet(6, b"x", socket=2)) is first
    assert connections.of(packet(6, local_port=3)) is not first
    assert connections.of(packet(6, head=b"\1" * 80)) is first
    assert connections.of(packet(6, network_namespace=7)) is not first
    assert connections.of(packet(77, flags=SYN)) is not first


def test_only_so_many_connections_are_kept() -> None:
    connections = Connections(Kept, most=2)
    first = connections.of(packet(0, local_port=1))
    connections.of(packet(0, local_port=2))
    assert connections.of(packet(0, local_port=1)) is first
    connections.of(packet(0, local_port=3))
    assert connections.of(packet(0, local_port=1)) is first
