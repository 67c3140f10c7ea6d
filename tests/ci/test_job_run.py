"""What makes a run inconclusive."""

import pytest

from kubectl_gadget.ci.baseline_check import BehaviorOrder
from kubectl_gadget.ci.job_run import has_unnamed, not_seen_on
from kubectl_gadget.errors import AgentError
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.run.nodes.node_state import NodeState


@pytest.mark.parametrize(
    ("state", "reasons"),
    [
        (NodeState("n", ever_attached=True, attached_at=99.0), []),
        (
            NodeState("n", ever_attached=True, attached_at=103.5),
            ["n was attached 3.5 s late: it joined while COMMAND ran"],
        ),
        (NodeState("n", error=AgentError("no BTF")), ["n was not traced: no BTF"]),
        (NodeState("n"), ["n was not traced: its agent did not start in time"]),
        (NodeState("n", ever_attached=True, attached_at=99.0, error=AgentError("ended")), ["n failed: ended"]),
        (
            NodeState("n", ever_attached=True, attached_at=99.0, gaps=1, gap_seconds=2.0),
            ["n: the connection was lost, 2.0 s are missing"],
        ),
    ],
)
def test_a_node_that_was_late_or_failed_leaves_a_reason(state: NodeState, reasons: list[str]) -> None:
    assert list(not_seen_on({"n": state}, 100.0)) == reasons


@pytest.mark.parametrize(
    ("local", "selection", "expected"),
    [
        (True, Selection(host=True, all_namespaces=True), True),
        (True, Selection(all_namespaces=True), True),
        (True, Selection(namespace="shop"), False),
        (True, Selection(namespace="shop", host=True), False),
        (True, Selection(pods=("cart",)), False),
        (True, Selection(containers=("main",)), False),
        (False, Selection(all_namespaces=True), False),
    ],
)
def test_rows_without_a_name_are_lost_where_containers_are_selected(
    local: bool, selection: Selection, expected: bool
) -> None:
    assert has_unnamed(local, selection) is expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [(BehaviorOrder(), False), (BehaviorOrder(of_command=True), True), (BehaviorOrder(with_host=True), True)],
)
def test_rows_without_the_name_of_a_container_are_missing_among_facts(order: BehaviorOrder, expected: bool) -> None:
    assert has_unnamed(True, Selection(all_namespaces=True), order) is expected
