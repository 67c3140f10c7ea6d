"""The table that is drawn again in the same place, and its keys."""

from collections.abc import Sequence
from io import StringIO
from typing import TextIO

import numpy as np
import pytest

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output import live
from kubectl_gadget.output.columns import Heading, choose_columns, headings
from kubectl_gadget.output.live import LiveColumns, LiveTable
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.tables import BlockTable, TableSink, fitting
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.tables import arrange
from tests.messages import changes
from tests.rows.test_no_rows import rows_of
from tests.rows.test_tables import TOP, part

ABOUT = {
    "file": ("pod", "read_bytes", "written_bytes", "path"),
    "tcp": ("pod", "comm", "remote", "sent", "received"),
    "udp": ("pod", "comm", "remote", "sent", "received"),
    "blockio": ("pod", "container", "disk", "read_bytes", "written_bytes", "total"),
    "process": ("pod", "pid", "comm", "cpu", "memory"),
    "syscalls": ("pod", "syscall", "count", "errors", "total", "mean"),
    "pod": ("pod", "cpu", "memory", "read_bytes", "written_bytes", "sent", "received"),
    "bpf": ("node", "pod", "program", "ours", "runs", "run_time", "cpu"),
    "flow": ("pod", "direction", "protocol", "remote", "port", "sent", "received"),
}
NAMES = ("pod", "syscall", "count")
TERMINAL = Terminal(lambda: 100, False, lambda: 9)


def table(stream: TextIO) -> TableSink:
    return TableSink(stream, headings([TOP], NAMES), terminal=TERMINAL)


def block(counts: Sequence[int]) -> Rows:
    return arrange([part("a", [(5, number, count, 1) for number, count in enumerate(counts)])], Arrangement())


def live_table(stream: TextIO, max_rows: int | None = None) -> LiveTable:
    return LiveTable(stream, table, TERMINAL, TOP, NAMES, Arrangement(sort=("-count",), max_rows=max_rows))


def numbers(stream: StringIO) -> list[int]:
    lines = stream.getvalue().rsplit("SYSCALL", 1)[1].replace("\x1b[K", "").splitlines()[1:-1]
    return [int(line.split()[-1]) for line in lines if line.split() and line.split()[-1].isdecimal()]


def test_each_block_is_drawn_over_the_one_before() -> None:
    stream = StringIO()
    sink = live_table(stream)
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
    live_table(stream).write_block(block(list(range(1, 40))))
    assert numbers(stream) == [39, 38, 37, 36, 35, 34]


def test_keys_turn_the_order_and_change_what_is_sorted_by() -> None:
    stream = StringIO()
    sink = live_table(stream)
    sink.write_block(block([3, 5, 4]))
    assert numbers(stream) == [5, 4, 3]
    sink.key("r")
    assert numbers(stream) == [3, 4, 5]
    sink.key("<")
    assert numbers(stream) == [3, 5, 4]


def test_a_filter_is_typed_and_taken_back() -> None:
    stream = StringIO()
    sink = live_table(stream)
    sink.write_block(block([3, 5, 4]))
    for key in "fcount > 3x\x7f\r":
        sink.key(key)
    assert numbers(stream) == [5, 4]
    for key in "f" + "\x7f" * 9 + "\r":
        sink.key(key)
    assert numbers(stream) == [5, 4, 3]


def test_a_wrong_filter_is_reported_and_can_be_corrected() -> None:
    stream = StringIO()
    sink = live_table(stream)
    sink.write_block(block([3, 5]))
    for key in "fcuont > 3\r":
        sink.key(key)
    assert "cuont" in stream.getvalue().splitlines()[-2]
    sink.key("\x1b")
    assert numbers(stream) == [5, 3]


def test_nothing_moves_while_it_is_paused() -> None:
    stream = StringIO()
    sink = live_table(stream)
    sink.write_block(block([3]))
    sink.key("p")
    sink.write_block(block([8]))
    assert numbers(stream) == [3]
    sink.key("p")
    sink.write_block(block([9]))
    assert numbers(stream) == [9]


