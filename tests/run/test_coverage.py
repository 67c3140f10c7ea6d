"""Who was traced, from when, to when: what is in doubt, and how it is said."""

import json
from typing import Any

import pytest

from kubectl_gadget.errors import FrameError
from kubectl_gadget.run.coverage import (
    Cause,
    Coverage,
    CoverageTracker,
    Doubt,
    MissingSpan,
    NodeCoverage,
    doubts,
    first_line,
    has_failed,
    joined,
    node_lines,
)
from kubectl_gadget.wire.agent_messages import Hello, Started

S = 1_000_000_000
FINE = NodeCoverage(name="node-1", selected_ns=S, attached_ns=2 * S, until_ns=10 * S)
STARTING = NodeCoverage(name="node-2", cause=Cause.STARTING, why="its agent is starting, and the run ended")
LATE = NodeCoverage(name="node-3", selected_ns=S, attached_ns=6 * S, until_ns=10 * S)
JOINED = NodeCoverage(name="node-4", selected_ns=4 * S, attached_ns=6 * S, until_ns=10 * S)


def run(*nodes: NodeCoverage, **members: Any) -> Coverage:
    return Coverage(**{"began_ns": S, "complete_ns": 2 * S, "ended_ns": 10 * S, "nodes": nodes, **members})


def kinds(coverage: Coverage) -> list[Doubt]:
    return [reason.doubt for reason in doubts(coverage)]


def test_a_run_that_saw_everything_leaves_no_doubt() -> None:
    whole = run(FINE)
    assert not doubts(whole)
    assert not has_failed(whole)
    assert first_line(whole, "4 events") == "4 events in 8.0 s from 1 node; lost: 0"
    assert list(node_lines(whole)) == []


def test_no_count_of_losses_is_claimed_for_a_node_that_was_never_attached() -> None:
    partial = run(FINE, STARTING)
    assert first_line(partial, "4 events") == "4 events in 8.0 s from 1 of 2 nodes; lost there: 0"
    assert list(node_lines(partial)) == ["not traced: node-2: its agent is starting, and the run ended"]
    assert kinds(partial) == [Doubt.NOT_TRACED]
    assert has_failed(partial)


def test_a_node_that_was_late_is_named_with_the_time_that_is_covered() -> None:
    late = run(FINE, LATE)
    assert list(node_lines(late)) == ["  node-3: 4.0 s late: traced for the last 4.0 s only"]
    assert kinds(late) == [Doubt.LATE]
    assert has_failed(late)


def test_a_node_that_joined_leaves_doubt_and_is_no_failure() -> None:
    assert kinds(run(FINE, JOINED)) == [Doubt.JOINED]
    assert not has_failed(run(FINE, JOINED))


def test_nodes_with_the_same_reason_share_a_line_however_many_there_are() -> None:
    many = [STARTING.replace(name=f"node-{number}") for number in range(1_000)]
    (line,) = node_lines(run(FINE, *many))
    assert line.startswith("not traced: node-0, node-1, node-2, node-3, node-4 and 995 more: its agent")


@pytest.mark.parametrize(
    ("coverage", "says"),
    [
        (
            run(STARTING, STARTING.replace(name="node-1"), interrupted=True, complete_ns=0),
            "nothing was traced: interrupted before any of 2 nodes was attached",
        ),
        (run(STARTING, complete_ns=0), "nothing was traced: the run ended before node-2 was attached"),
        (run(interrupted=True, complete_ns=0), "nothing was traced: interrupted before its nodes were known"),
        (
            run(absent=("no running pods were found in x namespace",)),
            "nothing was traced: no running pods were found in x namespace",
        ),
        (
            run(NodeCoverage(name="n", cause=Cause.FAILED, why="x")),
            "nothing was traced: no agent could be started on n",
        ),
    ],
)
def test_an_empty_answer_is_never_taken_for_nothing_happened(coverage: Coverage, says: str) -> None:
    assert first_line(coverage, "0 events") == says
    assert Doubt.NOTHING in kinds(coverage)
    assert "lost" not in first_line(coverage, "0 events")


