"""QUIC's first packets: those of a real client are opened, anything else is refused."""

from contextlib import suppress

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.protocols.quic import VERSIONS, NotQuicError, QuicHello, client_keys, crypto_frames
from kubectl_gadget.protocols.tls import from_handshake

NAME = "ship.rebels.example"
VERSION_2 = 0x6B3343CF


def datagrams(version: int = 1, protocols: int = 1) -> list[bytes]:
    """What a client opens a connection with."""
    configuration = QuicConfiguration(is_client=True, server_name=NAME, original_version=version)
    configuration.supported_versions = [version]
    configuration.alpn_protocols = [f"p{number}" for number in range(protocols)]
    connection = QuicConnection(configuration=configuration)
    connection.connect(("127.0.0.1", 443), now=0.0)
    return [data for data, _ in connection.datagrams_to_send(now=0.0)]


def first_packet(datagram: bytes) -> bytes:
    """Without what fills the datagram up. Both ids are 8 bytes long, there is no token, and the length takes 2."""
    place = 5 + 9 + 9 + 1
    return datagram[: place + 2 + (int.from_bytes(datagram[place : place + 2]) & 0x3FFF)]


REAL = datagrams()[0]
PACKET = first_packet(REAL)


@pytest.mark.parametrize("version", [1, VERSION_2])
def test_the_hello_of_a_real_client_is_read(version: int) -> None:
    hello = from_handshake(QuicHello().feed(datagrams(version)[0]))
    assert hello is not None
    assert (hello.name, hello.alpn) == (NAME.encode(), [b"p0"])


def test_the_order_of_several_datagrams_does_not_matter() -> None:
    packets = datagrams(protocols=400)
    assert len(packets) > 1
    quic = QuicHello()
    hellos = [from_handshake(quic.feed(packet)) for packet in reversed(packets)]
    assert hellos[0] is None
    assert hellos[-1] is not None
    assert len(hellos[-1].alpn) == 400


def test_the_keys_are_those_of_the_standards_example() -> None:
    keys = client_keys(VERSIONS[1], bytes.fromhex("8394c8f03e515708"))  # RFC 9001, A.1
    assert keys.key.hex() == "1f369613dd76d5467730efcbe3b1a22d"
    assert keys.iv.hex() == "fa044b2f42a3fd3b46fb255c"
    assert keys.header.hex() == "9f50449e04a0e810283a1e9933adedd2"


@given(st.integers(0, len(PACKET) - 1), st.integers(1, 255))
def test_a_packet_that_was_changed_is_refused(place: int, change: int) -> None:
    broken = bytearray(PACKET)
    broken[place] ^= change
    with pytest.raises(NotQuicError):
        QuicHello().feed(bytes(broken))


@given(st.integers(0, len(PACKET) - 1))
def test_a_packet_without_its_end_is_refused(length: int) -> None:
    with pytest.raises(NotQuicError):
        QuicHello().feed(PACKET[:length])


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xc0\0\0\0\1", b"\xd0\x6b\x33\x43\xcf"]))
def test_any_bytes_are_refused(data: bytes, head: bytes) -> None:
    with pytest.raises(NotQuicError):
        QuicHello().feed(head + data)


@given(st.binary(max_size=64))
def test_no_frames_do_harm(frames: bytes) -> None:
    with suppress(NotQuicError, IndexError):
        for offset, data in crypto_frames(frames):
            assert offset >= 0
            assert len(data) <= len(frames)
