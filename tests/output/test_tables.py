"""Widths of texts and of columns."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.columns import Heading
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.tables import GAP, cut, fit, fitting, pad, text_width, widest
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.rows import Rows
from tests.output.test_output_formats import rows
from tests.rows.records import OPEN, record

HEADINGS = [Heading("pid", "PID", 7, "right"), Heading("pod", "POD", 10), Heading("path", "PATH", 20, stretch=True)]


def test_east_asian_text_takes_two_cells_a_character() -> None:
    assert text_width("日本") == 4
    assert widest(["ab", "日本", "é"]) == 4


def test_what_is_cut_ends_with_an_ellipsis_and_fits() -> None:
    assert cut("/etc/passwd", 6) == "/etc/…"
    assert cut("/etc", 6) == "/etc"
    assert cut("日本語", 4) == "日…"


@given(st.text(alphabet="ab日é…", max_size=20), st.integers(1, 20))
def test_a_cut_text_never_takes_more_cells(text: str, width: int) -> None:
    assert text_width(cut(text, width)) <= width


def test_padding_counts_cells() -> None:
    assert pad("日", 4, "left") == "日  "
    assert pad("7", 3, "right") == "  7"


def test_what_is_left_over_goes_to_the_columns_that_stretch() -> None:
    assert fit(HEADINGS, [0, 0, 0], 80) == [7, 10, 80 - 17 - 2 * len(GAP)]


def test_columns_that_stretch_give_way_first() -> None:
    assert fit(HEADINGS, [7, 10, 90], 35) == [7, 10, 14]


def test_other_columns_give_way_next() -> None:
    assert fit(HEADINGS, [7, 10, 30], 30) == [7, 7, 12]


def test_blanks_are_taken_before_anything_is_cut() -> None:
    assert fit(HEADINGS, [3, 10, 30], 30) == [3, 10, 13]


def test_a_column_with_long_values_takes_what_is_left_over() -> None:
    assert fit(HEADINGS, [0, 30, 0], 80)[1] == 30


@given(st.integers(8, 300), st.lists(st.integers(0, 100), min_size=3, max_size=3))
def test_a_table_always_fits_its_terminal(width: int, seen: list[int]) -> None:
    widths = fit(HEADINGS, seen, width)
    assert sum(widths) + 2 * len(GAP) <= width
    assert min(widths) >= 1


@given(st.integers(8, 300), st.lists(st.integers(1, 100), min_size=3, max_size=3))
def test_a_table_that_wraps_cuts_no_number_and_keeps_names_distinct(width: int, seen: list[int]) -> None:
    pid, pod, path = fit(HEADINGS, seen, width, wraps=True)
    assert pid >= min(seen[0], 7)
    assert pod >= min(seen[1], 10)
    assert path >= 12
    if min(seen[0], 7) <= pid and sum(map(max, seen, (7, 10, 12))) + 2 * len(GAP) <= width:
        assert pid + pod + path + 2 * len(GAP) <= width


def test_a_line_that_wraps_anyway_fills_the_next_one_before_anything_is_cut() -> None:
    assert fit(HEADINGS, [7, 20, 30], 40, wraps=True) == [7, 10, 19]
    assert fit(HEADINGS, [7, 20, 30], 32, wraps=True) == [7, 20, 64 - 27 - 2 * len(GAP)]


def test_what_is_to_be_whole_makes_a_line_wrap_before_it_is_cut() -> None:
    wide = [HEADINGS[0], replace(HEADINGS[1], width=20), HEADINGS[2]]
    whole = [wide[0], replace(wide[1], whole=True), wide[2]]
    assert fit(wide, [7, 20, 30], 35, wraps=True) == [7, 12, 12]
    assert fit(whole, [7, 20, 30], 35, wraps=True) == [7, 20, 70 - 27 - 2 * len(GAP)]


def names(found: Sequence[Heading]) -> list[str]:
    return [heading.name for heading in found]


def test_columns_that_have_no_room_are_left_out_from_the_end_but_for_one() -> None:
    whole = 7 + 10 + 12 + 2 * len(GAP)
    assert names(fitting(HEADINGS, whole)) == ["pid", "pod", "path"]
    assert names(fitting(HEADINGS, whole - 1)) == ["pid", "pod"]
    assert names(fitting(HEADINGS, 1)) == ["pid"]


def test_columns_that_matter_less_are_left_out_first_and_what_is_sorted_by_stays() -> None:
    whole = 7 + 10 + 12 + 2 * len(GAP)
    assert names(fitting(HEADINGS, whole - 1, ["pid", "pod"])) == ["pod", "path"]
    assert names(fitting(HEADINGS, whole - 1, ["pid", "pod"], keep="pid")) == ["pid", "path"]
    assert names(fitting(HEADINGS, 1, ["pid", "pod"], keep="path")) == ["path"]


ESCAPE = re.compile("\x1b\\[[0-9;]*m")


def table(*batches: Rows, width: int | None = None, **options: object) -> str:
    """What is printed; on a terminal of that width, or into a pipe."""
    stream = io.StringIO()
    terminal = None if width is None else Terminal(lambda: width, color=True)
    sink = make_sink(OutputOptions(**options), [OPEN], stream, terminal=terminal)  # type: ignore[arg-type]
    sink.start()
    for batch in batches:
        sink.write(batch)
    sink.close()
    return stream.getvalue()


def test_a_pipe_gets_the_header_once_and_aligned_rows() -> None:
    text = table(rows(record(cgroup=7)), rows(record(cgroup=7, errno=2, fd=-1, path=b"/nope")))
    assert text == (
        "NODE          NAMESPACE  POD           CONTAINER         PID  COMM              FD  ERR     PATH\n"
        "node-1        default    xwing         ship                1  vi                 3  0       /etc/passwd\n"
        "node-1        default    xwing         ship                1  vi                 -  ENOENT  /nope\n"
    )


def test_a_pipe_gets_nothing_cut_and_no_escape_codes() -> None:
    path = b"/" + b"x" * 500
    text = table(rows(record(path=path)))
    assert path.decode() in text
    assert "\x1b" not in text


def test_a_column_in_a_pipe_grows_with_its_values() -> None:
    text = table(rows(record(comm=b"exactly16chars!!", path=b"/a")), columns=("comm", "path"))
    assert text == "COMM              PATH\nexactly16chars!!  /a\n"


def test_every_line_fits_the_terminal() -> None:
    long = rows(record(cgroup=7, path=b"/" + b"x" * 500), record(path="/日本語".encode() * 40))
    for width in (80, 200):
        for line in table(long, width=width, color="never").splitlines():
            assert len(line) <= width
    assert "…" in table(long, width=80)


def test_a_stream_leaves_out_what_says_least_on_a_narrow_terminal_unless_asked_for_it() -> None:
    def titles(width: int, gadget: str = "trace_tcp", **options: object) -> list[str]:
        stream, terminal = io.StringIO(), Terminal(lambda: width)
        sink = make_sink(OutputOptions(**options), [load_gadget(gadget)], stream, terminal=terminal)  # type: ignore[arg-type]
        sink.close()
        (line,) = stream.getvalue().splitlines()
        assert width < 200 or len(line) <= width
        return line.split()

    asked = ("node", "container", "local", "remote", "sent", "received", "namespace", "comm", "duration")
    assert titles(80) == ["POD", "PID", "COMM", "OP", "ERR", "REMOTE", "PORT", "DURATION"]
    assert {"NODE", "CONTAINER", "LOCAL", "SENT"} <= set(titles(200))
    assert {"NODE", "CONTAINER", "LOCAL", "SENT"} <= set(titles(80, format="wide"))
    assert len(titles(80, columns=asked)) == len(asked)
    assert "NODE" not in titles(80, "trace_open")


def test_lines_wrap_where_a_number_or_a_name_would_be_cut_to_nothing() -> None:
    line = table(rows(record(pid=1234567)), width=30, color="never").splitlines()[-1]
    assert len(line) > 30
    assert "1234567" in line.split()


def test_a_resize_is_followed_with_a_new_header() -> None:
    stream, size = io.StringIO(), [100]
    sink = make_sink(OutputOptions(color="never"), [OPEN], stream, terminal=Terminal(lambda: size[0]))
    sink.write(rows(record()))
    size[0] = 70
    sink.write(rows(record()))
    sink.write(rows(record()))
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["NODE", "node-1", "NODE", "node-1", "node-1"]
    assert max(map(len, lines[2:])) <= 70


def test_pods_have_stable_colours_and_errors_are_red() -> None:
    text = table(rows(record(cgroup=7, errno=2), record(cgroup=7)), width=100)
    lines = text.splitlines()
    assert "\x1b[31mENOENT" in lines[1]
    assert "\x1b[31m" not in lines[2]
    colours = {ESCAPE.findall(line)[0] for line in lines[1:]}
    assert len(colours) == 1
    assert ESCAPE.sub("", text) == table(rows(record(cgroup=7, errno=2), record(cgroup=7)), width=100, color="never")


def test_colour_can_be_forced_into_a_pipe_without_cutting() -> None:
    text = table(rows(record(cgroup=7, path=b"/" + b"x" * 300)), color="always")
    assert "\x1b[" in text
    assert "x" * 300 in text


def test_hostile_text_is_escaped() -> None:
    text = table(rows(record(path=b"/\x1b]0;x\x07\nfake row", comm=b"\xe2\x80\xae")), width=200, color="never")
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert "\\x1b]0;x\\x07\\nfake row" in text
    assert "\\u202e" in text


def test_the_header_can_be_left_out() -> None:
    assert "PATH" not in table(rows(record()), no_headers=True)
    assert table(no_headers=True) == ""


def test_a_table_without_rows_is_its_header() -> None:
    assert table().split() == ["NODE", "NAMESPACE", "POD", "CONTAINER", "PID", "COMM", "FD", "ERR", "PATH"]
    assert table(width=80).count("\n") == 1


def test_wide_has_the_wide_columns() -> None:
    assert table(format="wide").split()[-6:] == ["TIMESTAMP", "UID", "FLAGS", "MODE", "RESOLVED", "ARGS"]