def test_everything_else_that_may_be_missing_is_in_doubt() -> None:
    gap = FINE.replace(gaps=(MissingSpan(since_ns=3 * S, until_ns=5 * S),))
    assert kinds(run(gap)) == [Doubt.GAP]
    assert not has_failed(run(gap))
    ended = FINE.replace(cause=Cause.FAILED, why="killed")
    assert kinds(run(ended)) == [Doubt.ENDED]
    assert has_failed(run(ended))
    assert kinds(run(FINE.replace(lost={"ring_full": 3}))) == [Doubt.LOST]
    assert kinds(run(FINE.replace(lost={"detached": 1}))) == [Doubt.LOST]
    assert kinds(run(FINE.replace(lost={"cut_strings": 3}))) == []
    assert kinds(run(FINE, unattributed=1)) == [Doubt.LOST]
    assert kinds(run(FINE, absent=('pod "x" did not exist',))) == [Doubt.ABSENT]
    skipped = NodeCoverage(name="n", cause=Cause.SKIPPED, why="node n is not ready")
    assert kinds(run(FINE, skipped)) == [Doubt.NOT_TRACED]
    assert not has_failed(run(FINE, skipped))
    assert has_failed(run(skipped))


def test_what_matters_may_begin_later_than_the_run() -> None:
    assert kinds(run(FINE, LATE)) == [Doubt.LATE]
    assert not doubts(run(FINE, LATE), since_ns=7 * S)


def test_it_survives_a_recording() -> None:
    gap = MissingSpan(since_ns=3 * S, until_ns=5 * S)
    whole = run(
        FINE.replace(gaps=(gap,), without={"trace_open": ("creat",)}, lost={"ring_full": 7}),
        STARTING,
        LATE.replace(left=True),
        selected="namespace default",
        absent=("pod x did not exist",),
        gadgets=("trace_open",),
        unattributed=3,
        interrupted=True,
    )
    assert Coverage.from_json(json.loads(json.dumps(whole.to_json())), "coverage") == whole


@pytest.mark.parametrize("time", [-1, 1 << 62, 1.5, "1", True])
def test_times_that_no_calendar_has_are_refused(time: object) -> None:
    with pytest.raises(FrameError, match=r"coverage: `nodes\[0\]\.attached_ns` is not a time in ns"):
        Coverage.from_json({"nodes": [{"name": "n", "attached_ns": time}]}, "coverage")


def test_runs_are_joined_with_the_nodes_of_each() -> None:
    one, other = run(FINE, selected="a"), run(STARTING, selected="b", ended_ns=20 * S, unattributed=2)
    both = joined([one, other])
    assert [node.name for node in both.nodes] == ["node-1", "node-2"]
    assert (both.selected, both.seconds, both.unattributed) == ("a; b", one.seconds + other.seconds, 2)
    assert joined([one]) is one


def test_runs_that_are_days_apart_leave_nothing_in_doubt_between_them() -> None:
    day = 86_400 * S
    monday = run(FINE)
    later = FINE.replace(attached_ns=FINE.attached_ns + day, until_ns=FINE.until_ns + day, lost={"ring_full": 1})
    tuesday = run(later, complete_ns=monday.complete_ns + day, ended_ns=monday.ended_ns + day)

    both = joined([monday, tuesday])

    assert [node.name for node in both.nodes] == ["node-1"]
    assert both.seconds == 2 * monday.seconds
    assert [reason.doubt for reason in doubts(both)] == [Doubt.LOST]


# Missing spans are computed from the node's clocks.


