"""The goals, as data: what is measured together, what may be asked of it, and what nothing is asked of but to be no
worse than the reference.

The names of the groups are those of `bench.goals --only` and of bench/goal_runs.py, which measures them. What is
measured is found by `what`, so a group's measurement and its goals need the same words.
"""

from dataclasses import dataclass

REFERENCE = "ac2bfd1"
"""The version that the goals were set beside."""


@dataclass(frozen=True)
class Goal:
    """One row of the table."""

    what: str
    unit: str = ""
    most: float | None = None
    least: float | None = None
    digits: int = 2
    no_worse: bool = False
    """than the reference, by more than a twentieth"""
    then: float | None = None
    """What `beside` took when the goals were set, or on 2026-11-28. The machine was then about as fast: `trace open
    --local` took 0.31 s, and 0.30 s when they were set."""
    beside: str = REFERENCE
    """Compared with this, a goal says the same on a machine of any speed. Another tool if it was set beside that."""

    def text(self) -> str:
        """For the table: `≤ 6`, or `≤ 0.2 (ratio 0.65)`."""
        of = "" if self.beside == REFERENCE else f" to {self.beside}"
        ratio = "" if self.ratio is None else f" (ratio {self.ratio:.2f}{of})"
        if self.most is not None:
            return f"≤ {self.most:,g}{ratio}"
        if self.least is not None:
            return f"≥ {self.least:,.0f}{ratio}"
        return "no worse" if self.no_worse else ""

    @property
    def ratio(self) -> float | None:
        """The goal as a ratio to what `beside` took."""
        wanted = self.least if self.most is None else self.most
        return None if wanted is None or self.then is None else wanted / self.then

    def verdict(self, now: float, before: float | None, reference: str) -> str:
        """For the table; `before` is what `reference` took, a version or another tool. Empty without a goal, or without
        something to compare with."""
        if self.most is None and self.least is None:
            if not self.no_worse or before is None:
                return ""
            return "met" if now <= before * 1.05 else "**not met**"
        if self._reaches(now, 1):
            return "met"
        if self.then is None or before is None or reference != self.beside:
            return "**not met**"
        return "met as a ratio" if self._reaches(now, before / self.then) else "**not met**"

    def _reaches(self, now: float, slowness: float) -> bool:
        if self.most is not None:
            return now <= self.most * slowness
        return self.least is not None and now >= self.least * slowness


def nodes(count: int, seconds: float) -> tuple[Goal, ...]:
    """The goals for attaching to so many nodes."""
    return (
        Goal(f"{count:,} nodes attached", "s", most=seconds, digits=1),
        Goal(f"{count:,} nodes: the client's CPU per node", "ms", most=4),
        Goal(f"{count:,} nodes: the client's memory per node", "MB", most=0.1, digits=3),
    )


RESIDENT, SIX, ON_DEMAND = "2 nodes, resident", "6 nodes, resident", "2 nodes, on demand"
FIRST = "first run after deploy"
"""What agents prepare then, for later ones, must not make it slow: pods on demand have no other."""
COUNTED = "`trace process`, by the kernel's own count, per program"
MILLION, TEN_MINUTES = "report of a million events", "report of ten minutes, 200 events/s"
SPINNING = "`diagnose` for 30 s, beside a program that spins"
DIAGNOSE_LOCAL = "`diagnose --local`: Enter to attached"
LIVE_PAGE = "live page in Chromium, 10,000 events/s for a minute"
EXPORTED = "client on one core"
EXPORT_DOWN = "collector down, 20,000 rows/s for a minute: the client's memory"
LOCAL, MANY_PROGRAMS = "`trace open --local`", "`trace file --local`, many programs"

