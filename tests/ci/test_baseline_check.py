"""Assertions about facts: what the collection left out is never green."""

from dataclasses import replace

import pytest

from kubectl_gadget.behavior.baseline import baseline_text, parse_baseline
from kubectl_gadget.behavior.facts import Unit
from kubectl_gadget.behavior.from_rows.collection import ALREADY_RUNNING
from kubectl_gadget.ci.assertions import parse_assertions
from kubectl_gadget.ci.baseline_check import BehaviorCheck, BehaviorOrder
from kubectl_gadget.ci.finding import Check, SourceLocation, Status
from tests.behavior.made import CART, behavior, fact

pytestmark = pytest.mark.compiled
OVERFLOW = "it does more than 20,000 different things, and 7 of them were left out"


def checked(count: str, *reasons: str) -> Check:
    """An assertion about one curl, in a run whose facts have these gaps."""
    text = f"assertions: [{{name: a, what: fact program, condition: program == '/curl', count: '{count}'}}]"
    order = BehaviorOrder(assertions=parse_assertions("a.yaml", text))
    found = behavior(fact("program", "/cat", "/sh"), complete_runs=0 if reasons else 1, incomplete=reasons)
    (check,) = BehaviorCheck(order, ["trace_process"]).checks(found, ())
    return check


def test_facts_that_were_left_out_leave_it_undecided() -> None:
    assert checked("== 0").status is Status.PASSED
    assert checked("== 0", ALREADY_RUNNING).status is Status.PASSED
    check = checked("== 0", ALREADY_RUNNING, OVERFLOW)
    assert check.status is Status.INCONCLUSIVE
    assert OVERFLOW in check.undecided
    assert checked(">= 0", OVERFLOW).status is Status.PASSED


def test_new_behavior_points_to_its_line_in_the_baseline_and_keeps_its_fingerprint() -> None:
    old, new = fact("exit", "/bin/cart", "code 1"), fact("connect", "/bin/cart", "d:1/tcp")
    found = behavior(old, new)
    other = Unit(replace(CART.workload, name="front"), "main")
    renamed = behavior(*(replace(each, workload=other.workload) for each in (old, new)), units=(other,))
    places = {
        (check.findings[0].source, check.findings[0].fingerprint)
        for text in (baseline_text(behavior(old)), f"# a comment\n{baseline_text(behavior(old))}")
        for check in BehaviorCheck(BehaviorOrder(parse_baseline("b.yaml", text)), ["trace_process"]).checks(found, ())
    }

    assert len({fingerprint for _, fingerprint in places}) == 1
    lines = sorted(source.line for source, _ in places if source is not None)
    first = baseline_text(behavior(old)).splitlines().index("      - {exit: code 1, by: /bin/cart}") + 1
    assert lines == [first, first + 1]
    order = BehaviorOrder(parse_baseline("b.yaml", baseline_text(behavior(old))))
    (check,) = BehaviorCheck(order, ["trace_process"]).checks(renamed, ())
    assert check.findings[0].source == SourceLocation("b.yaml", first)
