"""New behavior as findings: warnings, errors for what was asked, and notes for what follows from something else."""

from kubectl_gadget.behavior.comparison import compare
from kubectl_gadget.behavior.facts import Behavior, Coverage, Fact, FactKind, Unit
from kubectl_gadget.ci.finding import Finding, Level
from kubectl_gadget.ci.from_changes import from_changes
from kubectl_gadget.kube.inventory import Workload

WEB = Workload("shop", "Deployment", "web")
UNIT = Unit(WEB, "main")


def fact(kind: FactKind, program: str, value: str = "") -> Fact:
    return Fact(WEB, "main", kind, program, value, evidence={"pid": 7})


OLD = fact(FactKind.PROGRAM, "/bin/web")
NEW = (
    fact(FactKind.PROGRAM, "/usr/bin/curl", "/bin/web"),
    fact(FactKind.OPEN, "/usr/bin/curl", "read /etc/hosts"),
    fact(FactKind.CONNECT, "/usr/bin/curl", "network 192.0.2.0/24:443/tcp"),
    fact(FactKind.OPEN, "/bin/web", "write /etc/passwd"),
)


def levels(*errors: FactKind, complete: bool = True) -> dict[tuple[str, str], Level]:
    old = Behavior((OLD,), {UNIT: Coverage(complete_runs=int(complete), incomplete=() if complete else ("lost",))})
    new = Behavior((OLD, *NEW), {UNIT: Coverage()})
    found = from_changes(compare(old, new), "web.yaml", lambda _: 1, errors)
    return {(each.identity[1], each.identity[2]): each.level for each in found}


def test_new_behavior_warns_and_what_a_new_program_opens_is_a_note() -> None:
    assert levels() == {
        (NEW[0].program, NEW[0].value): Level.WARNING,
        (NEW[1].program, NEW[1].value): Level.NOTE,
        (NEW[2].program, NEW[2].value): Level.WARNING,
        (NEW[3].program, NEW[3].value): Level.WARNING,
    }


def test_kinds_that_must_not_be_new_are_errors() -> None:
    found = levels(FactKind.CONNECT, FactKind.OPEN)
    assert [found[each.program, each.value] for each in NEW] == [
        Level.WARNING,
        Level.ERROR,
        Level.ERROR,
        Level.ERROR,
    ]


def test_what_may_only_seem_new_is_a_note() -> None:
    assert set(levels(*FactKind, complete=False).values()) == {Level.NOTE}


def test_a_finding_names_the_workload_and_has_the_evidence() -> None:
    new = Behavior((OLD, NEW[0]), {UNIT: Coverage()})
    (found,) = from_changes(compare(Behavior((OLD,), {UNIT: Coverage()}), new), "web.yaml", lambda _: 1)
    assert isinstance(found, Finding)
    assert (str(found.where), found.rule) == ("shop/Deployment/web/main", "baseline/program")
    assert found.evidence == ({"pid": 7},)
    assert "/bin/web runs /usr/bin/curl" in found.message
    assert (found.source.file, found.source.line) == ("web.yaml", 1) if found.source else False
