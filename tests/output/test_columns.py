"""Columns of few values, joined by combination, make the same rows as all values written one by one."""

import itertools
import json
import random
from dataclasses import replace

import numpy as np
import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.columns import JoinedColumns, choose_columns, column_names, details, headings, member_names
from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.jsonpath import compile_template, member_texts
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.rows import Rows
from tests.output.test_row_texts import batch
from tests.rows.records import OPEN, column, record


def many(count: int, seed: int) -> Rows:
    """Rows with few values in each field, some of them hostile or null, and some absent members."""
    choose = random.Random(seed).choice
    made = batch(
        *(
            record(
                cgroup=choose((7, 8, 9)),
                pid=choose((0, 1, 70_000)),
                comm=choose((b"vi", b"a\xff\x1b", b"100%", b"")),
                path=choose((b"/etc", b'/a"b', b"/100%s", None, f"/{number}".encode())),
                fd=choose((-1, 3, number)),
                errno=choose((0, 2)),
                path_cut=choose((False, True)),
            )
            for number in range(count)
        )
    )
    made.late = np.array([choose((False, True)) for _ in range(count)])
    return Rows([made])


def test_lines_of_many_rows_with_few_values_are_the_records() -> None:
    for count in (1, 63, 64, 300):
        for seed in range(5):
            rows, members = many(count, seed), MemberRows(event=seed % 2 == 0)
            records = members.records(rows)
            assert [json.loads(line) for line in members.lines(rows)] == records
            assert [list(json.loads(line)) for line in members.lines(rows)] == [list(found) for found in records]
            assert all(line.isprintable() for line in members.lines(rows))


def test_members_of_templates_are_what_is_rendered_of_each_record() -> None:
    members = MemberRows()
    for seed in range(5):
        rows = many(100, seed)
        records = members.records(rows)
        for name in {name for found in records for name in found} - {"late"}:
            render = compile_template(f"{{.{name}}}", frozenset({name}))
            assert list(member_texts(members, rows, name)) == [render(found)[:-1] for found in records]


def test_columns_are_joined_whatever_their_number_of_combinations() -> None:
    generator = np.random.default_rng(1)
    for count, has_texts in itertools.product((0, 1, 100, 5000), (False, True)):
        joined, expected = JoinedColumns(count), [""] * count
        for size in (1, 2, 3, 1, 40, 900, 2, 5000, 3):
            codes = generator.integers(0, size, count)
            words = [json_line(f"{number} 100%s") for number in range(size)]
            for _ in range(2):  # the second has the same codes
                joined.text("%")
                joined.few(codes, words)
                expected = [f"{text}%{words[code]}" for text, code in zip(expected, codes, strict=True)]
        numbers = list(range(count))
        joined.each("<%d%%%s>", [numbers, [f"%s {number}" for number in numbers]])
        if has_texts:
            joined.texts([f"%d{number}" for number in numbers])
            expected = [f"{text}<{number}%%s {number}>%d{number}" for number, text in enumerate(expected)]
        else:
            expected = [f"{text}<{number}%%s {number}>" for number, text in enumerate(expected)]
        joined.text("%%")
        assert joined.rows() == [f"{text}%%" for text in expected]


EXEC = replace(OPEN, name="trace_exec", columns=(column("node"), column("pid"), column("ppid"), column("args")))
DEFAULT = ["node", "namespace", "pod", "container", "pid", "comm", "fd", "errno", "path"]


def test_a_table_has_the_default_columns_in_their_order() -> None:
    assert choose_columns([OPEN], (), "default") == DEFAULT


def test_wide_has_more_and_json_has_all() -> None:
    assert choose_columns([OPEN], (), "wide")[len(DEFAULT) :][:2] == ["timestamp", "uid"]
    assert "tid" not in choose_columns([OPEN], (), "wide")
    assert len(choose_columns([OPEN], (), "json")) == len(OPEN.columns)


def test_columns_can_be_chosen_added_and_taken_away() -> None:
    assert choose_columns([OPEN], ("path", "pid"), "default") == ["path", "pid"]
    assert choose_columns([OPEN], ("+uid", "-node", "-namespace"), "default") == [*DEFAULT[2:], "uid"]
    assert choose_columns([OPEN], ("+pod_uid",), "default")[-1] == "pod_uid"


def test_a_column_that_does_not_exist_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="no column 'pth'") as caught:
        choose_columns([OPEN], ("pid", "pth"), "default")
    assert caught.value.remedy == "path?"
    with pytest.raises(UsageError, match="leaves no column"):
        choose_columns([OPEN], ("pid", "-pid"), "default")


def test_several_gadgets_share_one_table_with_an_event_column() -> None:
    names = choose_columns([OPEN, EXEC], (), "default")
    assert names == ["node", "pid", "details"]
    titles = [heading.title for heading in headings([OPEN, EXEC], names)]
    assert (titles[0], titles[-1]) == ("EVENT", "DETAILS")
    assert [item.name for item in details(OPEN, [OPEN, EXEC])] == [n for n in DEFAULT if n not in ("node", "pid")]
    assert [item.name for item in details(EXEC, [OPEN, EXEC])] == ["ppid", "args"]
    assert headings([OPEN], names)[0].title == "NODE"


def test_a_chosen_column_brings_its_members() -> None:
    assert member_names(OPEN, ["errno", "path"]) == ["errno", "error", "path", "path_cut", "path_bytes"]


def test_headings_are_taken_in_any_case() -> None:
    assert column_names([OPEN], ("PID", "Pod", "err", "path", "+UID", "-NODE")) == (
        "pid", "pod", "errno", "path", "+uid", "-node",
    )  # fmt: skip
    assert column_names([OPEN], ("RUNTIME", "nope", "-Errno")) == ("runtime", "nope", "-errno")


def test_a_heading_of_two_columns_names_both() -> None:
    ends = (column("local_port", "PORT"), column("remote_port", "PORT"), column("port_range", "PORTS"))
    gadget = replace(OPEN, columns=ends)
    assert column_names([gadget], ("local_port", "PORTS")) == ("local_port", "port_range")
    with pytest.raises(UsageError, match="port is the heading of several columns") as caught:
        column_names([gadget], ("port",))
    assert caught.value.remedy == "local_port or remote_port"
