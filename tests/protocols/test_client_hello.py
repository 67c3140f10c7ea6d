"""The hello of TLS: real ones are read, broken ones do no harm."""

import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.protocols.client_hello import BrokenHello, from_handshake, from_records

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
    for read in (from_records, from_handshake):
        with suppress(BrokenHello):
            read(data)


@given(st.lists(st.tuples(st.integers(0, len(HELLO) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_broken_hellos_do_no_harm(changes: list[tuple[int, int]]) -> None:
    broken = bytearray(HELLO)
    for place, byte in changes:
        broken[place] = byte
    with suppress(BrokenHello):
        from_records(bytes(broken))
