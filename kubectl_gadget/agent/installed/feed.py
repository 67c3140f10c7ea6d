"""The state and the events that the process of the installed policies (guard.py) passes to sessions in the same pod."""

import fcntl
import math
import os
import socket
import struct
from contextlib import suppress

from kubectl_gadget.agent.bpf.ring import framed
from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.agent.sources.output import Channel
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import GadgetStats, PoliciesState, StartedGadget
from kubectl_gadget.wire.client_messages import Update
from kubectl_gadget.wire.message import read
from kubectl_gadget.wire.policy_messages import InstalledSpec

# The state, as a file.

STATE = f"{presence.FOLDER}/kubectl-gadget.policies"
"""The policies in force, as JSON; the process that wrote it holds a lock on STATE.lock."""


def state() -> PoliciesState | None:
    """Returns what is in force on this node; None when no process of this pod manages policies."""
    try:
        lock = os.open(f"{STATE}.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        running = True
    else:
        running = False
    finally:
        os.close(lock)
    try:
        with open(STATE, "rb") as file:
            return read(PoliciesState, file.read(), STATE).replace(running=running)
    except (OSError, FrameError):
        return None


def write_state(state: PoliciesState) -> None:
    """Replaces the published state."""
    with open(f"{STATE}.new", "wb") as file:
        file.write(state.to_bytes())
    os.replace(f"{STATE}.new", STATE)


def lock_state() -> None:
    """Claims the state for this process, until it ends. Raises AgentError when another process holds it."""
    lock = os.open(f"{STATE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AgentError("another process of this pod already runs the installed policies") from None


# Events, as a session receives them.
#
# Packets come over a Unix socket: an event, as its record's head and JSON; the time up to which events are complete; or
# a number of lost events. That process may end and be restarted; the session then connects again.

PATH = f"{presence.FOLDER}/kubectl-gadget.feed"
EVENT, COMPLETE, LOST = b"E", b"C", b"L"
"""The first byte of each type of packet."""
NUMBER = struct.Struct("<Q")
_MOST_BYTES = 1 << 18
_MOST_HELD = 4 << 20
"""Bytes that a session holds while its client does not take them."""


class FedRing:
    """The received events, with the interface of a ring (bpf/ring.py). Raises OSError when the process is not
    running."""

    def __init__(self, path: str) -> None:
        self.size = _MOST_HELD
        self._path = path
        self._feed: socket.socket | None = _connect(path)
        self._bytes = bytearray()
        self._start = 0
        self.complete_until = 0
        self.events = 0
        self.bytes = 0
        self.lost = 0
        self.gaps = 0
        """how often the other process has ended"""
        self._is_ending = self._has_ended = False
        self.fd = self._feed.fileno()

    def settle(self) -> bool:
        """Reads what has arrived, unless bytes of an earlier read are left."""
        if self._start < len(self._bytes):
            return True
        self._bytes, self._start = bytearray(), 0
        if not self._has_ended:
            self._receive()
            self._has_ended = self._is_ending
        return True

    @property
    def empty(self) -> bool:
        """After end(): whether everything was read and advanced over."""
        return self._has_ended and self._start >= len(self._bytes)

    def end(self) -> None:
        """Makes settle() read what has already arrived, and nothing that comes later."""
        self._is_ending = True

    def _receive(self) -> None:
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

    def _take(self, kind: bytes, rest: bytes) -> None:
        if kind == EVENT:
            self._bytes += framed(rest)
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


class InstalledSource:
    """Kind `installed`: events of the policies that are in force on the node. Raises AgentError when there are none."""

    due = math.inf

    def __init__(self, spec: InstalledSpec, elf: bytes, context: NodeContext, path: str = PATH) -> None:
        self.name = spec.name
        self._warn = context.warnings.add
        self._gaps = 0
        try:
            self._ring = FedRing(path)
        except OSError:
            raise AgentError(
                f"no installed policies are in force on node {this_node.name()}", "kubectl gadget policy installed"
            ) from None

    @property
    def fd(self) -> int:
        return self._ring.fd

    def started(self) -> StartedGadget:
        return StartedGadget(name=self.name, programs=())

    def stats(self) -> GadgetStats:
        lost = {"ring_full": {"all": self._ring.lost}} if self._ring.lost else {}
        return GadgetStats(events=self._ring.events, bytes=self._ring.bytes, lost=lost, cut_strings=0)

    def update(self, update: Update) -> None:
        raise FrameError(f"UPDATE is for {self.name}, which takes no updates")

    def settle(self, is_blocked: bool) -> bool:
        settled = self._ring.settle()
        if self._ring.gaps != self._gaps:
            self._gaps = self._ring.gaps
            self._warn(
                "the process that enforces the installed policies was restarted; events of that time may be missing "
                "here, but are in the log of its pod"
            )
        return settled

    def send(self, channel: Channel) -> int:
        return channel.send_ring(self._ring)

    @property
    def is_quiet(self) -> bool:
        """The session polls the first connection's `fd`; a later connection has another, and is read in each turn."""
        return not self._ring.gaps

    @property
    def empty(self) -> bool:
        return self._ring.empty

    def detach(self) -> None:
        """The policies stay in force; this session receives no later events."""
        self._ring.end()

    def close(self) -> None:
        self._ring.close()
