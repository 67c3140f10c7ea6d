from collections import Counter
from collections.abc import Mapping

from kubectl_gadget.errors import AgentError
from kubectl_gadget.run import coverage, summary
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.node import NodeState
from tests.messages import stats as of_json


def state(name: str, **lost: dict[str, int]) -> NodeState:
    return NodeState(name, stats=of_json({"gadgets": [{"events": 10, "lost": lost}]}))


def covered(states: Mapping[str, NodeState], unattributed: int = 0, seconds: float = 1) -> Coverage:
    """Of a run whose nodes were all attached when it began."""
    for each in states.values():
        each.tracker.attached_ns = 1
    nodes = tuple(each.covered(0, summary.lost(each)) for each in states.values())
    return Coverage(complete_ns=1, ended_ns=1 + round(seconds * 1e9), nodes=nodes, unattributed=unattributed)


def lines(
    states: Mapping[str, NodeState],
    shown: Counter[str] | None = None,
    skew_ns: Mapping[str, int] | None = None,
    noun: str = "event",
    late: int = 0,
    seconds: float = 1,
) -> list[str]:
    return list(summary.lines(covered(states, 0, seconds), states, shown or Counter(), skew_ns or {}, noun, late))


def is_complete(states: Mapping[str, NodeState], unattributed: int = 0) -> bool:
    return not coverage.doubts(covered(states, unattributed))


def test_zero_lost_is_reported_too() -> None:
    (line,) = lines({"n1": state("n1")}, Counter(n1=3), seconds=10.04)
    assert line == "3 events in 10.0 s from 1 node; lost: 0"


def test_losses_are_named_by_cause_and_by_node() -> None:
    states = {"n1": state("n1", ring_full={"0": 5, "1": 2}), "n2": state("n2")}
    assert lines(states, Counter(n1=3, n2=1)) == [
        "4 events in 1.0 s from 2 nodes; lost: 7 (ring buffer full 7)",
        "  n1: 3 events; lost: 7 (ring buffer full 7)",
        "  n2: 1 event; lost: 0",
    ]


def test_the_containers_that_lost_most_are_named_over_all_nodes() -> None:
    pod = {"namespace": "default", "pod": "flood", "container": "main"}

    def lossy(name: str, *losers: dict[str, object]) -> NodeState:
        return NodeState(name, stats=of_json({"gadgets": [{"events": 1, "lost": {}, "lost_by": list(losers)}]}))

    states = {
        "n1": lossy("n1", {**pod, "lost": 1_000_000}, {"host": True, "lost": 2}),
        "n2": lossy("n2", {**pod, "lost": 5}),
    }
    assert lines(states)[1] == ("  lost most: 1,000,005 of default/flood/main, 2 of the host")


def test_what_policies_denied_is_reported_by_hook_over_all_nodes() -> None:
    def enforcing(name: str, **hooks: dict[str, int]) -> NodeState:
        return NodeState(name, stats=of_json({"gadgets": [{"events": 1, "lost": {}, "hooks": hooks}]}))

    counts = {"runs": 90, "overridden": 3, "signalled": 0, "limited": 0, "not evaluated": 0}
    states = {
        "n1": enforcing("n1", **{"file_open by lsm/file_open": counts, "sys_open by fentry/open": {"runs": 9}}),
        "n2": enforcing("n2", **{"file_open by lsm/file_open": counts | {"signalled": 1_000}}),
    }
    said = lines(states)
    assert said[1] == "  file_open by lsm/file_open: 6 denied, 1,000 signalled"
    assert not any("sys_open" in line for line in said)


def test_what_agents_did_from_user_space_is_reported_over_all_nodes() -> None:
    def killing(name: str, killed: int, gone: int) -> NodeState:
        return NodeState(name, stats=of_json({"gadgets": [{"events": 1, "lost": {}, "killed": killed, "gone": gone}]}))

    states = {"n1": killing("n1", 1_000, 0), "n2": killing("n2", 3, 2)}
    assert lines(states)[1] == "  by agents: 1,003 killed, 2 had ended already"
    assert not any("agents" in line for line in lines({"n3": killing("n3", 0, 0)}))


def test_what_the_kernel_left_out_is_lost() -> None:
    node = state("n1", recursion={"all": 3})
    assert "lost: 3 (a program already running 3)" in lines({"n1": node})[0]
    assert not is_complete({"n1": node})


def test_programs_that_others_have_stopped_make_a_trace_incomplete() -> None:
    stopped = {"a": state("a", detached={"openat_exit": 1, "creat_exit": 1})}
    (line,) = lines(stopped, Counter(a=5))
    assert line.endswith("lost: at least 0 (programs stopped by others 2)")
    assert not is_complete(stopped)


def test_counts_of_lost_connections_are_added() -> None:
    node = state("n1", ring_full={"0": 5})
    node.past_stats.append(of_json({"gadgets": [{"events": 4, "lost": {"ring_full": {"3": 1}}}]}))
    assert summary.lost(node) == Counter(ring_full=6)
    assert summary.events(node) == 14


def test_cut_strings_are_reported_but_not_as_lost_events() -> None:
    states = {"n1": state("n1", cut_strings={"0": 2})}
    assert "lost: 0 (strings cut 2)" in lines(states)[0]
    assert is_complete(states)


def test_a_gap_a_failure_and_unknown_containers_make_a_trace_incomplete() -> None:
    gap, failed = state("n1"), state("n2")
    gap.tracker.missing.append((5, 10))
    failed.error = AgentError("gone", "look")
    assert not is_complete({"n1": gap})
    assert not is_complete({"n2": failed})
    assert not is_complete({"n3": state("n3")}, 1)
    said = lines({"n1": gap, "n2": failed})
    assert "failed: n2: gone" in said
    assert "  try: look" in said
    assert any("connection was lost once" in line for line in said)


def test_rows_that_came_too_late_are_counted() -> None:
    assert (
        lines({"n1": state("n1")}, Counter(n1=9), late=3)[1]
        == "  3 events, marked * or late, came too late to be sorted by time (try a longer --sort-wait)"
    )


def test_a_clock_that_is_off_is_reported() -> None:
    assert (
        lines({"n1": state("n1")}, skew_ns={"n1": -10_000_000_000})[-1]
        == "  n1: its clock is 10.00 s behind; times are corrected"
    )


def test_rows_that_are_not_events_are_not_counted_by_node() -> None:
    states = {"n1": state("n1"), "n2": state("n2")}
    assert lines(states, Counter(n1=3), noun="row") == [
        "3 rows in 1.0 s from 2 nodes; lost: 0",
        "  n1: lost: 0",
        "  n2: lost: 0",
    ]
