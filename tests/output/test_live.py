"""The table that is drawn again in the same place, and its keys."""

from collections.abc import Sequence
from io import StringIO
from typing import TextIO

from kubectl_gadget.events.rows import Rows
from kubectl_gadget.output.blocks import BlockTable
from kubectl_gadget.output.formats import make_sink
from kubectl_gadget.output.live import LiveTable
from kubectl_gadget.output.options import OutputOptions
from kubectl_gadget.output.table import TableSink
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.views.arrange import arrange
from kubectl_gadget.views.arrangement import Arrangement
from kubectl_gadget.views.columns import headings
from tests.views.test_arrange import TOP, part

NAMES = ("pod", "syscall", "count")
TERMINAL = Terminal(lambda: 60, False, lambda: 9)


def table(stream: TextIO) -> TableSink:
    return TableSink(stream, headings([TOP], NAMES), terminal=TERMINAL)


def block(counts: Sequence[int]) -> Rows:
    return arrange([part("a", [(5, number, count, 1) for number, count in enumerate(counts)])], Arrangement())


def live(stream: TextIO, max_rows: int | None = None) -> LiveTable:
    return LiveTable(stream, table, TERMINAL, TOP, NAMES, ("-count",), max_rows)


def numbers(stream: StringIO) -> list[int]:
    lines = stream.getvalue().rsplit("SYSCALL", 1)[1].replace("\x1b[K", "").splitlines()[1:-1]
    return [int(line.split()[-1]) for line in lines if line.split() and line.split()[-1].isdecimal()]


def test_each_block_is_drawn_over_the_one_before() -> None:
    stream = StringIO()
    sink = live(stream)
    sink.write_block(block([3, 5]))
    assert "\x1b[?1049h" not in stream.getvalue()
    assert "A\r" not in stream.getvalue()
    sink.write_block(block([4]))
    # The header, two rows and the line about keys.
    assert "\x1b[4A\r" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[J")
    assert numbers(stream) == [4]


def test_no_more_rows_are_drawn_than_the_terminal_has_room_for() -> None:
    stream = StringIO()
    live(stream).write_block(block(list(range(1, 40))))
    assert numbers(stream) == [39, 38, 37, 36, 35, 34]


def test_keys_turn_the_order_and_change_what_is_sorted_by() -> None:
    stream = StringIO()
    sink = live(stream)
    sink.write_block(block([3, 5, 4]))
    assert numbers(stream) == [5, 4, 3]
    sink.key("r")
    assert numbers(stream) == [3, 4, 5]
    sink.key("<")
    assert numbers(stream) == [3, 5, 4]


def test_a_filter_is_typed_and_taken_back() -> None:
    stream = StringIO()
    sink = live(stream)
    sink.write_block(block([3, 5, 4]))
    for key in "fcount > 3x\x7f\r":
        sink.key(key)
    assert numbers(stream) == [5, 4]
    for key in "f" + "\x7f" * 9 + "\r":
        sink.key(key)
    assert numbers(stream) == [5, 4, 3]


def test_a_wrong_filter_is_told_and_can_be_corrected() -> None:
    stream = StringIO()
    sink = live(stream)
    sink.write_block(block([3, 5]))
    for key in "fcuont > 3\r":
        sink.key(key)
    assert "cuont" in stream.getvalue().splitlines()[-2]
    sink.key("\x1b")
    assert numbers(stream) == [5, 3]


def test_nothing_moves_while_it_is_paused() -> None:
    stream = StringIO()
    sink = live(stream)
    sink.write_block(block([3]))
    sink.key("p")
    sink.write_block(block([8]))
    assert numbers(stream) == [3]
    sink.key("p")
    sink.write_block(block([9]))
    assert numbers(stream) == [9]


def test_q_ends_the_run() -> None:
    ended: list[bool] = []
    sink = live(StringIO())
    sink.quit = lambda: ended.append(True)
    sink.key("q")
    assert ended == [True]


def test_in_a_pipe_each_block_has_its_header_and_an_empty_line_between() -> None:
    stream = StringIO()
    sink = BlockTable(stream, lambda to: TableSink(to, headings([TOP], NAMES)), once=False)
    sink.write_block(block([3]))
    sink.write_block(block([4, 5]))
    sink.close()
    lines = stream.getvalue().split("\n")
    assert [bool(line.strip()) for line in lines] == [True, True, False, True, True, True, False]
    assert "\x1b" not in stream.getvalue()


def test_a_snapshot_of_nothing_is_a_header() -> None:
    stream = StringIO()
    BlockTable(stream, lambda to: TableSink(to, headings([TOP], NAMES)), once=True).close()
    assert stream.getvalue().split() == ["POD", "SYSCALL", "COUNT"]


def test_columns_that_a_narrow_terminal_has_no_room_for_are_left_out_and_counted() -> None:
    stream = StringIO()
    width = 30
    sink = make_sink(OutputOptions(), [TOP], stream, terminal=Terminal(lambda: width, False, lambda: 9))
    sink.write_block(block([3]))
    narrow = stream.getvalue()
    assert "COUNT" not in narrow
    assert " columns" in narrow
    width = 200
    sink.write_block(block([4]))
    wide = stream.getvalue()[len(narrow) :]
    assert "COUNT" in wide
    assert "columns" not in wide
