"""The table of a stream."""

import io
import re

from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.output_options import OutputOptions
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.rows import Rows
from tests.output.test_output_formats import rows
from tests.rows.records import OPEN, record

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
