"""The state of one node in a run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.run.coverage import Cause, MissingSpan, NodeCoverage
from kubectl_gadget.run.nodes.coverage import CoverageTracker, awake_or_not_ns
from kubectl_gadget.wire.agent_messages import Hello, Started, Stats

STARTING, CONNECTING, ATTACHING = (
    "agent is starting",
    "agent has not answered yet",
    "programs are being attached",
)
"""What a node does before it is attached."""


@dataclass
class NodeState:
    """The state of one node. Written by the event loop, read by the summary."""

    name: str
    attached: bool = False
    ever_attached: bool = False
    selected_ns: int = field(default_factory=awake_or_not_ns)
    """when the run learnt that it is selected, in the clock of `tracker`"""
    tracker: CoverageTracker = field(default_factory=CoverageTracker)
    phase: str = STARTING
    """what it does as long as it is neither attached nor failed, for messages"""
    late_by: float | None = None
    """--start-timeout in seconds, if that was over before the node was attached or failed"""
    left: bool = False
    """nothing selected is on it any more"""
    error: GadgetError | None = None
    """why it is not running now; None while it runs, or before it started"""
    given_up: bool = False
    """whether it will not be retried"""
    gaps: int = 0
    gap_seconds: float = 0.0
    hello: Hello | None = None
    """of the latest connection"""
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """by gadget, the programs that its kernel refused, where no other one does their work"""
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

    def covered(self, wall_ns: int, lost: Mapping[str, int]) -> NodeCoverage:
        """Return the record of this node; `wall_ns` is what our clock has to be advanced by to show wall time."""
        tracker, cause, why = self.tracker, "", ""
        if self.error is not None:
            cause, why = Cause.FAILED if self.given_up else Cause.UNREACHABLE, str(self.error)
        elif not tracker.attached_ns and self.late_by is not None:
            cause = Cause.NOT_IN_TIME
            why = f"its {self.phase}, for longer than {self.late_by:g} s (--start-timeout)"
        elif not tracker.attached_ns:
            cause, why = Cause.STARTING, f"its {self.phase}, and the run ended"
        return NodeCoverage(
            name=self.name,
            selected_ns=self.selected_ns + wall_ns,
            attached_ns=tracker.attached_ns and tracker.attached_ns + wall_ns,
            until_ns=tracker.until_ns and tracker.until_ns + wall_ns,
            gaps=tuple(
                MissingSpan(since_ns=since + wall_ns, until_ns=until + wall_ns) for since, until in tracker.missing
            ),
            without=self.without,
            cause=cause,
            why=why,
            remedy=(self.error.remedy if self.error else "") or "",
            left=self.left,
            lost={name: number for name, number in lost.items() if number},
        )


def refused(started: Started) -> Mapping[str, tuple[str, ...]]:
    """Return, by gadget, the programs that were refused without another one in their place."""
    found = {
        gadget.name: tuple(one.program for each in gadget.programs if not each.chosen for one in each.skipped)
        for gadget in started.gadgets
    }
    return {name: programs for name, programs in found.items() if programs}


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
