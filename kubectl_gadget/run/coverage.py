"""Records who was traced, from when, to when; finds what this leaves in doubt; and makes the sentences about it.

The engine makes a `Coverage` when a run ends (`LiveRun.coverage`), and all that is said about the run rests on it: its
summary, `--strict`, `--expect` and `--fail-on`, the verdicts of `ci`, and what `advise` and `behavior` call complete.
A recording carries it as JSON: `coverage.to_json()`, and back with `Coverage.from_json(value, "coverage")`, which
raises FrameError, since a file may come from anybody. Two runs of one recording are put together by `joined`.

All times are wall time of this client in ns, by a clock that is not set while the run lasts. A count of lost events
says something only about the time that is covered, so `doubts` lists what lies outside it too.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, NamedTuple

from kubectl_gadget.wire.agent_messages import Hello, Pong, Started, Stats
from kubectl_gadget.wire.message import NONE, Codec, Message, WrongError
from kubectl_gadget.wording import count

_LAST_NS = 1 << 62
"""Any later time is of a damaged or hostile file, and no calendar has it."""
_NAMED = 5
"""Nodes that one sentence names; further ones are counted."""


EXPECTATION_FAILED, INCONCLUSIVE = 4, 5
"""The exit codes of --fail-on and --expect."""


class Cause(StrEnum):
    """Reasons why a node was not traced, or no longer."""

    STARTING = "starting"
    """the run ended while its agent was starting, or was attaching its programs"""
    NOT_IN_TIME = "not started in time"
    """the same, and it took longer than --start-timeout"""
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    """it was still being tried when the run ended"""
    SKIPPED = "skipped"
    """it was not tried: it is not ready, or cannot run an agent"""


def _read_time(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LAST_NS:
        raise WrongError("is not a time in ns")
    return value


Time = Annotated[int, Codec(_read_time, lambda value: value, "time in ns")]


class MissingSpan(Message):
    """A time for which events of an attached node are missing."""

    since_ns: Time
    until_ns: Time
    cause: str = "the connection was lost"

    @property
    def seconds(self) -> float:
        return max(0, self.until_ns - self.since_ns) / 1e9


class NodeCoverage(Message):
    """One node. An agent attaches all gadgets of a run or none, so they share their times."""

    name: str
    selected_ns: Time = 0
    """when the run learnt that it is selected"""
    attached_ns: Time = 0
    """when all gadgets were attached for the first time; 0: never"""
    until_ns: Time = 0
    """until when its events are complete, but for `gaps`"""
    gaps: tuple[MissingSpan, ...] = ()
    without: Mapping[str, tuple[str, ...]] = NONE
    """by gadget, the optional programs that its kernel refused"""
    cause: str = ""
    """why it was not traced, or not to the end: a Cause; empty: it was"""
    why: str = ""
    """the same for people, such as an error's message"""
    remedy: str = ""
    left: bool = False
    """nothing selected is on it any more, so it was left before the end"""
    lost: Mapping[str, int] = NONE
    """lost events while it was covered, by cause (docs/protocol.md, STATS)"""

    @property
    def gap_seconds(self) -> float:
        return sum(gap.seconds for gap in self.gaps)


class Coverage(Message):
    """One run."""

    selected: str = ""
    """what was asked for, in words: `namespace shop, pods app=cart`"""
    absent: tuple[str, ...] = ()
    """what was asked for and never existed, as clauses: `pod web-1 did not exist`"""
    gadgets: tuple[str, ...] = ()
    began_ns: Time = 0
    """when the user started it"""
    complete_ns: Time = 0
    """when each selected node was attached or had failed, or --start-timeout was over; 0: not before the end"""
    ended_ns: Time = 0
    interrupted: bool = False
    """it was ended by a signal"""
    nodes: tuple[NodeCoverage, ...] = ()
    unattributed: int = 0
    """events of containers that no agent could name, so that nobody knows whether they were selected"""

    @property
    def traced(self) -> tuple[NodeCoverage, ...]:
        """Return the nodes that were attached at some time."""
        return tuple(node for node in self.nodes if node.attached_ns)

    @property
    def since_ns(self) -> int:
        """Return when tracing began: when it was complete, else with the first node; 0: never."""
        return self.complete_ns or min((node.attached_ns for node in self.traced), default=0)

    @property
    def seconds(self) -> float:
        """Return how long the run traced."""
        since = self.since_ns
        return max(0, self.ended_ns - since) / 1e9 if since else 0.0

    @property
    def lost(self) -> int:
        """Return how many events are missing within the covered times."""
        return self.unattributed + sum(missing(node.lost) - node.lost.get("detached", 0) for node in self.nodes)


