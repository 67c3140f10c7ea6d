"""Every column of every gadget, with no row, one row and several: a filter may leave none, at any time."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets.load import load_gadget, load_index
from kubectl_gadget.gadgets.schema import STRING_TYPES, About, Column, Field, Gadget, RecordLayout
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.members import KINDS, filter_members, shown
from kubectl_gadget.rows.stacks import STACK
from tests.examples import examples
from tests.rows.records import ring

pytestmark = pytest.mark.slow

CONDITIONS = {
    "int": (
        *("{0} == 3", "{0} != 3", "{0} < 3", "{0} <= 3", "3 > {0}", "{0} >= 3", "{0} in [0, 3]", "-{0} == 3"),
        *("{0} + 1 == 3", "{0} - 1 == 3", "{0} * 2 == 3", "3 / {0} == 3", "{0} % 2 == 1", "{0} == null"),
        *("{0} != {0}", "!({0} == 3)", "{0} == 3 || {0} == 4", "{0} == 3 ? true : false", "double({0}) > 1.5"),
    ),
    "text": (
        *('{0} == "a"', '{0} != "a"', '{0} < "a"', '{0} >= "a"', '"a" < {0}', '{0} in ["a", "b"]', "{0} == null"),
        *('{0}.startsWith("a")', '{0}.endsWith("a")', '{0}.contains("a")', '{0}.matches("^a")', "size({0}) > 1"),
        *("{0}.size() > 1", "{0} == {0}", '{0} + "x" == "ax"', '!({0} == "a")', '{0} == "a" && {0} != "b"'),
    ),
    "texts": (
        *('"a" in {0}', "size({0}) > 1", "{0} == null", '{0} == ["a"]', '{0}.exists(item, item == "a")'),
        *('{0}.all(item, item == "a")', '{0}.filter(item, item == "a").size() == 1', '{0}[0] == "a"'),
        '{0}.map(item, item + "x") == ["ax"]',
    ),
    "bool": ("{0}", "!{0}", "{0} == true", "{0} != false", "{0} == null", "{0} || {0}", "{0} == {0}"),
    "buckets": ("{0}.exists(item, item.count > 3)", "{0} == null", "{0}.all(item, item.from > 3)"),
}
"""Everything that CEL has for a column of each type."""

GADGETS = [load_gadget(entry.name) for entry in load_index()]


def gadget_of(types: Sequence[str]) -> Gadget:
    """A gadget with a column of each of these typedefs."""
    fields: list[Field] = [Field("cgroup", 0, 8, "gadget_cgroup"), Field("timestamp", 8, 8, "gadget_timestamp")]
    offset = 16
    named = {field.type: field for gadget in GADGETS for field in gadget.record.fields}
    for type in types:
        known = named.get(type, Field(type, 0, 4, type))
        offset = -(-offset // 8) * 8
        fields.append(Field(f"of_{type}", offset, known.size, type, known.signed))
        offset += known.size
    size = -(-offset // 8) * 8
    columns = tuple(Column(field.name, field.name.upper(), field.name, "") for field in fields)
    return Gadget("all_kinds", ("all",), About("", ""), RecordLayout("all", size, tuple(fields)), columns)


def stands_alone(type: str) -> bool:
    """True if it is read without further fields of the record; gadgets of ours have the others."""
    try:
        read_everything(rows_of(gadget_of([type]), [b"a"]))
    except KeyError:
        return False
    return True


def gadget_of_every_kind() -> Gadget:
    """Has each typedef that stands alone, whether a gadget of ours has one or not."""
    others = ("gadget_cgroup", "gadget_timestamp", "gadget_exec_id", "gadget_innermost")
    return gadget_of([type for type in sorted(KINDS) if type not in others and stands_alone(type)])


def rows_of(gadget: Gadget, fillings: list[bytes]) -> Batch:
    """Records whose fixed part is these bytes, repeated, with a text in each field that says where one is."""
    records = []
    for filling in fillings:
        body = bytearray((filling * (gadget.record.size // len(filling) + 1))[: gadget.record.size])
        for field in gadget.record.fields:
            if field.type in STRING_TYPES:
                body[field.offset : field.offset + 4] = struct.pack("<HH", gadget.record.size, 3)
            if field.type in (STACK, "gadget_syscall_arguments"):
                body[field.offset : field.offset + field.size] = bytes(field.size)
        records.append(bytes(body) + b"a\0b")
    batch = decode(gadget, "node-1", ring(*records))
    batch.name_owners(Identity("node-1").lookup)
    return batch


def read_everything(batch: Batch) -> None:
    """Every member as a value and as JSON, and every column as a table has it."""
    count = len(batch)
    for name, member in filter_members(batch.gadget).items():
        vector = batch.vector(name, member.read)
        assert len(vector) == len(vector.values()) == count, name
        assert all(len(values) == count for values in vector.json()[1]), name
        valid = vector.valid()
        assert valid is None or len(valid) == count, name
    for column in batch.gadget.columns:
        assert len(shown(batch, column)) == count, column.name


EVERY_GADGET = [*GADGETS, gadget_of_every_kind()]


@pytest.mark.parametrize("gadget", EVERY_GADGET, ids=lambda gadget: gadget.name)
def test_every_column_can_be_read_with_any_number_of_rows(gadget: Gadget) -> None:
    for fillings in ([], [b"\0"], [b"a"], [b"\xff\0\x01"], [b"\0", b"a", b"\xff"]):
        batch = rows_of(gadget, fillings)
        read_everything(batch)
        read_everything(batch.select(np.array([], np.int64)))


@pytest.mark.parametrize("gadget", EVERY_GADGET, ids=lambda gadget: gadget.name)
def test_every_operation_works_with_any_number_of_rows(gadget: Gadget) -> None:
    kinds: dict[tuple[Any, ...], str] = {}
    for name, member in filter_members(gadget).items():
        column = next((column for column in gadget.columns if column.name == name), None)
        field = next((field.type for field in gadget.record.fields if column and field.name == column.field), name)
        kinds.setdefault((member.type, field), name)
    batches = [rows_of(gadget, fillings) for fillings in ([], [b"a"], [b"\0", b"\xff"])]
    for (type, _), name in kinds.items():
        for condition in CONDITIONS[type]:
            text = condition.format(name)
            if filter_members(gadget)[name].names:  # a text that it never has is refused, a number is not
                text = text.replace('"a"', '"1"').replace('"b"', '"2"')
            try:
                compiled = compile_filter(text, [gadget])
            except UsageError:
                raise AssertionError(text) from None
            for batch in batches:
                assert len(compiled.mask(batch)) == len(batch), text
                assert len(compiled.select(batch.select(np.array([], np.int64)))) == 0, text


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=64), max_size=3), st.sampled_from(GADGETS))
def test_no_bytes_of_a_record_break_a_column(fillings: list[bytes], gadget: Gadget) -> None:
    read_everything(rows_of(gadget, fillings))


def test_every_typedef_is_in_a_gadget_of_these_tests() -> None:
    tested = {field.type for gadget in EVERY_GADGET for field in gadget.record.fields}
    assert set(KINDS) - tested == set()


def test_the_typedefs_of_the_documents_are_those_of_the_tests() -> None:
    text = (Path(__file__).parents[2] / "docs/design/records.md").read_text()
    named = {word for line in text.splitlines() if line.startswith("| `gadget_") for word in line.split("`")[1::2]}
    assert {word for word in named if word.startswith("gadget_")} <= set(KINDS) | {"gadget_exec_id"}
