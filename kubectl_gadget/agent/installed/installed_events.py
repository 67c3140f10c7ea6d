"""Events of installed policies in a session: what the process that has them in force tells (feed.py), as a gadget.

Packets over a Unix socket: an event, as head of its record and JSON, or until when the events are complete. The trap:
that process may end and be started again, and a session goes on then.
"""

import socket
import struct
from contextlib import suppress
from typing import Any

from kubectl_gadget.agent.answers.answer import Answer
from kubectl_gadget.agent.host import node
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError

PATH = f"{presence.FOLDER}/kubectl-gadget.feed"
EVENT, COMPLETE, LOST = b"E", b"C", b"L"
"""How packets begin."""
NUMBER = struct.Struct("<Q")
_RING = struct.Struct("<II")
_MOST_BYTES = 1 << 18
_MOST_HELD = 4 << 20
"""Bytes that a session holds while its client does not take them."""


class FedRing:
    """The events as a ring that a session ships from, see bpf/ring.py. Raises OSError when nobody tells any."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._feed: socket.socket | None = _connect(path)
        self._bytes = bytearray()
        self._start = 0
        self.complete_until = 0
        self.events = 0
        self.bytes = 0
        self.lost = 0
        self.gaps = 0
        """how often the other side ended"""
        self.fd = self._feed.fileno()

    def settle(self) -> bool:
        """Takes what is there, unless bytes are left over from before."""
        if self._start < len(self._bytes):
            return True
        self._bytes, self._start = bytearray(), 0
        if self._feed is None:
            with suppress(OSError):
                self._feed = _connect(self._path)
        while self._feed is not None and len(self._bytes) < _MOST_HELD:
            try:
                packet = self._feed.recv(_MOST_BYTES)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if packet:
                self._take(packet[:1], packet[1:])
            else:
                self._feed.close()
                self._feed = None
                self.gaps += 1
        return True

    def _take(self, kind: bytes, rest: bytes) -> None:
        if kind == EVENT:
            self._bytes += _RING.pack(len(rest), 0) + rest + bytes(-len(rest) % 8)
            self.events += 1
            self.bytes += len(rest)
        elif kind == COMPLETE:
            self.complete_until = NUMBER.unpack(rest)[0]
        elif kind == LOST:
            self.lost += NUMBER.unpack(rest)[0]

    def batch(self) -> memoryview:
        return memoryview(self._bytes)[self._start :]

    def advance(self, count: int) -> None:
        self._start += count

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()


def _connect(path: str) -> socket.socket:
    feed = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        feed.connect(path)
    except OSError:
        feed.close()
        raise
    return feed


class InstalledEvents:
    """What a session knows as a gadget: events of the policies that are in force on the node. Raises AgentError when
    none are."""

    stacks = None

    def __init__(self, index: int, spec: dict[str, Any], path: str = PATH) -> None:
        self.index = index
        self.name: str = spec["name"]
        self.sequence = 0
        self.warnings: list[str] = []
        self.answer: Answer | None = None
        self._gaps = 0
        try:
            self.ring = FedRing(path)
        except OSError:
            raise AgentError(
                f"no installed policies are in force on node {node.name()}", "kubectl gadget policy installed"
            ) from None
        self.ring_fd = self.ring.fd

    def started(self) -> dict[str, Any]:
        return {"name": self.name, "programs": []}

    def stats(self) -> dict[str, Any]:
        lost = {"ring_full": {"all": self.ring.lost}} if self.ring.lost else {}
        return {"events": self.ring.events, "bytes": self.ring.bytes, "lost": lost, "cut_strings": 0}

    def turn(self) -> list[str]:
        """What a user has to know."""
        if self.ring.gaps == self._gaps:
            return []
        self._gaps = self.ring.gaps
        return ["the process that has the installed policies was started anew; what it tells meanwhile is in its log"]

    def react(self) -> None:
        """Who has them in force does."""

    def finish(self) -> None:
        """Nothing was begun about events."""

    def detach(self) -> None:
        """Policies stay in force."""

    def close(self) -> None:
        self.ring.close()
