"""Assertions about facts: what the collection left out is never green."""

import pytest

from kubectl_gadget.behavior.from_rows.collection import ALREADY_RUNNING
from kubectl_gadget.findings.finding import Check, Status
from kubectl_gadget.session.ci.assertions import parse_assertions
from kubectl_gadget.session.ci.behavior_check import BehaviorCheck, BehaviorOrder
from tests.behavior.made import behavior, fact

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
