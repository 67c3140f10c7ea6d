"""What a stream to one node's agent must offer, whether it is a pod's exec or a child process.

The trap: `receive` gives pieces of any size; only the frame decoder knows where a frame ends.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol


class NodeStream(Protocol):
    """Bytes to and from one agent."""

    @property
    def stderr_tail(self) -> str:
        """The last lines that the agent wrote to its standard error; they say why it died."""

    async def receive(self) -> bytes:
        """The next piece of the agent's output, b"" at its end. Raises GadgetError when the stream broke."""

    async def send(self, data: bytes) -> None:
        """Writes to the agent's input; waits while it is full. Raises GadgetError when the stream broke."""

    async def close(self) -> None:
        """Ends the stream, and with it the agent. Never raises."""


Open = Callable[[], Awaitable[NodeStream]]
"""Opens a new stream to a node; called again for each reconnection."""
