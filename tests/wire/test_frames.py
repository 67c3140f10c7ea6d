"""Frames as any stream may cut them, and as a hostile stream may forge them."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire.frames import (
    LAST,
    MAX_PAYLOAD,
    VERSION,
    EventsHeader,
    Frame,
    FrameDecoder,
    FrameType,
    encode,
    gadget_of_stream,
    header,
    joined_streams,
    split_events,
)
from kubectl_gadget.wire.message import parse
from tests.json_frames import encode_json

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200)), max_size=8)


def decode(pieces: list[bytes]) -> list[Frame]:
    decoder = FrameDecoder()
    found = [frame for piece in pieces for frame in decoder.feed(piece)]
    decoder.close()
    return found


@given(frames, st.data())
def test_any_cutting_of_any_frames_decodes_the_same(wanted: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(encode(type, payload) for type, payload in wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(pieces) == [Frame(type, payload) for type, payload in wanted]


@given(frames)
def test_a_stream_of_single_bytes_decodes_the_same(wanted: list[tuple[int, bytes]]) -> None:
    stream = b"".join(encode(type, payload) for type, payload in wanted)
    assert decode([bytes([byte]) for byte in stream]) == [Frame(type, payload) for type, payload in wanted]


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_random_bytes_give_frames_or_a_frame_error(pieces: list[bytes]) -> None:
    decoder = FrameDecoder()
    given_bytes = sum(map(len, pieces))
    try:
        found = [frame for piece in pieces for frame in decoder.feed(piece)]
    except FrameError:
        with pytest.raises(FrameError):
            list(decoder.feed(encode(FrameType.PONG)))
    else:
        assert sum(8 + len(frame.payload) for frame in found) <= given_bytes


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_random_bytes_after_a_good_frame_do_not_take_it_back(payload: bytes, rest: bytes) -> None:
    feed = FrameDecoder().feed(encode(FrameType.STATS, payload) + rest)
    assert next(feed) == Frame(FrameType.STATS, payload)


@given(st.integers(VERSION + 1, 255), st.binary(max_size=100), st.binary(max_size=100))
def test_a_frame_of_a_newer_version_is_skipped_and_counted(version: int, newer: bytes, ours: bytes) -> None:
    decoder = FrameDecoder()
    stream = struct.pack("<2sBBI", b"kg", version, 3, len(newer)) + newer + encode(FrameType.STOP, ours)
    assert list(decoder.feed(stream)) == [Frame(FrameType.STOP, ours)]
    assert decoder.skipped == 1


def test_a_version_of_zero_is_not_ours() -> None:
    with pytest.raises(FrameError, match="version 0"):
        list(FrameDecoder().feed(struct.pack("<2sBBI", b"kg", 0, 3, 0)))


def test_a_length_over_the_limit_is_refused_before_any_of_it_is_kept() -> None:
    with pytest.raises(FrameError, match="not of this protocol"):
        list(FrameDecoder().feed(struct.pack("<2sBBI", b"kg", VERSION, 3, MAX_PAYLOAD + 1)))
    with pytest.raises(ValueError, match="over the limit"):
        header(FrameType.EVENTS, MAX_PAYLOAD + 1)


def test_foreign_text_is_quoted_in_the_error() -> None:
    with pytest.raises(FrameError, match="command not found"):
        list(FrameDecoder().feed(b"sh: python3: command not found\n"))


def test_an_end_inside_a_frame_is_an_error() -> None:
    decoder = FrameDecoder()
    assert list(decoder.feed(encode(FrameType.STATS, b"{}")[:-1])) == []
    with pytest.raises(FrameError, match="inside a frame"):
        decoder.close()


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_a_json_object_comes_back_as_it_was(value: dict[str, object]) -> None:
    [frame] = decode([encode_json(FrameType.RUN, value)])
    assert parse(frame.payload) == value


@pytest.mark.parametrize("payload", [b"", b"[]", b"1", b"{", b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_not_an_object_is_a_frame_error(payload: bytes) -> None:
    with pytest.raises(FrameError):
        parse(payload)


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**62 - 1), st.binary(max_size=100))
def test_the_head_of_events_comes_back_as_it_was(gadget: int, sequence: int, until: int, ring: bytes) -> None:
    head = EventsHeader(gadget, sequence, until)
    found, rest = split_events(head.encode() + ring)
    assert (found, bytes(rest)) == (head, ring)


@pytest.mark.parametrize("until", [2**62, 2**64 - 1])
def test_events_of_a_century_are_a_frame_error(until: int) -> None:
    with pytest.raises(FrameError, match="complete until"):
        split_events(EventsHeader(0, 0, until).encode())


@given(st.binary(max_size=23))
def test_events_without_a_whole_head_are_a_frame_error(payload: bytes) -> None:
    with pytest.raises(FrameError, match="shorter than its head"):
        split_events(payload)


def test_json_is_compact_and_utf_8() -> None:
    payload = encode_json(FrameType.WARNING, {"message": "ü"})[8:]
    assert json.loads(payload.decode()) == {"message": "ü"}
    assert b" " not in payload


def test_the_gadget_of_a_streams_events_is_read_without_the_rest_of_their_head() -> None:
    assert gadget_of_stream(EventsHeader(7, 1, 2).encode() + b"rows") == 7
    assert gadget_of_stream(EventsHeader(7, 1, 2, LAST).encode()) is None
    assert gadget_of_stream(EventsHeader(7, 1, 2).encode()[:-1]) is None


def test_joined_streams_are_complete_until_the_last_of_them_is() -> None:
    payloads = [EventsHeader(7, number, number).encode() + b"%d" % number for number in (1, 2, 3)]
    head, data = split_events(joined_streams(payloads))
    assert (head, bytes(data)) == (EventsHeader(7, 3, 3), b"123")
