"""Shows the client that the agent is alive while it loads programs.

The kernel's verifier may take longer than a client waits for any frame when the processor is slow or busy and there are
many programs; nothing else of the session runs meanwhile. The trap: only one thread may use the pipe at a time, so code
that loads programs must not write to it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.wire.agent_messages import Pong, encode_message

EVERY_SECONDS = 5.0


@contextmanager
def heard(pipe: FramePipe, every: float = EVERY_SECONDS) -> Iterator[None]:
    """Sends an unsolicited PONG (its id is 0) each `every` seconds until the block ends."""
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