def missing(causes: Mapping[str, int]) -> int:
    """Return how many events a node's counters say are missing. A cut string is in the output."""
    return sum(number for cause, number in causes.items() if cause != "cut_strings")


def joined(runs: Sequence[Coverage]) -> Coverage:
    """Put several runs together, such as the recordings of one replay. They may be days apart, and what counts is how
    long each of them traced: so they follow one another without the time between them."""
    if len(runs) == 1:
        return runs[0]
    since = min((run.since_ns for run in runs if run.since_ns), default=0)
    nodes: dict[str, NodeCoverage] = {}
    for run in runs:
        for node in run.nodes:
            moved = _moved(node, since - run.since_ns if run.since_ns else 0)
            nodes[node.name] = _both(nodes[node.name], moved) if node.name in nodes else moved
    return Coverage(
        selected="; ".join(dict.fromkeys(run.selected for run in runs if run.selected)),
        absent=tuple(dict.fromkeys(name for run in runs for name in run.absent)),
        gadgets=tuple(dict.fromkeys(name for run in runs for name in run.gadgets)),
        began_ns=min((run.began_ns for run in runs), default=0),
        complete_ns=since,
        ended_ns=since + round(sum(run.seconds for run in runs) * 1e9) if since else 0,
        interrupted=any(run.interrupted for run in runs),
        nodes=tuple(nodes.values()),
        unattributed=sum(run.unattributed for run in runs),
    )


def _moved(node: NodeCoverage, ns: int) -> NodeCoverage:
    """Return a node with its times moved."""
    return node.replace(
        selected_ns=node.selected_ns and max(1, node.selected_ns + ns),
        attached_ns=node.attached_ns and max(1, node.attached_ns + ns),
        until_ns=node.until_ns and max(1, node.until_ns + ns),
    )


def _both(first: NodeCoverage, second: NodeCoverage) -> NodeCoverage:
    """Return one node of two runs: what is in doubt in one of them is in doubt."""
    worse = max(first, second, key=lambda node: (bool(node.cause), not node.attached_ns, node.attached_ns))
    return worse.replace(
        gaps=(*first.gaps, *second.gaps),
        without={**first.without, **second.without},
        lost=dict(Counter(first.lost) + Counter(second.lost)),
        left=first.left and second.left,
    )


# What is in doubt


class Doubt(StrEnum):
    """Reasons why a run may not have seen everything."""

    NOTHING = "nothing was traced"
    NOT_TRACED = "a node was not traced"
    LATE = "a node was attached after --start-timeout"
    JOINED = "a node was selected later, and attached after that"
    ENDED = "a node was not watched to the end"
    GAP = "a node could not be reached for some time"
    LOST = "events were lost"
    ABSENT = "something selected never existed"


UNATTRIBUTED = "unattributed"
"""The cause of events whose container has no name."""


class Reason(NamedTuple):
    """One reason for doubt."""

    doubt: Doubt
    text: str
    """a whole clause, without a full stop; empty `node`: about the run"""
    node: str = ""
    cause: str = ""
    """the cause, for a node that was not traced; UNATTRIBUTED for events of unknown containers"""


_FAILED = frozenset({Doubt.NOT_TRACED, Doubt.LATE, Doubt.ENDED})


def texts(reasons: Iterable[Reason]) -> tuple[str, ...]:
    """Return what the reasons say."""
    return tuple(reason.text for reason in reasons)


def some(reasons: Sequence[str]) -> str:
    """Return the first reasons as one text."""
    more = f"; and {len(reasons) - _NAMED:,} more reasons" if len(reasons) > _NAMED else ""
    return "; ".join(reasons[:_NAMED]) + more


