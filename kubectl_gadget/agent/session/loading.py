"""Has the client know that the agent is there while it loads programs.

The kernel's verifier may take longer than a client waits for any frame, where the processor is slow or busy and the
programs are many; nothing else of the session runs meanwhile. The trap: the pipe is one thread's at a time, so who
loads writes nothing to it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kubectl_gadget.agent.host import node
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.wire import FrameType, encode_json

EVERY_SECONDS = 5.0


@contextmanager
def heard(pipe: FramePipe, every: float = EVERY_SECONDS) -> Iterator[None]:
    """Sends a PONG that answers nothing, its id is 0, each `every` seconds until the block ends."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(every):
            pipe.put(encode_json(FrameType.PONG, {"id": 0, **node.clocks()}))
            pipe.flush()

    teller = threading.Thread(target=tell, name="heard while programs are loaded")
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
