"""Assertions about facts: what the collection left out is never green."""

from dataclasses import replace

import pytest

from kubectl_gadget.behavior.baseline import baseline_text, parse_baseline
from kubectl_gadget.behavior.collection import ALREADY_RUNNING
from kubectl_gadget.behavior.comparison import compare
from kubectl_gadget.behavior.facts import Behavior, Coverage, Fact, FactKind, Unit
from kubectl_gadget.ci.assertions import parse_assertions
from kubectl_gadget.ci.fact_checks import BehaviorCheck, BehaviorOrder, from_changes
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.reports.model import Check, Finding, Severity, SourceLocation, Status
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


# New behavior as findings: warnings, errors for what was asked, and notes for what follows from something else.


WEB = Workload("shop", "Deployment", "web")
UNIT = Unit(WEB, "main")


def web_fact(kind: FactKind, program: str, value: str = "") -> Fact:
    return Fact(WEB, "main", kind, program, value, evidence={"pid": 7})


OLD = web_fact(FactKind.PROGRAM, "/bin/web")
NEW = (
    web_fact(FactKind.PROGRAM, "/usr/bin/curl", "/bin/web"),
    web_fact(FactKind.OPEN, "/usr/bin/curl", "read /etc/hosts"),
    web_fact(FactKind.CONNECT, "/usr/bin/curl", "network 192.0.2.0/24:443/tcp"),
    web_fact(FactKind.OPEN, "/bin/web", "write /etc/passwd"),
)


def levels(*errors: FactKind, complete: bool = True) -> dict[tuple[str, str], Severity]:
    old = Behavior((OLD,), {UNIT: Coverage(complete_runs=int(complete), incomplete=() if complete else ("lost",))})
    new = Behavior((OLD, *NEW), {UNIT: Coverage()})
    found = from_changes(compare(old, new), "web.yaml", lambda _: 1, errors)
    return {(each.identity[1], each.identity[2]): each.level for each in found}


def test_new_behavior_warns_and_what_a_new_program_opens_is_a_note() -> None:
    assert levels() == {
        (NEW[0].program, NEW[0].value): Severity.WARNING,
        (NEW[1].program, NEW[1].value): Severity.NOTE,
        (NEW[2].program, NEW[2].value): Severity.WARNING,
        (NEW[3].program, NEW[3].value): Severity.WARNING,
    }


def test_kinds_that_must_not_be_new_are_errors() -> None:
    found = levels(FactKind.CONNECT, FactKind.OPEN)
    assert [found[each.program, each.value] for each in NEW] == [
        Severity.WARNING,
        Severity.ERROR,
        Severity.ERROR,
        Severity.ERROR,
    ]


def test_what_may_only_seem_new_is_a_note() -> None:
    assert set(levels(*FactKind, complete=False).values()) == {Severity.NOTE}


def test_a_finding_names_the_workload_and_has_the_evidence() -> None:
    new = Behavior((OLD, NEW[0]), {UNIT: Coverage()})
    (found,) = from_changes(compare(Behavior((OLD,), {UNIT: Coverage()}), new), "web.yaml", lambda _: 1)
    assert isinstance(found, Finding)
    assert (str(found.where), found.rule) == ("shop/Deployment/web/main", "baseline/program")
    assert found.evidence == ({"pid": 7},)
    assert "/bin/web runs /usr/bin/curl" in found.message
    assert (found.source.file, found.source.line) == ("web.yaml", 1) if found.source else False
