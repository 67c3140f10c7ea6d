"""Columns of few values, joined by combination, make the same rows as all values written one by one."""

import itertools
import json
import random

import numpy as np

from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.joined_columns import JoinedColumns
from kubectl_gadget.output.jsonpath import compile_template, member_texts
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.rows import Rows
from tests.output.test_row_texts import batch
from tests.rows.records import record


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