def test_q_ends_the_run() -> None:
    ended: list[bool] = []
    sink = live_table(StringIO())
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
    sink = make_sink(
        OutputOptions(arrangement=Arrangement(sort=("-count",))),
        [TOP],
        stream,
        terminal=Terminal(lambda: width, False, lambda: 9),
    )
    sink.write_block(block([3]))
    narrow = stream.getvalue()
    assert "SYSCALL" not in narrow
    assert "COUNT" in narrow, "it is sorted by that"
    assert " more columns" in narrow
    width = 200
    sink.write_block(block([4]))
    wide = stream.getvalue()[len(narrow) :]
    assert "SYSCALL" in wide
    assert "columns" not in wide


def test_the_keys_have_a_line_of_their_own_where_one_has_no_room_for_all() -> None:
    stream = StringIO()
    narrow = Terminal(lambda: 50, False, lambda: 9)
    LiveTable(stream, table, narrow, TOP, NAMES, Arrangement(sort=("-count",))).write_block(block(list(range(1, 40))))
    lines = stream.getvalue().replace("\r", "").removesuffix("\n\x1b[J").split("\n")
    assert "q quit" in lines[-1]
    assert "sort: -count" in lines[-2]
    assert all(len(line.removesuffix("\x1b[K")) < 50 for line in lines)
    assert len(lines) == 8, "the last of nine is where the cursor is"


def typed(sink: LiveTable, text: str) -> None:
    for key in text:
        sink.key(key)


def last_drawn(stream: StringIO) -> str:
    return stream.getvalue().rpartition("A\r")[2].replace("\x1b[K", "").replace("\r", "")


def test_a_filter_is_edited_as_in_a_shell() -> None:
    stream = StringIO()
    sink = live_table(stream)
    sink.write_block(block([3, 5]))
    typed(sink, "fcount > 3 && nope")
    assert "filter: count > 3 && nope_" in last_drawn(stream)
    typed(sink, "\x17\x17")
    assert "filter: count > 3_" in last_drawn(stream)
    typed(sink, "\x15")
    assert "filter: _" in last_drawn(stream)
    typed(sink, "count > 3\r")
    assert numbers(stream) == [5]
    sink.key("\x1b")
    assert numbers(stream) == [5, 3]
    assert "filter:" not in last_drawn(stream)


def test_a_wrong_filter_says_what_was_meant() -> None:
    stream = StringIO()
    sink = live_table(stream)
    sink.write_block(block([3]))
    typed(sink, "fcount = 3\r")
    assert "CEL writes == for equal. try: 'count == 3'" in last_drawn(stream)


def test_the_help_of_the_keys_fits_80_columns() -> None:
    assert max(map(len, live.HELP_LINES)) <= 80


def test_h_explains_the_keys_until_the_next_one() -> None:
    stream = StringIO()
    sink = live_table(stream)
    sink.write_block(block([3]))
    for key in "h?":
        sink.key(key)
        assert "reverse the order" in last_drawn(stream)
        assert "Ctrl-U clears it" in last_drawn(stream)
        sink.key("x")
        assert "reverse the order" not in last_drawn(stream)
        assert "h help" in last_drawn(stream)
    ended = list[int]()
    sink.quit = lambda: ended.append(1)
    typed(sink, "hq")
    assert ended == [1]


def columns_of(width: int, *moments: dict[str, Sequence[str]]) -> list[str]:
    """What a table of these columns shows on that many cells after those moments. Each takes about 10 cells."""
    named = [Heading(name, name.upper(), 10, "right") for name in moments[0]]
    keys, narrow = ("node", "pod", "container"), ("sent", "container", "node")
    shown = LiveColumns(named, keys, narrow, lambda _, name: moment[name])
    for moment in moments:
        shown.look(block(list(range(1, 1 + len(moment["pod"])))))
    return [heading.name for heading in shown.fitting(width, "cpu")]


POD = {"node": ["n1", "n1"], "pod": ["a", "b"], "container": ["x", "x"], "cpu": ["1", "2"], "stalls": ["-", "-"]}


