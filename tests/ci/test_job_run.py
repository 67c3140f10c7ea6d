"""What makes a run inconclusive."""

import pytest

from kubectl_gadget.behavior.run import Subject
from kubectl_gadget.ci.fact_checks import BehaviorOrder
from kubectl_gadget.ci.job_run import has_unnamed, uncounted
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.run.coverage import Cause, Coverage, MissingSpan, NodeCoverage

S = 1_000_000_000


def test_each_reason_but_counted_losses_is_reported() -> None:
    """Counted losses are reported with their number, by cause."""
    gap = MissingSpan(since_ns=105 * S, until_ns=107 * S)
    nodes = (
        NodeCoverage(name="fine", attached_ns=99 * S),
        NodeCoverage(name="lossy", attached_ns=99 * S, lost={"ring_full": 3}),
        NodeCoverage(name="late", attached_ns=103_500_000_000, selected_ns=103 * S),
        NodeCoverage(name="cut", attached_ns=99 * S, gaps=(gap,)),
        NodeCoverage(name="never", cause=Cause.FAILED, why="no BTF"),
    )
    assert list(uncounted(Coverage(nodes=nodes, complete_ns=100 * S, ended_ns=110 * S), 100 * S)) == [
        "late was attached 3.5 s late: it joined during the run",
        "cut: the connection was lost, 2.0 s are missing",
        "never was not traced: no BTF",
    ]


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
    [
        (BehaviorOrder(), False),
        (BehaviorOrder(subject=Subject(of_command=True)), True),
        (BehaviorOrder(subject=Subject(with_host=True)), True),
    ],
)
def test_rows_without_the_name_of_a_container_are_missing_among_facts(order: BehaviorOrder, expected: bool) -> None:
    assert has_unnamed(True, Selection(all_namespaces=True), order) is expected