def doubts(coverage: Coverage, since_ns: int = 0) -> tuple[Reason, ...]:
    """Judge what a run may not have seen; empty: it has seen everything that it was asked for.

    This is the only judge: `--strict` fails if there is any reason, `--expect`, `--fail-on` and `ci` are inconclusive,
    `advise` and `behavior` call what they saw incomplete. `since_ns`: the time after which everything matters, such as
    the start of COMMAND; 0: the time when the run's nodes were complete.
    """
    since = since_ns or coverage.since_ns
    found = [Reason(Doubt.ABSENT, text) for text in coverage.absent]
    if not coverage.traced:
        found.append(Reason(Doubt.NOTHING, _nothing(coverage)))
    for node in coverage.nodes:
        found += _of_node(node, coverage, since)
    if lost := coverage.lost - coverage.unattributed:
        found.append(Reason(Doubt.LOST, f"{count(lost, 'event')} {'was' if lost == 1 else 'were'} lost"))
    if unknown := coverage.unattributed:
        text = f"{count(unknown, 'event')} {'is' if unknown == 1 else 'are'} of unknown containers"
        found.append(Reason(Doubt.LOST, text, cause=UNATTRIBUTED))
    if any(node.lost.get("detached") for node in coverage.nodes):
        found.append(Reason(Doubt.LOST, "programs were stopped by others"))
    return tuple(found)


def _of_node(node: NodeCoverage, coverage: Coverage, since: int) -> Iterator[Reason]:
    if not node.attached_ns:
        yield Reason(Doubt.NOT_TRACED, f"{node.name} was not traced: {node.why or node.cause}", node.name, node.cause)
        return
    late = (node.attached_ns - since) / 1e9
    if late > 0:
        is_joined = node.selected_ns > coverage.complete_ns > 0
        how = "it joined during the run" if is_joined else "its agent did not start in time"
        doubt = Doubt.JOINED if is_joined else Doubt.LATE
        yield Reason(doubt, f"{node.name} was attached {late:.1f} s late: {how}", node.name)
    if node.cause:
        yield Reason(Doubt.ENDED, f"{node.name} failed: {node.why or node.cause}", node.name, node.cause)
    if node.gaps:
        text = f"{node.name}: the connection was lost, {node.gap_seconds:.1f} s are missing"
        yield Reason(Doubt.GAP, text, node.name)


def has_failed(coverage: Coverage) -> bool:
    """Return whether the exit code has to say that a selected node was not traced as it should. Nodes that joined
    later, were skipped or had gaps were reported, and do not count, unless nothing at all was traced."""
    return bool(coverage.nodes and not coverage.traced) or any(
        reason.doubt in _FAILED and reason.cause != Cause.SKIPPED for reason in doubts(coverage)
    )


# Sentences

CAUSES = {
    "ring_full": "ring buffer full",
    "map_full": "map full",
    "unexamined": "parts of a call not examined",
    "recursion": "a program already running",
    "detached": "programs stopped by others",
    "cut_strings": "strings cut",
    UNATTRIBUTED: "of unknown containers",
}
"""Names of the counters in messages. Truncated strings and unknown containers are in the output; the rest is lost."""


def lost_text(causes: Mapping[str, int]) -> str:
    """Return a count of lost events, such as `7 (ring buffer full 7)`."""
    lost_events = missing({cause: n for cause, n in causes.items() if cause not in ("unattributed", "detached")})
    # How many events a program would have seen is not known.
    at_least = "at least " if causes.get("detached") else ""
    named = [f"{CAUSES.get(cause, cause)} {number:,}" for cause, number in sorted(causes.items()) if number]
    return f"{at_least}{lost_events:,}" + (f" ({', '.join(named)})" if named else "")


def where(coverage: Coverage) -> str:
    """Return on how many nodes the run traced: `2 nodes`, or `1 of 2 nodes`."""
    traced, known = len(coverage.traced), len(coverage.nodes)
    return count(known, "node") if traced == known else f"{traced:,} of {count(known, 'node')}"