def test_empty_columns_go_first() -> None:
    full = POD | {"sent": ["1", "1"]}
    assert columns_of(60, full) == ["node", "pod", "container", "cpu", "sent"]
    assert columns_of(46, full) == ["node", "pod", "container", "cpu"]
    assert columns_of(35, full) == ["node", "pod", "cpu"]


def test_what_distinguishes_rows_goes_last() -> None:
    full = POD | {"stalls": ["3", "3"], "sent": ["1", "1"]}
    assert columns_of(46, full) == ["node", "pod", "cpu", "stalls"]
    assert columns_of(24, full) == ["pod", "cpu"]
    containers = full | {"pod": ["a", "a"], "container": ["x", "y"]}
    assert columns_of(46, containers) == ["pod", "container", "cpu", "stalls"]
    assert columns_of(24, containers) == ["container", "cpu"]
    nodes = full | {"pod": ["-", "-"], "container": ["-", "-"], "node": ["n1", "n2"]}
    assert columns_of(24, nodes) == ["node", "cpu"]


def test_columns_do_not_come_and_go_with_the_rows() -> None:
    full = POD | {"stalls": ["3", "3"], "sent": ["1", "1"]}
    containers = full | {"pod": ["a", "a"], "container": ["x", "y"]}
    assert columns_of(46, containers, full, full | {"stalls": ["-", "-"]}) == ["pod", "container", "cpu", "stalls"]


@pytest.mark.parametrize(
    "unknown", [(), ("throttled", "cpu_stalled", "memory", "read_bytes", "written_bytes", "processes")]
)
def test_at_80_columns_top_pod_distinguishes_the_containers_of_a_pod(unknown: Sequence[str]) -> None:
    gadget = load_gadget("top_pod")
    stream = StringIO()
    terminal = Terminal(lambda: 80, False, lambda: 24)
    sink = make_sink(OutputOptions(arrangement=Arrangement(sort=("-cpu",))), [gadget], stream, terminal=terminal)
    batch = rows_of(gadget, [b"\x01", b"\x02"])
    names = {"namespace": "default", "pod": "xwing", "kind": "container"}
    containers = [{"id": name, "container": name, **names} for name in ("ship", "droid")]
    cgroups = dict(zip(map(str, batch.cgroups().tolist()), ("ship", "droid"), strict=True))
    identity = Identity("node-1")
    identity.apply(changes({"containers": containers, "cgroups": cgroups}), 0.0)
    batch.name_owners(identity.lookup)
    for column in unknown:
        batch.give(column, np.array([2**64 - 1] * 2, np.uint64))
    sink.write_block(Rows([batch]))
    header = stream.getvalue().replace("\x1b[K", "").replace("\r", "").splitlines()[0]
    assert {"CONTAINER", "CPU"} <= set(header.split())
    assert len(header) <= 80
    titles = {column.name: column.title for column in gadget.columns}
    assert not {titles[name] for name in unknown} & set(header.split())


@pytest.mark.parametrize("command", ["file", "tcp", "udp", "blockio", "process", "syscalls", "pod", "bpf", "flow"])
def test_at_80_columns_a_table_keeps_what_it_is_about(command: str) -> None:
    gadget = load_gadget(f"top_{command}")
    names = choose_columns([gadget], (), "default")
    order = gadget.table.sort.split(",")[0].removeprefix("-")
    shown = [heading.name for heading in fitting(headings([gadget], names), 80, gadget.table.narrow, order)]
    assert set(shown) >= {order, *ABOUT[command]}


def test_a_moment_before_the_end_in_which_nothing_happened_has_no_header() -> None:
    stream = StringIO()
    sink = BlockTable(stream, lambda to: TableSink(to, headings([TOP], NAMES)), once=False)
    sink.write_block(block([3]))
    rest = arrange([], Arrangement())
    rest.is_rest = True
    sink.write_block(rest)
    assert stream.getvalue().count("SYSCALL") == 1
    sink.write_block(arrange([], Arrangement()))
    assert stream.getvalue().count("SYSCALL") == 2, "a whole interval without rows is told"
