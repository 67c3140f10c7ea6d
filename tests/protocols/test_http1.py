"""Heads are found in streams, bodies are passed over, whatever is missing or wrong."""

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.protocols.http import Head, Messages, read_head

REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"


def heads(*pieces: bytes | int, messages: Messages | None = None) -> list[Head]:
    messages = messages or Messages()
    found = []
    for piece in pieces:
        for head in messages.feed(piece):
            found.append(head)
            messages.body(-1 if head.is_chunked else head.length or 0)
    return found


def test_a_request_is_read() -> None:
    head = read_head(b"POST /a?b HTTP/1.0\r\nHOST: h\r\nContent-Length: 12\r\n\r\n")
    assert head is not None
    assert (head.method, head.target, head.version, head.text("host"), head.length) == ("POST", "/a?b", "1.0", "h", 12)


def test_a_response_and_an_informational_one_are_read() -> None:
    for status in (100, 200, 503):
        head = read_head(b"HTTP/1.1 %d Fine\r\n\r\n" % status)
        assert head is not None
        assert (head.status, head.method) == (status, "")


def test_a_malformed_head_keeps_its_readable_parts() -> None:
    head = read_head(b"GET /a HTTP/1.1\r\nX: y\r\nbad line\r\n\r\n")
    assert head is not None
    assert (head.method, head.target, head.headers) == ("GET", "/a", {"x": "y"})
    assert read_head(b"nonsense\r\n\r\n") is None


def test_a_length_that_is_not_a_number_is_ignored() -> None:
    assert Head(headers={"content-length": "+5"}).length is None
    assert Head(headers={"content-length": "9" * 30}).length is None


@given(st.lists(st.binary(max_size=30), max_size=4), st.lists(st.integers(1, 20)), st.booleans())
def test_messages_are_found_however_they_are_cut(bodies: list[bytes], sizes: list[int], chunked: bool) -> None:
    stream = b""
    for body in bodies:
        if chunked:
            chunk = b"%x;a=b\r\n%b\r\n" % (len(body), body) if body else b""
            stream += CHUNKED + chunk + b"0\r\nTrailer: x\r\n\r\n"
        else:
            stream += b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    # The first piece has to be recognized as a beginning.
    places = [0, 12]
    for size in sizes:
        places.append(places[-1] + size)
    pieces = [stream[start:end] for start, end in zip(places, [*places[1:], len(stream)], strict=True)]
    assert [head.status for head in heads(*(piece for piece in pieces if piece))] == [200] * len(bodies)


def test_what_is_missing_of_a_body_is_passed_over() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"b" * 10
    found = heads(answer, 90, answer, 90)
    assert [(head.status, head.after_gap) for head in found] == [(200, False), (200, False)]


def test_what_is_missing_inside_of_a_chunk_is_passed_over() -> None:
    found = heads(CHUNKED + b"64\r\n" + b"c" * 10, 90, b"\r\n0\r\n\r\n" + REQUEST)
    assert [head.after_gap for head in found] == [False, False]


def test_when_a_length_is_missing_the_next_message_is_looked_for() -> None:
    found = heads(CHUNKED + b"64\r\n" + b"c" * 10, 95, b"0\r\n\r\n", b"HTTP/1.1 404 No\r\n\r\n")
    assert [(head.status, head.after_gap) for head in found] == [(200, False), (404, True)]


def test_a_head_that_never_ends_is_given_up() -> None:
    found = heads(REQUEST, b"GET /b HTTP/1.1\r\nX: " + b"x" * 70_000, b"x" * 70_000, REQUEST)
    assert [(head.target, head.after_gap) for head in found] == [("/a", False), ("/a", True)]


PIECES = st.one_of(
    st.binary(max_size=40),
    st.integers(1, 200),
    st.sampled_from(
        [
            REQUEST,
            CHUNKED,
            b"HTTP/1.1 200\r\n\r\n",
            b"0\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"GET /\xff\x1b HTTP/1.1\r\n",
        ]
    ),
)


@given(st.lists(PIECES, max_size=12))
def test_no_pieces_do_harm(pieces: list[bytes | int]) -> None:
    messages = Messages()
    heads(*pieces, messages=messages)
    assert len(messages._bytes) <= 1 << 17
