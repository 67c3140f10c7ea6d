"""The state of one node in a run."""

from collections.abc import Iterator
from dataclasses import field

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.light_dataclasses import dataclass
from kubectl_gadget.wire.agent_messages import Hello, Started, Stats


@dataclass
class NodeState:
    """The state of one node. Written by the event loop, read by the summary."""

    name: str
    attached: bool = False
    ever_attached: bool = False
    attached_at: float | None = None
    """when it was attached for the first time; monotonic seconds"""
    error: GadgetError | None = None
    """why it is not running now; None while it runs, or before it started"""
    given_up: bool = False
    """whether it will not be retried"""
    gaps: int = 0
    gap_seconds: float = 0.0
    hello: Hello | None = None
    """of the latest connection"""
    stats: Stats | None = None
    """of the connection that is open now"""
    past_stats: list[Stats] = field(default_factory=list)
    """last statistics of lost connections"""

    @property
    def is_pending(self) -> bool:
        """Whether it has neither been attached nor failed."""
        return not self.attached and self.error is None

    @property
    def connections(self) -> list[Stats]:
        """Returns the last statistics of each connection."""
        return self.past_stats if self.stats is None else [*self.past_stats, self.stats]


def hook_lines(started: Started) -> Iterator[str]:
    """Yields which hooks of each gadget this node's kernel has loaded, and which it refused."""
    for gadget in started.gadgets:
        hooks = [hook for program in gadget.programs for hook in program.hooks]
        yield f"{gadget.name} hooks {', '.join(hooks)}"
        for skipped in (entry for program in gadget.programs for entry in program.skipped):
            yield f"{gadget.name} runs without {skipped.program}: {skipped.why}"


def method_lines(started: Started) -> Iterator[str]:
    """Yields what is in force at each hook of policies, where it does more than watch."""
    for program in (program for gadget in started.gadgets for program in gadget.programs):
        if program.method != "observes":
            yield f"{program.method} at {', '.join(program.hooks)}"
