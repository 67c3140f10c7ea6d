"""Assertions: each mistake has its line and column."""

import pytest

from kubectl_gadget.ci.assertions import Amount, parse_assertions
from kubectl_gadget.errors import UsageError

pytestmark = pytest.mark.compiled


def errors(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_assertions("a.yaml", text)
    return str(caught.value)


def test_all_mistakes_are_reported_at_their_places() -> None:
    said = errors(
        "assertions:\n"
        "  - name: a\n"
        "    what: opn\n"
        "  - name: b\n"
        "    what: open\n"
        "    condition: pth == 'x'\n"
        "  - name: c\n"
        "    what: fact progam\n"
        "  - name: d\n"
        "    what: open\n"
        "    count: about 3\n"
        "  - name: e\n"
        "    what: fact open\n"
        "    step: build\n"
        "  - name: f\n"
        "    what: fact open\n"
        "    condition: fd == 3\n"
        "  - name: g\n"
        "    what: open\n"
        "    condition: error == 'EPREM'\n"
        "    count: == 0\n"
    )
    assert "a.yaml:3:11: assertions[0].what" in said
    assert "did you mean open?" in said
    assert "a.yaml:6:16: assertions[1].condition there is no column 'pth'" in said
    assert "a.yaml:8:11: assertions[2].what is not a kind of fact; it is one of program," in said
    assert "a.yaml:11:12: assertions[3].count" in said
    assert "a.yaml:14:11: assertions[4].step is only for gadgets" in said
    assert "a.yaml:17:16: assertions[5].condition" in said
    assert "a.yaml:20:16: assertions[6].condition error is never 'EPREM'" in said


def test_unknown_fields_and_levels_are_refused() -> None:
    assert "a.yaml:1:33: assertions[0].whta is not known" in errors("assertions: [{name: a, what: x, whta: y}]")
    assert "level" in errors("assertions: [{name: a, what: open, level: fatal}]")
    assert "two assertions with the name 'a'" in errors("assertions: [{name: a, what: open}, {name: a, what: exec}]")


@pytest.mark.parametrize(
    ("sign", "number", "count", "holds", "could_change"),
    [
        ("==", 0, 0, True, True),
        ("==", 0, 2, False, False),
        ("==", 3, 2, False, True),
        ("==", 3, 3, True, True),
        ("==", 3, 4, False, False),
        (">=", 3, 2, False, True),
        (">=", 3, 3, True, False),
        (">", 3, 3, False, True),
        ("<=", 3, 3, True, True),
        ("<", 3, 3, False, False),
        ("!=", 3, 3, False, True),
        ("!=", 3, 2, True, True),
        ("!=", 3, 4, True, False),
    ],
)
def test_what_a_loss_leaves_undecided(sign: str, number: int, count: int, holds: bool, could_change: bool) -> None:
    amount = Amount(sign, number)
    assert (amount.holds(count), amount.could_change(count)) == (holds, could_change)
