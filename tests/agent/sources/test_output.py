"""When an idle source reports up to when its events are complete."""

import math
import os
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.sources.output import Channel


class Settled:
    """A ring with these bytes."""

    size = 4096
    complete_until = 7

    def __init__(self) -> None:
        self.bytes = b""

    def batch(self) -> memoryview:
        return memoryview(self.bytes)

    def advance(self, count: int) -> None:
        self.bytes = self.bytes[count:]


@pytest.fixture
def pipe() -> Iterator[FramePipe]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield FramePipe(writer)
    os.close(reader)
    os.close(writer)


def frames(channel: Channel, ring: Settled, pipe: FramePipe) -> int:
    """Sends, and returns how many pieces that were."""
    channel.send_ring(ring)
    sent = pipe.queued
    pipe.flush()
    return sent


def test_an_idle_source_reports_once_and_then_when_it_is_due(pipe: FramePipe) -> None:
    channel, ring = Channel(0, pipe), Settled()
    assert channel.due == math.inf, "a source without a ring never reports"
    assert frames(channel, ring, pipe) == 1
    assert frames(channel, ring, pipe) == 0
    channel.due = 0.0
    assert frames(channel, ring, pipe) == 1
    assert frames(channel, ring, pipe) == 0
    ring.bytes = bytes(8)
    assert frames(channel, ring, pipe) == 2
    assert frames(channel, ring, pipe) == 1, "up to when those were all"
    assert frames(channel, ring, pipe) == 0
