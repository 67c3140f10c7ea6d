"""What a session knows of each gadget that it runs: a stream, snapshot, top, recorder, policy or installed.

A source is attached when its constructor returns, and gets all that it needs there (context.py). The session then calls
settle() and ship() in turns (session/shipping.py), and at its end detach(), settle() and ship() until the source is
empty, and close(). The trap: nothing may be given to ship() whose container may have no name yet, so what settle()
found waits, and ship() sends only that.
"""

from typing import Protocol

from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.wire.agent_messages import GadgetStats, StartedGadget
from kubectl_gadget.wire.client_messages import Update


class Source(Protocol):
    """One gadget while it runs. Constructors raise AgentError, and leave nothing attached then."""

    name: str

    @property
    def fd(self) -> int:
        """A file descriptor that becomes readable when there is something to settle."""

    @property
    def due(self) -> float:
        """When settle() has something to take that `fd` does not announce, by the monotonic clock; inf: never."""

    def started(self) -> StartedGadget:
        """Its entry of the STARTED frame: which programs were chosen, where they are attached, what was skipped."""

    def stats(self) -> GadgetStats:
        """Its entry of the STATS frame: counts since the start."""

    def update(self, update: Update) -> None:
        """Takes an UPDATE. Raises FrameError when it is not one for this kind, AgentError when the kernel
        refuses an entry."""

    def settle(self, is_blocked: bool) -> bool:
        """Finds up to where everything is complete, and takes out of the kernel what has to be read now: call stacks, a
        snapshot, the sums of an interval. A policy's reactions to the events up to there have happened when it returns.
        False: some program is still under way, and nothing may be shipped in this turn. `is_blocked`: the client has
        not taken yet what was shipped before, so nothing is taken that can wait."""

    def ship(self, channel: Channel) -> int:
        """Sends what settle() found; called only after all containers in it have names. The number of bytes of
        events."""

    @property
    def empty(self) -> bool:
        """Whether everything that settle() found has been shipped and taken by the client."""

    def detach(self) -> None:
        """No event comes after this. What was not shipped yet can still be settled and shipped."""

    def close(self) -> None:
        """Frees everything, after detach()."""
