"""Filters: CEL over columns gives what cel-python gives row by row, and errors say where."""

from dataclasses import replace
from typing import Any

import celpy
import pytest
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters.filter import cel_functions, compile_filter, kernel_parameters
from kubectl_gadget.gadgets.schema import About, Gadget
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.members import filter_members
from tests.examples import examples
from tests.messages import changes
from tests.rows.records import OPEN, column, record, ring

WORDS = [b"", b"a", b"ab", b"/etc", b"/etc/passwd", b"/\xff", "/ä".encode(), b"nginx", b"x y"]
ROWS = st.lists(
    st.builds(
        record,
        pid=st.sampled_from([0, 1, 2, 7, 2**32 - 1]),
        cgroup=st.sampled_from([7, 8]),
        comm=st.sampled_from(WORDS),
        fd=st.integers(-2, 4),
        errno=st.sampled_from([0, 2, 13]),
        flags=st.sampled_from([0, 0o2000000]),
        path=st.sampled_from([*WORDS, None]),
        path_cut=st.booleans(),
        args=st.sampled_from([None, [], [b"a"], [b"a", b"/etc"]]),
    ),
    min_size=1,
    max_size=8,
)
LITERALS = st.sampled_from(['""', '"a"', '"/etc"', '"/etc/passwd"', '"/ä"', '"nginx"', '"ENOENT"', '"xwing"', "'x y'"])
ERRORS = st.sampled_from(['""', '"ENOENT"', '"EACCES"', '"4095"'])
TEXTS = st.sampled_from(["path", "comm", "flags", "pod", "resolved"])
NUMBERS = st.sampled_from(["fd", "pid", "errno", "flags_raw", "size(path)", "size(args)", "0", "2", "-1", "3"])
SUMS = NUMBERS | st.builds("({} {} {})".format, NUMBERS, st.sampled_from("+-*/%"), NUMBERS)
ORDER = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
ATOMS = st.one_of(
    st.builds("{} {} {}".format, SUMS, ORDER, SUMS),
    st.builds("{} {} {}".format, TEXTS, ORDER, LITERALS),
    st.builds("{} {} {}".format, LITERALS, st.sampled_from(["==", "!=", "<"]), TEXTS),
    st.builds("{}.{}({})".format, TEXTS, st.sampled_from(["startsWith", "endsWith", "contains", "matches"]), LITERALS),
    st.builds("{} in [{}, {}]".format, TEXTS, LITERALS, LITERALS),
    st.builds("error {} {}".format, ORDER, ERRORS),
    st.builds("error in [{}, {}]".format, ERRORS, ERRORS),
    st.builds("{} in [0, 2, 13]".format, NUMBERS),
    st.builds("{} in args".format, LITERALS),
    st.builds("{} == null".format, TEXTS | st.just("error")),
    st.builds("{} {} {}".format, st.sampled_from(["pid", "tid"]), st.sampled_from(["==", "!="]), NUMBERS),
    st.sampled_from(["path_cut", "path_cut == true", "path_cut != false", "true"]),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=6,
)


def batch_of(*records: bytes) -> Batch:
    """A batch whose cgroup 7 is the pod xwing."""
    batch = decode(OPEN, "node-1", ring(*records))
    identity = Identity("node-1")
    container = {"id": "c", "namespace": "default", "pod": "xwing", "container": "ship", "kind": "container"}
    identity.apply(changes({"containers": [container], "cgroups": {"7": "c"}}), 0.0)
    batch.owners = identity.lookup(batch.cgroups())
    return batch


def matches(expression: str, *records: bytes) -> list[bool]:
    """Which rows match."""
    found: list[bool] = compile_filter(expression, [OPEN]).mask(batch_of(*records)).tolist()
    return found


def by_celpy(expression: str, batch: Batch) -> list[bool]:
    """What cel-python says of each row, an error being no match."""
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression), functions=cel_functions())
    columns = {name: member.read(batch).values() for name, member in filter_members(OPEN).items()}
    found = []
    for number in range(len(batch)):
        row: dict[str, Any] = {name: json_to_cel(values[number]) for name, values in columns.items()}
        try:
            found.append(bool(program.evaluate(row)))
        except CELEvalError:
            found.append(False)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The recursion limit")  # cel-python raises it
@settings(max_examples=examples(400), deadline=None)
@given(ROWS, CONDITIONS)
def test_columns_give_what_cel_python_gives_row_by_row(rows: list[bytes], expression: str) -> None:
    compiled = compile_filter(expression, [OPEN])
    batch = batch_of(*rows)
    assert compiled.mask(batch).tolist() == by_celpy(expression, batch)


