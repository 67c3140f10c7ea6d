"""Frames into a pipe that takes as much as it likes."""

import os
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.pipe import FramePipe


class Ring:
    """Counts what is given back."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.size = len(data)
        self.given_back: list[int] = []

    def advance(self, count: int) -> None:
        self.given_back.append(count)


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


def test_what_fits_is_written_at_once(ends: tuple[int, int]) -> None:
    pipe = FramePipe(ends[1])
    ring = Ring(bytearray(b"x" * 16))
    pipe.put(b"first")
    pipe.put_ring(b"head", memoryview(ring.data), ring)
    pipe.flush()
    assert os.read(ends[0], 100) == b"firsthead" + bytes(ring.data)
    assert ring.given_back == [16]
    assert not pipe.blocked


def test_a_slow_reader_gets_all_in_order_while_the_ring_is_empty_again(ends: tuple[int, int]) -> None:
    pipe = FramePipe(ends[1])
    data = os.urandom(1_000_000)
    ring = Ring(bytearray(data))
    pipe.put_ring(b"odd", memoryview(ring.data), ring)
    pipe.put(b"last")
    pipe.flush()
    assert sum(ring.given_back) == 1_000_000
    assert all(count % 8 == 0 for count in ring.given_back)
    ring.data[:] = bytes(1_000_000)  # as the kernel does with what it was given back
    got = b""
    while pipe.blocked:
        got += os.read(ends[0], 4093)
        pipe.flush()
    while len(got) < 1_000_007:
        got += os.read(ends[0], 65536)
    assert got == b"odd" + data + b"last"
    assert pipe.written == len(got)


def test_what_is_held_for_a_slow_reader_is_limited(ends: tuple[int, int]) -> None:
    pipe = FramePipe(ends[1], 1_000_000)
    ring = Ring(bytearray(80_000))
    held = 0
    while not pipe.full:
        pipe.put_ring(b"", memoryview(ring.data), ring)
        pipe.flush()
        held += 80_000
        assert held < 1_200_000
    assert held > 1_000_000
    while pipe.full:
        os.read(ends[0], 65536)
        pipe.flush()
    pipe.discard()
    assert not pipe.full


def test_many_small_pieces_count_as_the_memory_that_they_take(ends: tuple[int, int]) -> None:
    pipe = FramePipe(ends[1], 1_000_000)
    ring = Ring(bytearray(80_000))
    put = 0
    while not pipe.full:
        pipe.put_ring(b"head", memoryview(ring.data)[:8], ring)
        pipe.flush()
        put += 1
        assert put < 20_000
    assert sum(ring.given_back) == 8 * put, "also what was put after much that is held"


def test_where_memory_is_scarce_nothing_more_is_held_until_all_is_written(ends: tuple[int, int]) -> None:
    scarce = [False, True]
    pipe = FramePipe(ends[1], is_scarce=lambda: scarce.pop(0))
    ring = Ring(bytearray(80_000))
    for full in (False, True):
        pipe.put_ring(b"", memoryview(ring.data), ring)
        pipe.flush()
        assert pipe.full is full
    assert sum(ring.given_back) == 160_000
    while pipe.blocked:
        assert pipe.full
        os.read(ends[0], 65536)
        pipe.flush()
    assert not pipe.full


def test_a_reader_that_has_gone_is_noticed_and_nothing_is_kept(ends: tuple[int, int]) -> None:
    pipe = FramePipe(ends[1])
    os.close(ends[0])
    pipe.put(b"anything")
    pipe.flush()
    assert pipe.closed
    assert not pipe.blocked
