"""Rows written by views are read as those of the kernel are."""

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter
from tests.rows.records import OPEN, record

HEAD = record(cgroup=7, pid=42, comm=b"vi")[:80]


def rows(writer: RowWriter) -> list[dict[str, object]]:
    return MemberRows().records(Rows([decode(OPEN, "node", writer.take())]))


@given(st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.text(max_size=50), st.lists(st.text(min_size=1)))))
def test_what_is_written_is_read(values: list[tuple[int, str, list[str]]]) -> None:
    writer = RowWriter(OPEN.record)
    for fd, path, args in values:
        writer.add(HEAD, 5, {"fd": fd, "path": path, "args": args})
    told = [(row["fd"], row["path"], row["args"], row["pid"], row["comm"]) for row in rows(writer)]
    clean = [(fd, path, [arg.replace("\0", "\ufffd") for arg in args], 42, "vi") for fd, path, args in values]
    assert told == clean


def test_what_is_not_named_is_zero_or_absent() -> None:
    writer = RowWriter(OPEN.record)
    writer.add(HEAD, 5, {"path": None})
    (row,) = rows(writer)
    assert (row["fd"], row["path"], row["args"]) == (0, None, None)
    assert row["timestamp"] == "1970-01-01T00:00:00.000000005Z"


def test_texts_that_do_not_fit_are_cut_and_marked() -> None:
    writer = RowWriter(OPEN.record)
    writer.add(HEAD, 5, {"path": "a" * 40000, "args": ["b" * 20000, "c" * 20000], "resolved": b"d\0"})
    (row,) = rows(writer)
    assert (len(str(row["path"])), row["path_cut"], row["args_cut"]) == (0x7FFF, True, True)


def test_taking_rows_takes_them_away() -> None:
    writer = RowWriter(OPEN.record)
    writer.add(HEAD, 5, {})
    assert len(rows(writer)) == 1
    assert writer.take() == b""
