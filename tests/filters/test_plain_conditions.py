"""Plain conditions are decided like cel-python decides them, or not at all."""

from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.filters import cel
from kubectl_gadget.filters.filter import cel_functions
from kubectl_gadget.filters.plain_conditions import compile_plain
from tests.examples import examples

VALUES = st.one_of(
    st.sampled_from([0, 1, -1, 7, 2**63 - 1, 2**63, 0.0, 1.5, -2.0, True, False, None, "", "a", "ab", "b", "é"]),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
)
OBJECTS = st.fixed_dictionaries({"n": VALUES, "t": VALUES})
LISTS = st.lists(st.sampled_from(["a", "b"]), max_size=2)  # of another value, a macro of cel-python is no mere error
ROWS = st.fixed_dictionaries({"a": VALUES, "b": VALUES, "o": OBJECTS, "l": LISTS})
READ = st.sampled_from(
    [
        "a",
        "b",
        "o.n",
        "o.t",
        "0",
        "1",
        "-1",
        "null",
        "1.5",
        '"a"',
        "true",
        "size(a)",
        "size(o.t)",
        "double(a)",
        "missing",
    ]
)
SUMS = READ | st.builds("({} {} {})".format, READ, st.sampled_from("+-*"), READ)
ATOMS = st.one_of(
    st.builds("{} {} {}".format, SUMS, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), SUMS),
    st.builds(
        '{}.{}("{}")'.format,
        st.sampled_from(["a", "o.t"]),
        st.sampled_from(["startsWith", "endsWith", "contains", "matches"]),
        st.sampled_from(["", "a", "^b|é"]),
    ),
    st.builds("{} in {}".format, READ, st.sampled_from(["[0, 1]", '["a", "b"]', "o.t", "[]"])),
    st.sampled_from(["a", "o.n", "true", "a[0] == 1", "l.exists(x, x == a)"]),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=5,
)


def by_celpy(expression: str, row: dict[str, Any]) -> bool | None:
    """Return what cel-python says; None: an error, or no condition."""
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression), functions=cel_functions())
    try:
        found = program.evaluate({name: json_to_cel(value) for name, value in row.items()})
    except Exception:
        return None
    return bool(found) if found in (True, False) else None


@pytest.mark.filterwarnings("ignore:The recursion limit")  # cel-python raises it
@settings(max_examples=examples(600), deadline=None)
@given(ROWS, CONDITIONS)
def test_what_is_decided_is_decided_like_cel_python(row: dict[str, Any], expression: str) -> None:
    condition = compile_plain(cel.parse(expression))
    decided = None if condition is None else condition(row)
    if decided is not None and not any(value == 2**63 for value in (row["a"], row["b"], *row["o"].values())):
        # cel-python raises some errors at once that `false && …` should absorb.
        assert by_celpy(expression, row) in (decided, None)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a.count >= 2 && b.exists(x, x == 1)", None),
        ("a.count >= 3 && b.exists(x, x == 1)", False),
        ("a.count >= 2 || b.exists(x, x == 1)", True),
        ('a.name.startsWith("x") && !(a.count in [1, 3])', True),
        ("a.count * 20 >= a.most && size(b) == 1", True),
        ("double(a.count) >= a.rate * 1.0e8", False),
        ("a.count > 1.0", None),
        ("a.missing > 1", None),
    ],
)
def test_macros_and_mixed_types_are_left_to_cel_python(expression: str, expected: bool | None) -> None:
    condition = compile_plain(cel.parse(expression))
    assert condition is not None
    assert condition({"a": {"count": 2, "most": 40, "name": "xy", "rate": 1.5}, "b": [1]}) is expected


def test_a_text_that_re2_cannot_take_is_left_to_cel_python() -> None:
    condition = compile_plain(cel.parse('a.matches("x")'))
    assert condition is not None
    assert condition({"a": "\ud800"}) is None
