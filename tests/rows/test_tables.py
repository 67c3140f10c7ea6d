"""Sums, sorting and trees of rows that come from several nodes."""

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets.schema import (
    About,
    AgentSide,
    Column,
    Field,
    Gadget,
    Quotient,
    RecordLayout,
    TableDefaults,
    TotalFields,
)
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import UNKNOWN, Container, Owners
from kubectl_gadget.rows.rows import NO_ROWS, Rows
from kubectl_gadget.rows.tables import Block, Captures, Intervals, added_up_members, arrange, check, shown_columns
from tests.rows.records import OPEN, SIZE, record, ring

_FIELDS = ("timestamp", "interval", "cgroup", "syscall", "count", "total", "mean")
_TYPES = {"timestamp": "gadget_timestamp", "interval": "gadget_duration", "cgroup": "gadget_cgroup"}


def column(name: str) -> Column:
    return Column(name, name.upper(), name, "", "default")


TOP = Gadget(
    name="top_calls",
    command=("top", "calls"),
    about=About("processes", ""),
    record=RecordLayout(
        "top_calls",
        56,
        tuple(Field(name, 8 * place, 8, _TYPES.get(name, "__u64")) for place, name in enumerate(_FIELDS)),
    ),
    columns=tuple(map(column, ("timestamp", "node", "pod", "syscall", "count", "total", "mean", "interval"))),
    kind="top",
    totals=TotalFields(sums=("count", "total"), quotients=(Quotient("mean", "total", "count"),)),
    table=TableDefaults(sort="-count"),
)


def part(
    node: str, rows: list[tuple[int, ...]], pods: dict[int, str] | None = None, at: int = 1, gadget: Gadget = TOP
) -> Batch:
    """Rows of (cgroup, syscall, count, total)."""
    data = b"".join(struct.pack("<QQQQQQQQ", 56, at, 1000, *row, 0) for row in rows)
    batch = decode(gadget, node, data)
    known = pods or {}
    containers = [UNKNOWN, *(Container("container", pod=pod) for pod in known.values())]
    codes = [list(known).index(row[0]) + 1 if row[0] in known else 0 for row in rows]
    batch.owners = Owners(np.array(codes, np.intp), containers)
    return batch


def shown(rows: Any, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(record.values()) for record in MemberRows(columns).records(rows)]


def test_rows_of_one_container_with_the_same_key_are_added_up() -> None:
    block = arrange([part("a", [(5, 1, 7, 70), (6, 1, 3, 30), (5, 2, 1, 9)], {5: "web", 6: "web"})], Arrangement())
    assert shown(block, "syscall", "count", "total", "mean") == [(1, 10, 100, 10), (2, 1, 9, 9)]


def test_rows_of_different_nodes_stay_apart_unless_they_are_added_up_by_something_else() -> None:
    parts = [part("a", [(5, 1, 7, 70)], {5: "web"}), part("b", [(5, 1, 2, 2)], {5: "web"})]
    assert shown(arrange(parts, Arrangement()), "node", "count") == [("a", 7), ("b", 2)]
    assert shown(arrange(parts, Arrangement(by=("syscall",))), "syscall", "count", "mean") == [(1, 9, 8)]


def test_two_intervals_of_one_node_make_one_of_double_length() -> None:
    block = arrange([part("a", [(5, 1, 7, 70)], at=1), part("a", [(5, 1, 2, 20)], at=2)], Arrangement())
    assert shown(block, "count", "interval") == [(9, 2000)]


def test_sums_are_exact_beyond_what_a_float_holds() -> None:
    block = arrange([part("a", [(5, 1, 2**62 + 1, 0), (6, 1, 2**62 + 2, 0)])], Arrangement())
    assert shown(block, "count") == [(2**63 + 3,)]


def test_what_all_parts_of_a_row_lack_is_unknown_and_not_zero() -> None:
    gadget = replace(TOP, agent=AgentSide(sampler="cgroups"), table=TableDefaults(sort="syscall"))
    unknown = 2**64 - 1
    rows = [(9, 1, 5, unknown), (9, 1, unknown, 20), (9, 2, 7, unknown), (9, 2, 4, unknown)]
    (first, second) = arrange([part("a", rows, gadget=gadget)], Arrangement()).parts[0].raw("total").tolist()
    assert (first, second) == (20, unknown)
    means = arrange([part("a", rows, gadget=gadget)], Arrangement()).parts[0].raw("mean").tolist()
    assert means == [4, unknown]


def test_of_a_gauge_only_the_last_interval_of_each_node_counts() -> None:
    gadget = replace(TOP, agent=AgentSide(sampler="cgroups"), totals=replace(TOP.totals, gauges=("total",)))
    parts = [
        part("a", [(9, 1, 5, 100)], at=1, gadget=gadget),
        part("a", [(9, 1, 6, 300)], at=2, gadget=gadget),
        part("b", [(9, 1, 7, 1000)], at=1, gadget=gadget),
    ]
    block = arrange(parts, Arrangement(by=("syscall",)))
    assert shown(block, "syscall", "count", "total") == [(1, 18, 1300)]


