"""The two file descriptors of a session, and all others that it waits for, in one epoll; and what the client hears
while programs are loaded.

The trap: rings are watched edge-triggered. Level-triggered, a ring that is never empty would keep the loop busy.
"""

import ctypes
import fcntl
import math
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.wire.agent_messages import Pong, encode_message
from kubectl_gadget.wire.frames import Frame, FrameDecoder

_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE, _GET_PIPE_SIZE = 1031, 1032
"""F_SETPIPE_SZ and F_GETPIPE_SZ, which fcntl does not have in Python 3.9."""


class ClosedError(Exception):
    """The client has closed its side."""


class ClientStreams:
    """Reads frames from `input`, and writes them to `output` through `pipe`, which holds at most `most_held` bytes.
    open() makes both non-blocking."""

    def __init__(self, input: int, output: int, most_held: int) -> None:
        self.fds = (input, output)
        self.pipe = FramePipe(output, most_held, own_memory().is_scarce)
        self.heard = time.monotonic()
        """when bytes last arrived"""
        self._input = input
        self._output = output
        self._decoder = FrameDecoder()
        self._epoll = select.epoll()
        self._output_watched = False
        self._input_pollable = True

    def open(self) -> None:
        """Makes both non-blocking. After this, signals wake wait()."""
        for fd in self.fds:
            os.set_blocking(fd, False)
        with suppress(OSError):  # not a pipe, or over the user's limit: it works with a smaller buffer
            if fcntl.fcntl(self._output, _GET_PIPE_SIZE) < _PIPE_BYTES:
                fcntl.fcntl(self._output, _SET_PIPE_SIZE, _PIPE_BYTES)
        try:
            self._epoll.register(self._input, select.EPOLLIN)
        except PermissionError:
            self._input_pollable = False  # a file: always readable
        receive, send = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll.register(receive, select.EPOLLIN)
        signal.set_wakeup_fd(send)

    def watch(self, fd: int) -> None:
        """Makes wait() return when `fd` has become readable again."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def wait(self, seconds: float) -> bool:
        """Waits until input can be read, the client can take more output, a watched descriptor has become readable, or
        the time has passed. Returns False when only the time has passed."""
        if self.pipe.blocked != self._output_watched:
            self._watch_output()
        return bool(self._epoll.poll(seconds if self._input_pollable else 0)) or not self._input_pollable

    def wait_for_output(self, seconds: float) -> None:
        """Waits until the client takes output, or the time has passed."""
        output = select.poll()
        output.register(self._output, select.POLLOUT)
        output.poll(seconds * 1000)

    def receive(self) -> Iterator[Frame]:
        """Yields the frames received so far. Raises ClosedError at the end of input, FrameError if one is invalid."""
        while True:
            try:
                data = os.read(self._input, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                raise ClosedError
            self.heard = time.monotonic()
            yield from self._decoder.feed(data)

    @property
    def skipped(self) -> int:
        """Number of frames of a newer protocol version received so far."""
        return self._decoder.skipped

    def close(self) -> None:
        self._epoll.close()

    def _watch_output(self) -> None:
        try:
            if self._output_watched:
                self._epoll.unregister(self._output)
            else:
                self._epoll.register(self._output, select.EPOLLOUT)
        except PermissionError:
            pass  # a file: never blocks
        self._output_watched = not self._output_watched


# PONG while programs are loaded, which shows the client that the agent is alive.
#
# With many programs on a slow or busy processor, the kernel's verifier may take longer than a client waits for any
# frame, and the session does nothing else in that time. The trap: only one thread may use the pipe at a time, so code
# that loads programs must not write to it.

EVERY_SECONDS = 5.0
_DESCRIPTORS = 1024
"""The usual limit of a process. Few sessions have more."""


@contextmanager
def heard(pipe: FramePipe, every: float = EVERY_SECONDS) -> Iterator[None]:
    """Sends an unsolicited PONG (its id is 0) each `every` seconds until the block ends."""
    _make_room_for_descriptors()
    over = threading.Event()

    def send() -> None:
        while not over.wait(every):
            pipe.put(encode_message(Pong(id=0, **this_node.clocks())))
            pipe.flush()

    sender = threading.Thread(target=send, name="heard while programs are loaded")
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


def _make_room_for_descriptors() -> None:
    """Makes the process's table of file descriptors as large as it will need. If it grows while threads share it, the
    kernel waits for an RCU grace period, 10 ms each time."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    with suppress(OSError):  # the limit is lower
        os.close(fcntl.fcntl(root, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTORS - 1))
    os.close(root)


# The memory of this process: whether its cgroup, such as its pod's container, is near its limit, so that no more bytes
# may wait for the client; and what glibc keeps.
#
# The kernel kills one process of the cgroup, or all of them, when the limit is reached. Cached files count as used, but
# are dropped first. The limit is unknown with cgroup version 1, and when only a parent cgroup has one.

_MOUNT = "/sys/fs/cgroup"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""From glibc's malloc.h."""


class OwnMemory:
    """The memory of the cgroup (version 2) in this folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._limit = self._number("memory.max")

    def is_scarce(self) -> bool:
        """True if more than three quarters of the limit are used. False if there is none."""
        most = 0.75 * self._limit
        return most < math.inf and self._number("memory.current") > most and self._used() > most

    def _used(self) -> float:
        counts = dict(line.split() for line in procfs.read(f"{self._folder}/memory.stat").splitlines())
        cached = sum(int(counts.get(kind, 0)) for kind in (b"active_file", b"inactive_file"))
        return self._number("memory.current") - cached

    def _number(self, name: str) -> float:
        text = procfs.read(f"{self._folder}/{name}").strip()
        return int(text) if text.isdigit() else math.inf  # "max", or no such file


def own_memory() -> OwnMemory:
    """Returns the memory of this process's cgroup. In a pod, the mount usually begins at the container's cgroup."""
    below = f"{_MOUNT}{procfs.cgroup(os.getpid())}"
    return OwnMemory(below if os.path.isdir(below) else _MOUNT)


def keep_freed_memory() -> None:
    """Makes malloc() reuse freed memory until give_back_freed_memory(): libbpf reads all of the kernel's types again
    for each object, twice 5 MB, and each new page from the kernel takes a microsecond. Does nothing where the C library
    has no mallopt()."""
    _set_thresholds(32 << 20, 64 << 20)


def give_back_freed_memory() -> None:
    """Returns memory to the kernel that was freed after programs were loaded. Takes a millisecond or two. Does nothing
    where the C library has no malloc_trim()."""
    _set_thresholds(4 << 20, 8 << 20)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_thresholds(of_own_mapping: int, kept: int) -> None:
    """Sets the size from which an allocation gets its own mapping, and how much freed memory glibc keeps."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, of_own_mapping)
        set_option(_M_TRIM_THRESHOLD, kept)
