"""Messages of a websocket, however its bytes are cut, beside what the library itself makes of them."""

import asyncio
import gc
import random
import weakref
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from kubectl_gadget.kube.websocket import MessageConnection


class Wire(asyncio.Transport):
    """What the client writes, and whether it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_cut = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_cut = True

    def close(self) -> None:
        self.is_cut = True

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Client:
    """A connection whose request was sent, and what it passes on."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.connection = MessageConnection(ClientProtocol(parse_uri("ws://server/exec")), ping_interval=None)
        self.connection.connection_made(self.wire)
        self.shaking = asyncio.create_task(self.connection.handshake())
        self.messages: list[bytes] = []

    def listen(self) -> None:
        self.connection.listen(self.messages.append, lambda: self.messages.append(b"the end"))

    async def answer(self) -> bytes:
        """What a server says to its request."""
        await asyncio.sleep(0)
        server = ServerProtocol()
        server.receive_data(self.wire.written)
        (request,) = server.events_received()
        server.send_response(server.accept(request))  # type: ignore[arg-type]
        self.wire.written = b""
        return b"".join(server.data_to_send())

    def read(self, data: bytes, cuts: list[int]) -> None:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            self.connection.data_received(data[start:end])


def frame(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


SIZES = (0, 1, 125, 126, 127, 65535, 65536, 70000)
MESSAGES = [bytes([1]) + b"x" * size for size in SIZES]
STREAM = b"".join(
    [
        *(frame(Opcode.BINARY, message) for message in MESSAGES),
        frame(Opcode.PING, b"there?"),
        frame(Opcode.BINARY, b"\1in ", fin=False),
        frame(Opcode.PING, b""),
        frame(Opcode.CONT, b"three ", fin=False),
        frame(Opcode.CONT, b"pieces"),
        frame(Opcode.TEXT, b"\3text"),
        frame(Opcode.BINARY, b"\1last"),
    ]
)
EXPECTED = [*MESSAGES, b"\1in three pieces", b"\3text", b"\1last"]


@pytest.mark.parametrize("seed", range(20))
async def test_messages_are_whole_however_the_bytes_are_cut(seed: int) -> None:
    client, chance = Client(), random.Random(seed)
    data = await client.answer() + STREAM
    client.listen()
    client.read(data, sorted(chance.sample(range(len(data)), 40)))
    await client.shaking
    assert client.messages == EXPECTED
    assert client.wire.written.count(b"\x8a") >= 2  # both pings were answered


async def test_messages_are_whole_when_each_byte_comes_alone() -> None:
    client = Client()
    small = frame(Opcode.BINARY, b"\1a" * 100) + frame(Opcode.PING, b"x") + frame(Opcode.BINARY, b"\1b")
    data = await client.answer() + small
    client.listen()
    client.read(data, [*range(1, len(data))])
    await client.shaking
    assert client.messages == [b"\1a" * 100, b"\1b"]


async def test_messages_that_come_before_anybody_listens_are_kept_in_order() -> None:
    client = Client()
    client.read(await client.answer() + frame(Opcode.BINARY, b"\1a") + frame(Opcode.BINARY, b"\1b"), [])
    await client.shaking
    client.listen()
    client.read(frame(Opcode.BINARY, b"\1c"), [])
    assert client.messages == [b"\1a", b"\1b", b"\1c"]


async def test_the_end_is_passed_on_after_the_last_message_also_to_a_late_listener() -> None:
    client = Client()
    client.read(await client.answer() + frame(Opcode.BINARY, b"\1a"), [])
    await client.shaking
    client.connection.connection_lost(None)
    client.listen()
    assert client.messages == [b"\1a", b"the end"]


async def test_a_lost_connection_and_its_listener_are_freed_without_the_garbage_collector() -> None:
    class Listener:
        def __init__(self, connection: MessageConnection) -> None:
            self.connection = connection
            connection.listen(self.take, self.end)

        def take(self, message: bytes) -> None:
            pass

        def end(self) -> None:
            pass

    client = Client()
    client.read(await client.answer(), [])
    await client.shaking
    listener = Listener(client.connection)
    freed = weakref.ref(listener)
    gc.disable()
    try:
        client.connection.connection_lost(None)
        del listener
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("cut", [1, 30, 60])
async def test_a_refusal_is_reported_with_its_body(cut: int) -> None:
    client = Client()
    await client.answer()
    client.read(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nbecause!", [cut])
    with pytest.raises(Exception, match="HTTP 403") as error:
        await client.shaking
    response: Any = error.value
    assert response.response.body == b"because!"


async def test_masked_and_reserved_frames_end_the_connection_as_in_the_library() -> None:
    for bad in (Frame(Opcode.BINARY, b"\1x").serialize(mask=True), bytes([0xC2, 1, 1]), bytes([0x82, 0xFE])):
        client = Client()
        client.read(await client.answer(), [])
        await client.shaking
        client.listen()
        client.read(bad + bytes(300), [])
        assert client.messages == []
        assert client.wire.written[:1] == b"\x88"  # a close frame says why


async def test_a_connection_has_so_few_attributes_that_objects_share_their_names() -> None:
    client = Client()
    client.read(await client.answer(), [])
    await client.shaking
    assert len(vars(client.connection)) <= 30