def test_rows_are_sorted_as_asked_and_the_rest_is_kept_for_the_keys() -> None:
    batch = part("a", [(5, 1, 7, 1), (5, 2, 9, 2), (5, 3, 8, 3)])
    block = arrange([batch], Arrangement(sort=("syscall",), max_rows=2))
    assert shown(block, "syscall", "count") == [(1, 7), (2, 9)]
    assert len(block.everything) == 3
    assert shown(arrange([batch], Arrangement(max_rows=1)), "count") == [(9,)]


def test_what_rows_are_added_up_by_decides_on_the_columns() -> None:
    assert shown_columns(Arrangement(by=("pod",)), TOP, with_time=True) == (
        "timestamp",
        "pod",
        "count",
        "total",
        "mean",
    )
    assert shown_columns(Arrangement(), TOP, with_time=True) == ()


@pytest.mark.parametrize("wrong", [Arrangement(sort=("-nothing",)), Arrangement(by=("count",)), Arrangement(tree=True)])
def test_what_makes_no_sense_is_refused_before_anything_starts(wrong: Arrangement) -> None:
    with pytest.raises(UsageError):
        check(wrong, [TOP])


def test_a_block_waits_for_all_nodes_but_not_for_long() -> None:
    waiting = Intervals(Arrangement(interval=1.0), once=False)
    waiting.join("a")
    waiting.join("b")
    waiting.add(part("a", [(5, 1, 7, 70)]), 0)
    waiting.end("a", 0)
    assert not len(waiting.release(100_000_000))
    assert waiting.next_release_ns() == 400_000_000
    assert shown(waiting.release(400_000_000), "count") == [(7,)]
    waiting.add(part("b", [(5, 1, 2, 20)]), 500_000_000)
    waiting.end("b", 500_000_000)
    waiting.end("a", 510_000_000)
    assert shown(waiting.release(510_000_000), "node", "count") == [("b", 2)]
    assert not len(waiting.flush())


def test_a_block_is_a_rest_when_the_end_cut_it_short_on_all_nodes_and_not_when_one_of_them_leaves() -> None:
    waiting = Intervals(Arrangement(interval=1.0), once=False)
    waiting.end("a", 0, is_rest=True)
    waiting.end("b", 0)
    leaving, going_on = waiting.release(10**12), "b"
    assert isinstance(leaving, Block)
    assert not leaving.is_rest
    waiting.end(going_on, 10**12)
    whole = waiting.release(2 * 10**12)
    assert isinstance(whole, Block)
    assert not whole.is_rest
    waiting.end(going_on, 2 * 10**12, is_rest=True)
    rest = waiting.release(3 * 10**12)
    assert isinstance(rest, Block)
    assert rest.is_rest


def test_a_snapshot_comes_when_all_has_ended() -> None:
    waiting = Intervals(Arrangement(), once=True)
    waiting.join("a")
    waiting.add(part("a", [(5, 1, 7, 70)]), 0)
    waiting.end("a", 0)
    assert not len(waiting.release(10**12))
    assert len(waiting.flush()) == 1


def test_parts_of_a_long_run_are_added_up_in_between_and_the_result_is_the_same() -> None:
    parts = [part("a", [(5, 1, 7, 70), (6, 1, 1, 1)], {5: "web", 6: "web"}, at=at) for at in range(600)]
    waiting = Intervals(Arrangement(), once=True)
    for each in parts:
        waiting.add(each, 0)
    found = waiting.flush()
    assert shown(found, "count", "interval") == shown(arrange(parts, Arrangement()), "count", "interval")
    assert shown(found, "count", "interval") == [(600 * 8, 600 * 1000)]


def test_a_filter_on_sums_sees_them_whole_and_the_rest_of_it_sees_what_was_sent() -> None:
    first, of_sums = compile_filter('pod == "web" && count > 8', [TOP]).divided(added_up_members(TOP))
    assert first is not None
    assert of_sums is not None
    batch = part("a", [(5, 1, 7, 70), (6, 1, 3, 30), (7, 1, 9, 90)], {5: "web", 6: "web", 7: "db"})
    assert shown(arrange([first.select(batch)], Arrangement(), of_sums), "pod", "count") == [("web", 10)]


# Captures: each is a block of its own, in the order in which its calls were made.


FIELDS = (*OPEN.record.fields, Field("number", 80, 4, "__u32"))
RECORDED = replace(OPEN, record=RecordLayout("recorded", SIZE, FIELDS))


def recording(*numbers: int) -> Batch:
    return decode(RECORDED, "node-1", ring(*(record(fd=number) for number in numbers)))


def numbers(rows: Rows) -> list[int]:
    return rows.collect(lambda batch: batch.raw("fd").tolist())


def test_each_recording_is_one_block_in_the_order_of_its_numbers() -> None:
    captures = Captures()
    captures.add(recording(9, 7, 8), 0)
    captures.add(recording(2, 1), 0)
    assert captures.next_release_ns() == 0
    first, second = captures.release(0), captures.release(0)
    assert isinstance(first, Block)
    assert (numbers(first), numbers(second)) == ([7, 8, 9], [1, 2])
    assert captures.release(0) is NO_ROWS
    assert captures.next_release_ns() is None


def test_what_is_left_at_the_end_is_shown() -> None:
    captures = Captures()
    captures.add(recording(3), 0)
    captures.add(recording(), 0)
    assert numbers(captures.flush()) == [3]
    assert captures.flush() is NO_ROWS