GOALS: dict[str, tuple[Goal, ...]] = {
    "nodes": nodes(1000, 8),
    "many-nodes": nodes(5000, 45),
    "connections": (Goal("`flows`, added per TCP connection", "µs", most=6, then=6.5, beside="tcplife"),),
    "stream": (Goal("`flows`, added per 64 KiB of a stream", "µs", most=0.3),),
    "programs": (
        Goal("`trace process`, added per program", "µs", most=9),
        Goal(COUNTED, "µs"),
        Goal("`trace exec`, added per program", "µs"),
    ),
    "open": (
        Goal("`trace open`, added per open", "µs", most=1.1),
        Goal("`trace open`, agent's CPU per open", "µs", most=0.3),
        Goal("`trace open`, delivered of 1,000,000", "%", least=100),
    ),
    "busy-open": (
        Goal("4 spinners: `trace open`, added per open", "µs", most=1.5),
        Goal("4 spinners: `trace open`, delivered of 1,000,000", "%", least=100),
    ),
    "local": (
        Goal(f"{LOCAL}: Enter to attached", "s", most=0.2, then=0.31),
        Goal(f"{LOCAL}: Ctrl-C to the end", "s", most=0.2, then=0.42),
        Goal(f"{LOCAL}: CPU of client and agent", "s", no_worse=True),
        Goal(f"{MANY_PROGRAMS}: Enter to attached", "s"),
        Goal(f"{MANY_PROGRAMS}: Ctrl-C to the end", "s", most=0.4, then=2.37),
        Goal(f"{MANY_PROGRAMS}: CPU of client and agent", "s"),
    ),
    "help": (
        Goal("`--help`", "s", most=0.06, digits=3, then=0.106),
        Goal("`--help`, of CPU", "s", digits=3),
        Goal("TAB", "s", most=0.06, digits=3, then=0.098),
        Goal("TAB, of CPU", "s", digits=3),
    ),
    "cluster": (
        Goal(f"fake cluster, {RESIDENT}: Enter to attached", "s", most=0.6, then=0.72),
        Goal(f"fake cluster, {RESIDENT}, {FIRST}: Enter to attached", "s", no_worse=True),
        Goal(f"fake cluster, {RESIDENT}: Ctrl-C to the end", "s", most=0.2, then=0.51),
        Goal(f"fake cluster, {SIX}: Enter to attached", "s", most=1.5, then=1.18),
        Goal(f"fake cluster, {ON_DEMAND}: Enter to attached", "s", most=0.5, then=0.72),
    ),
    "real-cluster": (
        Goal("cluster of $KUBECONFIG: Enter to attached", "s", most=0.6),
        Goal("cluster of $KUBECONFIG: Ctrl-C to the end", "s", most=0.2),
    ),
    "flows-client": (
        Goal("`flows`, client on one core: rows/s, three per connection", least=150_000, digits=0, then=77_399),
        Goal("`flows`, client on one core: memory", "MB", digits=0),
    ),
    "diagnose": (
        Goal("`diagnose -A` for 30 s, 1,000 pods on 100 nodes: the client's CPU", "s", most=10, digits=1),
        Goal("`diagnose -A` for 30 s, 1,000 pods on 100 nodes: the client's memory", "MB", digits=0),
    ),
    "diagnose-agent": (
        Goal(f"{SPINNING}: the agent, of all CPUs", "%", most=2),
        Goal(f"{SPINNING}: the agent's memory", "MB", most=100, digits=0),
        Goal(f"{SPINNING}: events/s, whatever the program calls", most=20_000, digits=0),
    ),
    "diagnose-start": (
        Goal(DIAGNOSE_LOCAL, "s", no_worse=True),
        Goal(f"{DIAGNOSE_LOCAL}, times {LOCAL} right before", no_worse=True, digits=1),
    ),
    "page": (
        Goal(MILLION, "s", most=15, digits=1),
        Goal(f"{MILLION}: memory", "MB", most=500, digits=0),
        Goal(f"{MILLION}: its size", "MB", most=5),
        Goal(f"{TEN_MINUTES}: its size", "MB", most=1),
    ),
    "live-page": (
        Goal(f"{LIVE_PAGE}: longest task of its main thread", "ms", most=100, digits=0),
        Goal(f"{LIVE_PAGE}: frames of more than 100 ms", most=0, digits=0),
        Goal(f"{LIVE_PAGE}: most memory of its scripts", "MB", most=60, digits=0),
    ),
    "formats": (
        Goal("client on one core: decode, name, filter, count, rows/s", least=1_000_000, digits=0, then=2_870_100),
        Goal("client on one core: JSON, rows/s", least=150_000, digits=0, then=191_165),
        Goal("client on one core: CSV, rows/s", least=150_000, digits=0, then=51_464),
        Goal("client on one core: YAML, rows/s", least=100_000, digits=0, then=5_902),
    ),
    "export": (
        Goal(f"{EXPORTED}: OTLP log records, rows/s", least=100_000, digits=0),
        Goal(f"{EXPORTED}: OTLP spans, rows/s", least=50_000, digits=0),
        Goal(EXPORT_DOWN, "MB", most=150, digits=0),
    ),
    "profile": (
        Goal("`profile cpu`, agent, of all CPUs", "%", most=1, then=0.48),
        Goal("`profile cpu`, agent's memory", "MB", most=60, digits=0),
    ),
    "busy-profile": (
        Goal("2 compilers: `profile cpu`, agent, of all CPUs", "%", most=1, then=2.49),
        Goal("2 compilers: `profile cpu`, agent's memory", "MB", most=60, digits=0),
    ),
    "size": (
        Goal("installed packages", "MB", no_worse=True, digits=0),
        Goal("installed packages, number", no_worse=True, digits=0),
        Goal("wheel", "MB", most=6.2),
        Goal("an open on the wire", "bytes", most=180, digits=0),
        Goal("an exec on the wire", "bytes", most=325, digits=0),
        Goal("a TCP connection's row on the wire", "bytes", no_worse=True, digits=0),
    ),
}
LONG = ("many-nodes",)
"""Left out unless they are named or --all is given: each takes minutes."""
