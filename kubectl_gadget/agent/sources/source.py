"""The interface between a session and each gadget that it runs, whatever its kind (session/start_sources.py).

A source is attached when its constructor returns; the constructor gets everything that the source needs (context.py).
The session then calls settle() and send() in turns (session/sending.py). At its end it calls detach(), then settle()
and send() until the source is empty, then close(). The trap: no event may be sent before its container's name, so
send() sends only what settle() found in the same turn.
"""

from typing import Protocol

from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.wire.agent_messages import GadgetStats, StartedGadget
from kubectl_gadget.wire.client_messages import Update


class Source(Protocol):
    """One gadget while it runs. Constructors raise AgentError, and then leave nothing attached."""

    name: str

    @property
    def fd(self) -> int:
        """A file descriptor that becomes readable when there is something to settle."""

    @property
    def due(self) -> float:
        """When settle() has work that `fd` does not announce, on the monotonic clock; inf: never."""

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has arrived since settle(); cheap to ask. While it is true, and before `due`, settle() and
        send() need not be called, except for the reports of idle sources (channel.py)."""

    def started(self) -> StartedGadget:
        """Returns its entry in STARTED: which programs were chosen, where they are attached, what was skipped."""

    def stats(self) -> GadgetStats:
        """Returns its entry in the STATS frame: counts since the start."""

    def update(self, update: Update) -> None:
        """Applies an UPDATE. Raises FrameError when it does not fit this kind, AgentError when the kernel refuses
        it."""

    def settle(self, is_blocked: bool) -> bool:
        """Finds the position up to which events are complete, and reads from the kernel what cannot wait: call stacks,
        a snapshot, the sums of an interval. A policy reacts to all events up to there. Returns False when a program is
        still running; nothing may then be sent in this turn. `is_blocked`: the client has not yet read what was sent
        before, so everything that can wait stays in the kernel."""

    def send(self, channel: Channel) -> int:
        """Sends what settle() found, and returns the number of bytes of events. Called after the names of all
        containers in it were sent."""

    @property
    def empty(self) -> bool:
        """Whether everything that settle() found was sent, and has left the ring."""

    def detach(self) -> None:
        """Stops new events. Earlier ones can still be settled and sent."""

    def close(self) -> None:
        """Frees everything, after detach()."""