def first_line(coverage: Coverage, seen: str) -> str:
    """Return the sentence with which each command ends; `seen` is what it saw, such as `4 events`."""
    if not coverage.traced:
        return _nothing(coverage)
    causes: Counter[str] = Counter(unattributed=coverage.unattributed)
    for node in coverage.nodes:
        causes.update(node.lost)
    is_whole = len(coverage.traced) == len(coverage.nodes)
    lost = "lost" if is_whole else "lost there"
    return f"{seen} in {coverage.seconds:.1f} s from {where(coverage)}; {lost}: {lost_text(causes)}"


def node_lines(coverage: Coverage) -> Iterator[str]:
    """Yield what the first line does not cover: gaps, and nodes that were not traced from the beginning to the end.
    Nodes with the same reason share a line."""
    for node in coverage.nodes:
        if node.gaps and node.attached_ns:
            times = "once" if len(node.gaps) == 1 else f"{len(node.gaps)} times"
            yield f"  {node.name}: the connection was lost {times}, {node.gap_seconds:.1f} s are missing"
    since = coverage.since_ns
    for node in coverage.nodes:
        late = (node.attached_ns - since) / 1e9
        if node.attached_ns and late > 0:
            yield f"  {node.name}: {late:.1f} s late: traced for the last {_covered(node, coverage):.1f} s only"
    for text in coverage.absent if coverage.traced else ():
        yield f"not traced: {text}"
    alike: dict[tuple[str, str, str], list[str]] = {}
    for node in coverage.nodes:
        if node.cause:
            is_failure = node.cause == Cause.FAILED or node.attached_ns
            key = ("failed" if is_failure else "not traced", node.why or node.cause, node.remedy)
            alike.setdefault(key, []).append(node.name)
    for (what, why, remedy), names in alike.items():
        yield f"{what}: {listed(names)}: {why}"
        if remedy:
            yield f"  try: {remedy}"


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence: `node-1, node-2`, or `node-1, … and 95 more`."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _covered(node: NodeCoverage, coverage: Coverage) -> float:
    return max(0, (node.until_ns or coverage.ended_ns) - node.attached_ns) / 1e9


def _nothing(coverage: Coverage) -> str:
    """Return why there is no answer. An empty one would say that nothing happened."""
    when = "interrupted before " if coverage.interrupted else "the run ended before "
    if not coverage.nodes:
        if coverage.absent:
            return f"nothing was traced: {', '.join(coverage.absent)}"
        # Without a time, the run does not even know which nodes it wants.
        return "nothing was traced: " + (
            "no node was selected" if coverage.complete_ns else f"{when}its nodes were known"
        )
    if all(node.cause in (Cause.FAILED, Cause.SKIPPED) for node in coverage.nodes):
        return f"nothing was traced: no agent could be started on {_any(coverage.nodes)}"
    return f"nothing was traced: {when}{_any(coverage.nodes)} was attached"


def _any(nodes: Iterable[NodeCoverage]) -> str:
    names = [node.name for node in nodes]
    return names[0] if len(names) == 1 else f"any of {len(names):,} nodes"


# Tracking, over all connections of a node, for which time its events are complete and which spans are missing.
# With each EVENTS frame an agent reports until when (in its own boot time) everything has been sent. So a missing
# span lasts from there until the next connection's programs were attached. Note: the time when a frame is read
# proves nothing, since a client that was stopped later reads frames as old as its pause; and boot time starts
# again when a node restarts.


_DRIFT = 1e-4
"""The largest relative difference in speed between two clocks that are never set."""


@dataclass(frozen=True)
class Gap:
    """A span of time for which a node's events are missing."""

    seconds: float
    until_ns: int
    """wall time of the node at its end; 0 when unknown"""


