"""What a run of behavior may not have seen."""

from kubectl_gadget.behavior.run import gaps_of
from kubectl_gadget.run.coverage import Coverage, NodeCoverage

S = 1_000_000_000
NODE = NodeCoverage(name="node-1", selected_ns=S, attached_ns=2 * S, until_ns=10 * S)


def run(node: NodeCoverage, unattributed: int = 0) -> Coverage:
    return Coverage(began_ns=S, complete_ns=2 * S, ended_ns=10 * S, nodes=(node,), unattributed=unattributed)


def test_events_of_unknown_containers_are_missing_only_where_they_count() -> None:
    """Of pods with a name, they were subtracted from what is lost."""
    assert gaps_of(run(NODE, unattributed=5), 0, 0, further=False).incomplete == ()
    assert gaps_of(run(NODE, unattributed=5), 5, 0, further=False).incomplete == (
        "events were lost (of unknown containers)",
    )


def test_programs_that_others_stopped_are_missing_though_nobody_knows_how_many_events() -> None:
    stopped = NODE.replace(lost={"detached": 1})

    assert gaps_of(run(stopped), 0, 0, further=False).incomplete == ("programs were stopped by others",)
