"""The interface of a stream to one node's agent, whether it is a pod's exec or a child process.

The trap: `receive` returns chunks of any size; only the frame decoder knows where a frame ends.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol


class NodeStream(Protocol):
    """A byte stream to and from one agent."""

    take: Callable[[bytes], bool] | None
    """Where a stream can: called with a chunk that comes while `receive` is awaited, which returns it if the answer is
    False. Saves waking a task for each of ten thousand frames a second."""

    @property
    def stderr_tail(self) -> str:
        """The last lines that the agent wrote to its standard error; they explain why it died."""

    async def receive(self) -> bytes:
        """Returns the next chunk of the agent's output, or b"" at its end. Raises GadgetError when the stream broke."""

    async def send(self, data: bytes) -> None:
        """Writes to the agent's input; waits while it is full. Raises GadgetError when the stream broke."""

    async def close(self) -> None:
        """Closes the stream, which ends the agent. Never raises."""


Open = Callable[[], Awaitable[NodeStream]]
"""Opens a new stream to a node; called again for each reconnection."""