def awake_or_not_ns() -> int:
    """Returns ns of a clock that is never set and, where there is one, keeps running while this machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


class CoverageTracker:
    """The coverage of one node. Times of the node are boot time in ns; times of this machine come from `clock`."""

    def __init__(self, clock: Callable[[], int] = awake_or_not_ns) -> None:
        self._clock = clock
        self._first = clock()
        """before this, the run knew nothing of the node, whatever its agent says"""
        self.attached_ns = 0
        """when all gadgets were attached for the first time, in our clock, at the latest; 0: never"""
        self.began_ns = 0
        """when they were attached for the last time"""
        self.until_ns = 0
        """until when events are complete, in our clock, once the connection has ended"""
        self.missing: list[tuple[int, int]] = []
        """spans within which events are missing, in our clock"""
        self._boot_id: str | None = None
        self._offset = 0
        """from boot time to wall time, as the node last reported"""
        self._complete: dict[int, int] = {}
        """until when events are complete, by gadget, on the present connection"""
        self._ahead: int | None = None
        """upper limit of our clock's lead over the node's boot time: the smallest difference seen"""
        self._ahead_at = 0
        self._lost: tuple[str | None, int, int] | None = None
        """boot id, until when events are complete, and the offset to wall time"""
        self._since = 0
        """when the connection that was lost was attached, by our clock: no span is longer, whatever times a node
        claims"""
        self._attached_at = 0

    def greeted(self, hello: Hello) -> None:
        """Applies HELLO, the first message of a connection."""
        if hello.boot_id != self._boot_id:
            self._boot_id = hello.boot_id
            self._ahead = None
        self.clocks(hello)

    def clocks(self, message: Hello | Started | Stats | Pong) -> None:
        """Applies a message that carries the node's clocks."""
        if message.boot_ns is not None and message.realtime_ns is not None:
            self._offset = message.realtime_ns - message.boot_ns
            self._seen(message.boot_ns)

    def attached(self, gadgets: int, started: Started) -> Gap | None:
        """Applies STARTED: from here on events are complete. Returns the span that is missing until now, if any."""
        self.clocks(started)
        now = self._node_now() if started.boot_ns is None else started.boot_ns
        self._complete = dict.fromkeys(range(gadgets), now)
        self.began_ns = self._ours(now)
        self.attached_ns = self.attached_ns or self.began_ns
        gap = self._end_gap(now)
        self._attached_at = self._clock()
        return gap

    def complete(self, gadget: int, until: int) -> None:
        """Applies the time that an EVENTS frame reports as complete."""
        if gadget in self._complete:
            self._complete[gadget] = max(self._complete[gadget], until)
            self._seen(until)

    def lost(self) -> None:
        """The connection is lost. If programs ran on it, a missing span begins."""
        if self._complete:
            since = min(self._complete.values())
            self._lost = (self._boot_id, since, self._offset)
            self._since = self._attached_at
            self.until_ns = self._ours(since)
        self._complete = {}

    def stopped(self, at_ns: int) -> None:
        """The connection has ended as the run asked at `at_ns` (our clock): until then, nothing is missing."""
        if self._complete:
            self.until_ns = at_ns
        self._complete = {}

    def end(self) -> Gap | None:
        """Returns the span that is missing at the end of the run, if any."""
        return self._end_gap(self._node_now())

    def _end_gap(self, now: int) -> Gap | None:
        if self._lost is None:
            return None
        (boot_id, since, offset), self._lost = self._lost, None
        if boot_id != self._boot_id or now < since:
            since += offset - self._offset  # the node restarted, and its boot time began again
        until = self._ours(now)
        ns = min(max(0, now - since), max(0, self._clock() - self._since))
        self.missing.append((until - ns, until))
        return Gap(ns / 1e9, now + self._offset)

    def _seen(self, boot: int) -> None:
        """Applies a node time `boot` that has arrived: our clock leads by at most the difference, with transfer
        time."""
        now = self._clock()
        known = None if self._ahead is None else self._ahead + int((now - self._ahead_at) * _DRIFT)
        self._ahead = now - boot if known is None else min(known, now - boot)
        self._ahead_at = now

    def _ours(self, boot: int) -> int:
        """Estimates our time of a node's boot time; rather later than earlier, and within the run."""
        return min(max(boot + (self._ahead or 0), self._first), self._clock())

    def _node_now(self) -> int:
        """Estimates the node's boot time now from the frames received."""
        return self._clock() - (self._ahead or 0)