class World:
    """A node and this machine: `now` is true time in seconds, our clock is 1,000 s ahead of the node's boot time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.booted = 0.0
        self.coverage = CoverageTracker(lambda: int((self.now + 1_000) * S))

    def clocks(self, at: float | None = None, boot_id: str | None = None) -> Hello:
        """What the node says at a time, which may be read later."""
        at = self.now if at is None else at
        return Hello(boot_ns=int((at - self.booted) * S), realtime_ns=int((at + 5_000) * S), boot_id=boot_id)

    def attach(self, boot_id: str | None = "a") -> float | None:
        """The span that is missing now."""
        clocks = self.clocks(boot_id=boot_id)
        self.coverage.greeted(clocks)
        gap = self.coverage.attached(1, Started(boot_ns=clocks.boot_ns, realtime_ns=clocks.realtime_ns))
        return None if gap is None else gap.seconds

    def complete(self, until: float) -> None:
        self.coverage.complete(0, int((until - self.booted) * S))


def test_a_client_that_was_stopped_reads_old_frames_and_still_knows_what_is_missing() -> None:
    world = World()
    assert world.attach() is None
    world.complete(101)
    world.now = 130.0  # it wakes up, and reads what was sent while it slept
    world.complete(104.75)
    world.coverage.clocks(world.clocks(at=104.5))
    world.coverage.lost()
    world.now = 131.0
    assert world.attach() == pytest.approx(26.25)


def test_the_span_goes_on_until_the_end_of_a_run_that_does_not_reach_the_node_again() -> None:
    world = World()
    world.attach()
    world.now = 110.0
    world.complete(105)  # read late
    world.coverage.lost()
    world.now = 120.0
    gap = world.coverage.end()
    assert gap is not None
    assert gap.seconds == pytest.approx(15, abs=0.01)
    assert gap.until_ns == pytest.approx((120 + 5_000) * S, abs=S // 100)
    assert world.coverage.end() is None


def test_several_gadgets_are_as_complete_as_the_least_complete_one() -> None:
    world = World()
    clocks = world.clocks(boot_id="a")
    world.coverage.greeted(clocks)
    world.coverage.attached(2, clocks)
    world.now = 109.0
    world.coverage.complete(0, 109 * S)
    world.coverage.complete(1, 108 * S)
    world.coverage.lost()
    world.now = 112.0
    assert world.attach() == pytest.approx(4)


def test_a_node_that_restarted_begins_its_time_again() -> None:
    world = World()
    world.attach()
    world.complete(101)
    world.coverage.lost()
    world.now, world.booted = 400.0, 180.0
    assert world.attach("b") == pytest.approx(299)


def test_a_clock_that_was_set_during_the_run_changes_nothing() -> None:
    world = World()
    world.attach()
    world.complete(101)
    world.coverage.lost()
    world.now = 103.0
    clocks = world.clocks(boot_id="a").replace(realtime_ns=7)
    world.coverage.greeted(clocks)
    gap = world.coverage.attached(1, Started(boot_ns=clocks.boot_ns, realtime_ns=7))
    assert gap is not None
    assert gap.seconds == pytest.approx(2)


def test_nothing_is_missing_of_a_connection_that_was_not_lost_or_never_ran() -> None:
    world = World()
    world.coverage.greeted(world.clocks(boot_id="a"))
    world.coverage.lost()
    assert world.attach() is None
    assert world.coverage.end() is None


def test_attempts_in_vain_do_not_end_the_span() -> None:
    world = World()
    world.attach()
    world.complete(101)
    world.coverage.lost()
    world.now = 105.0
    world.coverage.greeted(world.clocks(boot_id="a"))
    world.coverage.lost()  # before its programs ran
    world.now = 109.0
    assert world.attach() == pytest.approx(8)


@pytest.mark.parametrize("lead", [10**9, 4 * 10**9, -50])
def test_no_span_is_longer_than_the_connection_whatever_times_the_node_claims(lead: int) -> None:
    world = World()
    world.attach()
    world.now = 103.0
    world.coverage.lost()
    world.now = 104.0
    world.booted -= lead
    missing = world.attach()
    assert missing is not None
    assert 0 <= missing <= 4.001