@pytest.mark.parametrize(
    "expression",
    [
        'comm == "nginx" && fd > 2 || path.startsWith("/etc")',
        'error == "ENOENT" && !path.matches("^/proc/[0-9]+/") && pod in ["a", "b"]',
        'size(args) > 2 && "-c" in args && path_cut && timestamp > "2026-01-01"',
    ],
)
def test_what_people_write_needs_no_evaluation_row_by_row(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.filters.filter.RowProgram", None)
    compile_filter(expression, [OPEN])


def test_the_rest_of_cel_works_row_by_row() -> None:
    rows = (record(args=[b"sh", b"-c"], fd=3), record(args=[b"ls"], fd=3), record(args=[b"sh", b"-c"], fd=1))
    assert matches('fd > 2 && args.exists(a, a.startsWith("-"))', *rows) == [True, False, False]
    assert matches('fd > 2 ? args[0] == "sh" : true', *rows) == [True, False, True]


def test_a_function_alone_is_a_condition() -> None:
    assert matches("has(path) && bool(fd)", record(fd=0), record(fd=1)) == [False, True]
    assert matches("dyn(true)", record()) == [True]


def test_row_by_row_sees_only_what_the_columns_let_through() -> None:
    compiled = compile_filter('args[5] == "x" && fd == 9', [OPEN])
    assert compiled.mask(batch_of(record(fd=1, args=[b"a"]), record(fd=9, args=[b"a"]))).tolist() == [False, False]
    assert compiled.errors == 1
    assert compiled.first_error is not None


def test_a_number_may_be_null() -> None:
    rows = (record(pid=0, comm=b""), record(pid=7))
    assert matches("pid == null", *rows) == [True, False]
    assert matches("pid != null", *rows) == [False, True]
    assert matches("pid == tid", *rows) == [True, True]
    assert matches("pid == 0 || pid < 3 || pid in [0]", *rows) == [False, False]


def test_a_null_equals_only_null_and_all_else_about_it_is_an_error() -> None:
    row = record(path=None)
    results = [matches(text, row)[0] for text in ('path == ""', 'path != ""', "path == null", '!path.startsWith("x")')]
    assert results == [False, True, True, False]
    assert matches("args != null", record(args=[]), record(args=None)) == [True, False]


def test_a_true_alternative_stands_above_an_error() -> None:
    assert matches('path.startsWith("x") || fd == 3', record(path=None, fd=3)) == [True]
    assert matches("1 / (fd - 3) == 1 || fd == 3", record(fd=3)) == [True]


def test_numbers_of_64_bits_do_not_wrap() -> None:
    assert matches("fd * 4611686018427387904 > 0", record(fd=2), record(fd=1)) == [False, True]


def test_pods_can_be_filtered() -> None:
    assert matches('pod == "xwing" && node == "node-1"', record(cgroup=7), record(cgroup=8)) == [True, False]
    assert matches('container_id == ""', record(cgroup=8)) == [True]


@pytest.mark.parametrize(
    ("expression", "why", "place"),
    [
        ("fd ==", "the expression ends too early", 5),
        ("(fd == 3", "the expression ends too early", 8),
        ("", "the expression ends too early", 0),
        ("fd == == 3", "this is not expected here", 6),
        ('comm == "a" "b"', "this is not expected here", 12),
        ("fd == 3 # x", "this is not expected here", 8),
        ('fd > 2 && pth == "x"', "there is no column 'pth'", 10),
        ('fd == "x"', "this is a number and cannot be compared with a string", 0),
        ("fd == 1.5", "this is a number and cannot be compared with a number with a fraction", 0),
        ("path > 3", "this is a string and cannot be compared with a number", 0),
        ("fd", "this is a number, not a condition", 0),
        ("fd > 2 && comm", "this is a string, not a condition", 10),
        ('fd.contains("x")', "this is a number; contains() needs a string", 0),
        ("path.startsWith(3)", "this is a number; startsWith() takes a string", 16),
        ('path.matches("[")', "invalid pattern", 13),
        ('fd in ["a"]', "this is a number, but the list has a string", 0),
        ('fd in [1, "a"]', "cannot be compared", 7),
        ("-path == 3", "this is a string, not a number", 1),
        ("fd == 99999999999999999999", "more than 64 bits", 6),
    ],
)
def test_a_wrong_filter_is_shown_with_the_place(expression: str, why: str, place: int) -> None:
    with pytest.raises(UsageError) as caught:
        compile_filter(expression, [OPEN])
    message, _, caret = str(caught.value).split("\n")
    assert why in message
    assert caret == " " * (place + 2) + "^"


def test_the_flag_that_has_the_expression_is_named() -> None:
    for flag, head in (("--fail-on", "--fail-on: "), ("", "")):
        with pytest.raises(UsageError, match=f"^{head}there is no column 'nope'"):
            compile_filter("nope == 1", [OPEN], flag)


@pytest.mark.slow
def test_an_expression_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="nested too deeply"):
        compile_filter("!(" * 20000 + "fd == 1" + ")" * 20000, [OPEN])


