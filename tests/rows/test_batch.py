"""Ring buffer bytes to columns."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.errors import FrameError
from kubectl_gadget.gadgets.schema import About, Field, Gadget, RecordLayout
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.members import filter_members
from tests.rows.records import OPEN, SIZE, record, ring

U32 = st.integers(0, 2**32 - 1)
NAMES = st.binary(max_size=60).filter(lambda data: b"\0" not in data)


def read(batch: Batch, name: str) -> list[object]:
    """The values of one member."""
    return filter_members(OPEN)[name].read(batch).values()


def test_fixed_fields_come_back_as_they_were_written() -> None:
    batch = decode(OPEN, "node-1", ring(record(pid=7, timestamp=2**63), record(pid=8, errno=2, fd=-1)))
    assert batch.raw("pid").tolist() == [7, 8]
    assert batch.raw("timestamp").tolist() == [2**63, 0]
    assert batch.raw("fd").tolist() == [3, -1]
    assert batch.raw("comm").tolist() == [b"vi", b"vi"]


def test_discarded_records_are_passed_over() -> None:
    data = ring(record(pid=1), record(pid=2), bytes(8), record(pid=3), discarded=(0, 2))
    assert decode(OPEN, "node-1", data).raw("pid").tolist() == [2, 3]


def test_no_bytes_are_no_rows() -> None:
    assert len(decode(OPEN, "node-1", b"")) == 0
    assert decode(OPEN, "node-1", ring(record(), discarded=(0,))).raw("pid").tolist() == []


@given(st.lists(st.tuples(U32, NAMES, NAMES | st.none(), st.lists(NAMES, max_size=4)), max_size=20))
def test_what_is_encoded_is_decoded(rows: list[tuple[int, bytes, bytes | None, list[bytes]]]) -> None:
    data = ring(*(record(pid=pid, comm=comm[:15], path=path, args=args) for pid, comm, path, args in rows))
    batch = decode(OPEN, "node-1", data)
    assert batch.raw("pid").tolist() == [pid for pid, _, _, _ in rows]
    assert batch.raw("comm").tolist() == [comm[:15] for _, comm, _, _ in rows]
    spans = batch.spans(OPEN.record.field("path"))
    found = [
        bytes(batch.buffer.bytes[start : start + length]) if ok else None
        for start, length, ok in zip(spans.starts, spans.lengths, spans.readable, strict=True)
    ]
    assert found == [path for _, _, path, _ in rows]
    expected = [[arg.decode("utf-8", "replace") for arg in args] for _, _, _, args in rows if _is_utf8(args)]
    actual = [value for value, (_, _, _, args) in zip(read(batch, "args"), rows, strict=True) if _is_utf8(args)]
    assert actual == expected


def _is_utf8(args: list[bytes]) -> bool:
    try:
        return all(arg.decode() is not None for arg in args)
    except UnicodeDecodeError:
        return False


@given(
    st.binary(max_size=400) | st.lists(st.integers(0, 200), max_size=40).map(lambda n: struct.pack(f"<{len(n)}Q", *n))
)
def test_random_bytes_give_rows_or_an_error_that_names_the_node(data: bytes) -> None:
    try:
        batch = decode(OPEN, "node-1", data)
    except FrameError as error:
        message = str(error)
    else:
        message = "node-1: trace_open: "
        for member in filter_members(OPEN).values():
            assert len(member.read(batch).values()) == len(batch)
    assert message.startswith("node-1: trace_open: ")


@given(st.binary(min_size=SIZE, max_size=SIZE + 64))
def test_a_record_of_random_bytes_is_read_whole_or_refused(content: bytes) -> None:
    try:
        batch = decode(OPEN, "node-1", ring(content))
    except FrameError:
        return
    for member in filter_members(OPEN).values():
        assert len(member.read(batch).values()) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (ring(record())[:-8], "the last record ends at byte"),
        (ring(record()) + b"\0", "are not a multiple of 8"),
        (ring(bytes(16)), "a record of 16 bytes; it should have at least 112"),
        (struct.pack("<II", len(record()) | 1 << 31, 0) + ring(record())[8:], "before the program had finished it"),
        (ring(record()[: SIZE - 16] + struct.pack("<HH", SIZE, 200) + bytes(12)), "the text of path reaches beyond"),
    ],
)
def test_broken_lengths_are_errors(data: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        decode(OPEN, "node-1", data)


def test_selected_rows_keep_their_owners_and_their_order() -> None:
    batch = decode(OPEN, "node-1", ring(*(record(pid=pid) for pid in range(5))))
    assert batch.select(np.array([3, 1])).raw("pid").tolist() == [3, 1]
    assert batch.select(batch.raw("pid") > 2).raw("pid").tolist() == [3, 4]


def test_few_rows_of_a_large_buffer_can_leave_it() -> None:
    rows = [record(pid=pid, path=b"/file%d" % pid) for pid in range(100)]
    batch = decode(OPEN, "node-1", ring(*rows)).select(np.array([90, 5]))
    small = batch.compacted()
    assert small.buffer.bytes.nbytes < 400
    assert read(small, "path") == ["/file90", "/file5"]
    assert small.compacted() is small


def test_rows_leave_a_buffer_without_an_index_of_each_byte() -> None:
    rows = [record(pid=pid, path=b"/file%d" % pid) for pid in range(10_000)]
    batch = decode(OPEN, "node-1", ring(*rows)).select(np.arange(0, 10_000, 3))
    tracemalloc.start()
    small = batch.compacted()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * small.buffer.bytes.nbytes
    assert read(small, "path")[:2] == ["/file0", "/file3"]


def test_fields_that_are_not_aligned_are_read() -> None:
    fields = (Field("a", 1, 4, "__u32"), Field("b", 5, 2, "__s16", True), Field("name", 7, 5, "char[5]"))
    gadget = Gadget("x", ("x",), About("", ""), RecordLayout("x", 12, fields), ())
    batch = decode(gadget, "node-1", ring(struct.pack("<BIh5s", 0, 2**32 - 1, -2, b"abc")))
    assert batch.raw("a").tolist() == [2**32 - 1]
    assert batch.raw("b").tolist() == [-2]
    assert batch.raw("name").tolist() == [b"abc"]


def test_bytes_at_an_odd_address_are_read() -> None:
    data = memoryview(b"x" + ring(record(pid=9)))[1:]
    assert decode(OPEN, "node-1", data).raw("pid").tolist() == [9]
