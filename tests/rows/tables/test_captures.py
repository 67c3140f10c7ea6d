"""Captures: each is a block of its own, in the order in which its calls were made."""

from dataclasses import replace

from kubectl_gadget.gadgets.schema import Field, RecordLayout
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.rows import NO_ROWS, Rows
from kubectl_gadget.rows.tables.aggregation import Block
from kubectl_gadget.rows.tables.captures import Captures
from tests.rows.records import OPEN, SIZE, record, ring

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