def test_the_nearest_column_is_offered() -> None:
    with pytest.raises(UsageError) as caught:
        compile_filter('pathh == "x"', [OPEN])
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("path")


def test_a_variable_of_a_macro_makes_no_column() -> None:
    assert matches('args.exists(word, word == "a")', record(args=[b"a"])) == [True]
    with pytest.raises(UsageError, match="there is no column 'wort'"):
        compile_filter('args.exists(word, wort == "a")', [OPEN])


def test_a_name_that_one_gadget_of_the_run_has_is_taken() -> None:
    def of(name: str, *words: str) -> Gadget:
        (field,) = (one for one in OPEN.record.fields if one.name == "flags")
        named = replace(field, type="enum", flags=(), values=tuple(enumerate(words)))
        return Gadget(name, (name,), About("", ""), replace(OPEN.record, fields=(named,)), (column("flags"),))

    one, other = of("one", "read", "write"), of("other", "connect")
    with pytest.raises(UsageError, match="flags is never 'connect'"):
        compile_filter('flags == "connect"', [one])
    compile_filter('flags == "connect" || flags == "read"', [one, other])
    with pytest.raises(UsageError, match="flags is never 'nothing'"):
        compile_filter('flags == "nothing"', [one, other])
    compile_filter('flags == "nothing"', [one, other, OPEN])


def test_a_column_that_only_another_gadget_has_never_matches() -> None:
    other = Gadget("other", ("other",), About("", ""), OPEN.record, (column("pid"), column("ppid")))
    compiled = compile_filter("ppid == 1 || pid == 7", [OPEN, other])
    assert compiled.mask(batch_of(record(pid=1), record(pid=7))).tolist() == [False, True]
    batch = decode(other, "node-1", ring(record(pid=3)))
    assert compiled.mask(batch).tolist() == [True]


@pytest.mark.parametrize(
    ("expression", "pushed"),
    [
        ("pid == 3", {"pid": 3}),
        ("3 == pid && fd > 2", {"pid": 3}),
        ('comm == "nginx" && path.startsWith("/etc")', {"comm": "nginx", "path": "/etc"}),
        ('path == "/etc/passwd"', {"path": "/etc/passwd"}),
        ('path.startsWith("/var/lib/containers")', {"path": "/var/lib/contai"}),
        ('path.startsWith("/aaaaaaaaaaaaaä")', {"path": "/aaaaaaaaaaaaa"}),
        ('comm == "longer than a comm"', {}),
        ("pid == 3 || fd == 1", {}),
        ("!(pid == 3)", {}),
        ("pid != 3", {}),
        ('pid == 3 && (comm == "a" || fd == 1)', {"pid": 3}),
        ('(pid == 3 && comm == "a") && fd == 1', {"pid": 3, "comm": "a"}),
        ('path.startsWith("")', {}),
        ("pid == 99999999999", {}),
        ("path == null", {}),
    ],
)
def test_the_kernel_gets_what_lets_all_matching_rows_through(expression: str, pushed: dict[str, Any]) -> None:
    assert kernel_parameters(compile_filter(expression, [OPEN]), OPEN) == pushed


@pytest.mark.parametrize(
    ("expression", "passes"),
    [
        ('path == "/etc/shadow"', True),
        ('path != "/etc/shadow"', True),
        ('path.startsWith("/etc/")', True),
        ('path in ["/a", "/b"]', True),
        ('path.contains("x") || comm == "other"', True),
        ('path.matches("^/x$") && fd == 3', True),
        ('path + "x" == "/etcx"', True),
        ("size(path) > 3", True),
        ('path == "/etc/shadow" && comm == "other"', False),
        ('path + "x" == "/etcx" && comm == "other"', False),
        ('comm == "other"', False),
        ("path == null", True),
        ("path != null", False),
        ('!(path == "/etc") && fd == 3', True),
    ],
)
def test_what_could_not_be_read_hides_no_row(expression: str, passes: bool) -> None:
    batch = batch_of(record(comm=b"nginx", fd=3, path=None), record(comm=b"nginx", fd=3, path=b"/neither"))
    filter = compile_filter(expression, [OPEN])
    chosen = filter.select(batch)
    assert (None in column_of(chosen, "path")) == passes
    # Only a row that was read may end a run.
    assert not filter.mask(batch)[0] or expression in (
        "path == null",
        'path != "/etc/shadow"',
        '!(path == "/etc") && fd == 3',
    )


def column_of(batch: Batch, name: str) -> list[Any]:
    return filter_members(OPEN)[name].read(batch).values()
