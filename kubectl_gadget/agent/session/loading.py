"""Shows the client that the agent is alive while it loads programs.

With many programs on a slow or busy processor, the kernel's verifier may take longer than a client waits for any frame,
and the session does nothing else meanwhile. The trap: only one thread may use the pipe at a time, so code that loads
programs must not write to it.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.wire.agent_messages import Pong, encode_message

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
