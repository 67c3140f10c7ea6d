"""An expression that can never match is refused before there are rows, with what was meant; all others pass."""

import itertools
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from celpy.evaluation import base_functions
from lark import Tree

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import cel
from kubectl_gadget.filters.cel import FUNCTIONS
from kubectl_gadget.filters.check import check
from kubectl_gadget.filters.filter import cel_functions, compile_filter
from kubectl_gadget.gadgets.load import load_gadget, load_index
from kubectl_gadget.rows.shapes import ANY, INT, MAP, NULL, TEXT, TEXTS, Shape
from tests.gadget_run import PROJECT
from tests.rows.records import OPEN


@pytest.mark.parametrize(
    ("expression", "why", "place", "meant"),
    [
        ('path.startswith("/etc")', "there is no method startswith()", 5, "startsWith?"),
        ('path.starts_with("/etc")', "there is no method starts_with()", 5, "startsWith or endsWith?"),
        ("foo(path)", "there is no function foo()", 0, "bool?"),
        ("path.size > 3", "what is before the dot is a string, which has no members", 5, None),
        ('path.startsWith("/a", "b")', "startsWith() takes one argument, not 2", 5, None),
        ("path.startsWith()", "startsWith() takes one argument, not 0", 5, None),
        ("path.startsWith(3)", "this is a number; startsWith() takes a string", 16, """'path.startsWith("3")'"""),
        ('fd.contains("3")', "this is a number; contains() needs a string", 0, None),
        ('args.contains("x")', "this is a list of strings; contains() needs a string", 0, None),
        (
            'args.startsWith("x")',
            "this is a list of strings; startsWith() needs a string",
            0,
            None,
        ),
        ('args == "x"', "this is a list of strings and cannot be compared with a string", 0, None),
        ('"etc" in path', "this is a string, not a list", 9, None),
        ("pid in 1", "this is a number, not a list", 7, None),
        ("fd in args", "this is a number and cannot be in a list of strings", 0, None),
        ('fd == "3"', "this is a number and cannot be compared with a string", 0, "'fd == 3'"),
        ("comm == 3", "this is a string and cannot be compared with a number", 0, """'comm == "3"'"""),
        ("path_cut == 1", "this is true or false and cannot be compared with a number", 0, None),
        ("fd > 1.5", "cannot be compared with a number with a fraction", 0, None),
        ("fd + 1.5 > 2.0", "a number + a number with a fraction is not known", 0, None),
        ("path > null", "this is null, which has no order", 7, None),
        ("path", "this is a string, not a condition", 0, None),
        ("pod == node && args", "this is a list of strings, not a condition", 15, None),
        ("fd ? true : false", "this is a number, not a condition", 0, None),
        ("comm == cat", "there is no column 'cat'", 8, """'comm == "cat"'"""),
        ("comm == my-app", "there is no column 'my'", 8, """'comm == "my-app"'"""),
        ("com == cat", "there is no column 'com'", 0, "comm?"),
        ("comm in [cat, ls]", "there is no column 'cat'", 9, """'comm in ["cat", "ls"]'"""),
        ("path.contains(etc)", "there is no column 'etc'", 14, """'path.contains("etc")'"""),
        ("errno == ENOENT", "there is no column 'ENOENT'", 9, """'error == "ENOENT"'"""),
        ("errno == -ENOENT", "there is no column 'ENOENT'", 10, """'error == "ENOENT"'"""),
        ('errno == "ENOENT"', "this is a number and cannot be compared with a string", 0, """'error == "ENOENT"'"""),
        ('flags_raw == "O_RDONLY"', "cannot be compared with a string", 0, """'flags == "O_RDONLY"'"""),
        ("ERR == 2", "there is no column 'ERR'", 0, "errno?"),
        ("uid == root", "there is no column 'root'", 7, "what is compared with it is a number"),
        ("COMM == comm", "there is no column 'COMM'", 0, "comm? or"),
        ('args.exists(a, a.startswith("x"))', "there is no method startswith()", 17, "startsWith"),
        ("args.exists(a, a)", "this is a string, not a condition for exists()", 15, None),
        ("args.exists(a)", "exists() takes 2 arguments, not 1", 5, "exists(item, condition)"),
        ('args.exists("a", true)', "exists() takes the name of a variable here", 12, None),
        ("path.exists(p, true)", "this is a string; exists() needs a list", 0, None),
        ('args.all(a, a.matches("["))', "invalid pattern: missing ]", 22, None),
        ('timestamp("never") == timestamp(timestamp)', "timestamp() cannot parse this", 10, 'timestamp("2026-'),
        ('int("many") == fd', "int() cannot parse this", 4, None),
        ("args[path] == path", "this is a string; elements of a list of strings have a number", 5, None),
        ("has()", "has() takes one member, not 0", 0, "has(object.member)"),
        ('error == "ENOENTT"', "error is never 'ENOENTT'", 9, "ENOENT"),
        ('"enoent" != error', "error is never 'enoent'", 0, "ENOENT"),
        ('error in ["EPERM", "~~~~"]', "error is never '~~~~'", 19, None),
        ('comm = "x"', "CEL writes == for equal", 5, """'comm == "x"'"""),
        ('comm === "x"', "CEL writes == for equal", 7, """'comm == "x"'"""),
        ('comm == "x" and fd > 2', "CEL writes && for and", 12, """'comm == "x" && fd > 2'"""),
        ('comm == "x" OR fd > 2', "CEL writes || for or", 12, """'comm == "x" || fd > 2'"""),
        ("path == /etc/passwd", "write text in quotes", 8, """'path == "/etc/passwd"'"""),
        ("path == 10.0.0.1", "write text in quotes", 13, """'path == "10.0.0.1"'"""),
        ("comm == “cat”", "write text in plain quotes", 8, """'comm == "cat"'"""),
        ('comm == "cat', "this text has no closing quote", 8, """'comm == "cat"'"""),
        ('comm == "and" && fd = 2', "CEL writes == for equal", 20, """'comm == "and" && fd == 2'"""),
        ("pid == 1 || || 2", "this is not expected here", 12, None),
    ],
)
def test_what_was_meant_is_offered(expression: str, why: str, place: int, meant: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        compile_filter(expression, [OPEN])
    message, shown, caret = str(caught.value).split("\n")
    assert why in message
    assert shown == f"  {expression}"
    assert caret == " " * (place + 2) + "^"
    assert (caught.value.remedy is None) == (meant is None)
    assert (meant or "") in str(caught.value.remedy)
    if meant is not None and meant.startswith("'") and "…" not in meant:
        compile_filter(meant[1:-1], [OPEN])


@pytest.mark.parametrize(
    "expression",
    [
        'args.exists(a, a.startsWith("-")) && args.all(a, size(a) > 0)',
        'args.filter(a, a != "x").size() == 2 || args.map(a, a + "x") == ["ax"]',
        'args.exists_one(a, a == "x")',
        'args.reduce(r, a, 0, r + size(a)) > 3 && args.min() == "a"',
        "has(path) && path != null && null == pid",
        'error != "" && error != "EPERM" && error != "4095" && error < "x" && error.startsWith("x") && error != null',
        'dyn(fd) == "3" || type(fd) == int',
        'timestamp(timestamp) > timestamp("2026-01-01T00:00:00Z") + duration("1h")',
        'timestamp(timestamp).getHours("Europe/Berlin") < 6 && duration("90s").getSeconds() == 90',
        "double(fd) / 2.0 > 1.5 && int(2.5) == fd && uint(fd) == 3u",
        'string(fd) + path == "3/etc" && startsWith(path, "/")',
        '(fd > 2 ? path : "x").startsWith("/")',
        'fd == (path_cut ? 1 : 2) && {"a": 1}["a"] == fd && "a" in {"a": 1}',
        'pid in [] || comm in [path, "x"] || [fd, 3][0] == 3',
        '.comm == "sh" && args[0].contains("x") && path[0] == "/"',
        "true",
    ],
)
def test_what_works_row_by_row_is_not_refused(expression: str) -> None:
    compile_filter(expression, [OPEN])


@pytest.mark.usefixtures("catalogue_built")
def test_every_filter_of_the_documents_passes() -> None:
    """Those of gadgets; what is about flows and policies' events has names of its own."""
    found = 0
    for entry in load_index():
        gadget = load_gadget(entry.name)
        page = PROJECT / "docs/gadgets" / f"{entry.name}.md"
        if not page.exists():
            continue
        for line in page.read_text().splitlines():
            for _, text in re.findall(r"--(filter|fail-on|expect) '([^']*)'", line):
                if "kubectl gadget " + " ".join(entry.command) in line:
                    found += 1
                    compile_filter(text, [gadget])
    assert found > 20


VALUES = {
    "int": ("i", INT), "uint": ("3u", None), "double": ("1.5", None), "bool": ("true", None), "text": ("s", TEXT),
    "bytes": ('b"a"', None), "null": ("n", NULL), "list": ("l", TEXTS), "map": ("m", MAP),
    "timestamp": ('timestamp("2026-01-01T00:00:00Z")', None), "duration": ('duration("1s")', None),
    "type": ("string", None),
}  # fmt: skip
"""An expression of each type, and its shape where it is a column."""
COLUMNS: dict[str, Shape] = {text: shape for text, shape in VALUES.values() if shape is not None}
ROW = {"i": 3, "s": "1", "n": None, "l": ["a"], "m": {"a": 1}}


parse = cache(cel.parse)


def put_together(form: str, parts: Sequence[cel.Tree]) -> cel.Tree:
    """The tree of `form` with parts in place of x0, x1, …, which stand alone or in parentheses. Thousands are needed,
    and to parse them takes longer than to check and evaluate them."""
    values = {f"x{place}": part for place, part in enumerate(parts)}

    def filled(tree: cel.Tree) -> cel.Tree:
        if not isinstance(tree, Tree):
            return tree
        inner = cel.unwrap(tree)
        if tree.data == "expr" and inner.data == "ident" and inner.children[0].value in values:
            return values[inner.children[0].value]
        return Tree(tree.data, [filled(child) for child in tree.children], tree.meta)

    return filled(parse(form))


def of_types(form: str, *types: str) -> cel.Tree:
    """`form` with expressions of these types."""
    return put_together(form, [parse(VALUES[type][0]) for type in types])


@cache
def environment() -> celpy.Environment:
    return celpy.Environment()


def evaluated(tree: cel.Tree) -> Any:
    """What cel-python makes of it; an exception where that is an error."""
    try:
        program = environment().program(tree, functions=cel_functions())
        return program.evaluate({name: json_to_cel(value) for name, value in ROW.items()})
    except Exception as error:
        return error


def passes(tree: cel.Tree) -> bool:
    """As an argument of dyn(), since any type may come out, and a condition must be true or false."""
    try:
        check("", put_together("dyn(x0)", [tree]), COLUMNS)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%", "&&", "||"])
def test_operators_take_what_cel_python_takes(operator: str) -> None:
    for left, right in itertools.product(VALUES, repeat=2):
        expression = f"{VALUES[left][0]} {operator} {VALUES[right][0]}"
        tree = of_types(f"(x0) {operator} (x1)", left, right)
        if passes(tree):
            # int == null is an error in cel-python, and a row's null is not known before.
            is_null = "null" in (left, right) and operator in ("==", "!=", "in")
            assert is_null or not isinstance(evaluated(tree), Exception), expression
        elif left == right or {left, right} <= {"int", "uint", "double"}:
            # For other types, cel-python has Python's own freedom: never equal, or no operation of CEL.
            assert expression in WORKS_BY_CHANCE or isinstance(evaluated(tree), Exception), expression


NUMBERS = ("i", "3u", "1.5")
WORKS_BY_CHANCE = {
    *(" ".join(words) for words in itertools.product(NUMBERS, ("<", "<=", ">", ">=", *"+-*/%"), NUMBERS)),
    *(f"true {operator} true" for operator in "+-*/%"),
    *(f"{value} {operator} {value}" for operator in ("&&", "||") for value, _ in VALUES.values()),
    *("s in s", 'b"a" in b"a"', "l in l", "string in string", "n in n"),
    *('duration("1s") / duration("1s")', 'duration("1s") % duration("1s")'),
}
"""CEL's specification forbids it, and cel-python does it, often for one order of two types only."""


@pytest.mark.parametrize("name", [*(name for name in base_functions if name.isidentifier() and name[0] != "_"), "dyn"])
def test_functions_take_what_cel_python_takes(name: str) -> None:
    if name == "null_type":
        assert not passes(parse("null_type(i)"))
        return
    counts = {len(overload.arguments) for overload in FUNCTIONS[name]}
    assert not any(passes(parse(f"{name}({', '.join(['s'] * count)})")) for count in {0, 1, 2, 3} - counts)
    for types in itertools.chain(*(itertools.product(VALUES, repeat=count) for count in counts)):
        tree = of_types(f"{name}({', '.join(f'x{place}' for place in range(len(types)))})", *types)
        if passes(tree):
            reads_text = types[-1] == "text" and (len(types) == 2 or name in ("timestamp", "duration", "bool"))
            assert reads_text or not isinstance(evaluated(tree), Exception), types


def test_every_function_of_cel_python_is_known() -> None:
    known = {name for name in base_functions if name.isidentifier() and not name.startswith("_")}
    assert known - {"null_type"} <= set(FUNCTIONS)


def test_a_value_that_is_not_known_before_is_not_judged() -> None:
    for text in ('x.y == "a"', "x > 3", 'x.startsWith("a")', "x in [1]", "x", "x + 1 == 2", "x[0].z", "has(x.y)"):
        check(text, cel.parse(text), {"x": ANY})
