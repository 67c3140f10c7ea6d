"""What a run knows of one node and asks of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.wire.agent_messages import Hello, Started, Stats


@dataclass
class NodeState:
    """What is known of one node. Written by the event loop, read by the summary."""

    name: str
    attached: bool = False
    ever_attached: bool = False
    error: GadgetError | None = None
    """why it does not run now; None while it does, or before it began"""
    given_up: bool = False
    """it will not be tried again"""
    gaps: int = 0
    gap_seconds: float = 0.0
    hello: Hello | None = None
    """of the last connection"""
    stats: Stats | None = None
    """of the connection that is open now"""
    past_stats: list[Stats] = field(default_factory=list)
    """last statistics of connections that were lost"""

    @property
    def connections(self) -> list[Stats]:
        """The last statistics of each connection."""
        return self.past_stats if self.stats is None else [*self.past_stats, self.stats]


def hook_lines(started: Started) -> Iterator[str]:
    """Which hooks of each gadget this node's kernel has loaded, and which it refused."""
    for gadget in started.gadgets:
        hooks = [hook for program in gadget.programs for hook in program.hooks]
        yield f"{gadget.name} hooks {', '.join(hooks)}"
        for skipped in (entry for program in gadget.programs for entry in program.skipped):
            yield f"{gadget.name} did without {skipped.program}: {skipped.why}"


def method_lines(started: Started) -> Iterator[str]:
    """What is in force at each hook of policies, where it is more than watching."""
    for program in (program for gadget in started.gadgets for program in gadget.programs):
        if program.method != "observes":
            yield f"{program.method} at {', '.join(program.hooks)}"
