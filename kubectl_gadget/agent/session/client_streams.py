"""The two file descriptors of a session, and all others that it waits for, in one epoll; and what the client hears
while programs are loaded.

The trap: rings are watched edge-triggered. Level-triggered, a ring that is never empty would keep the loop busy.
"""

import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.host.own_memory import own_memory
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.wire.agent_messages import Pong, encode_message
from kubectl_gadget.wire.frames import Frame, FrameDecoder

_PIPE_BYTES = 1 << 20


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
        """Makes both non-blocking. From now on, signals wake wait()."""
        for fd in self.fds:
            os.set_blocking(fd, False)
        with suppress(OSError):  # not a pipe, or over the user's limit: it works with a smaller buffer
            if fcntl.fcntl(self._output, fcntl.F_GETPIPE_SZ) < _PIPE_BYTES:
                fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
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


# Shows the client that the agent is alive while it loads programs.
#
# With many programs on a slow or busy processor, the kernel's verifier may take longer than a client waits for any
# frame, and the session does nothing else meanwhile. The trap: only one thread may use the pipe at a time, so code
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
