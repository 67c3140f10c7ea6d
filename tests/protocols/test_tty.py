"""View tty: pieces become lines, of one process and terminal each, and nothing is kept for ever."""

from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.gadgets.load import read_gadget
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.tty import Tty
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.views import RowWriter
from tests.protocols.sent import read

SECOND = 10**9
OUTPUT, INPUT = 1, 2


@pytest.fixture(scope="module")
def gadget(catalogue_built: Path) -> Gadget:
    return read_gadget(catalogue_built / "gadgets" / "trace_tty.json")


def pieces(gadget: Gadget, *texts: bytes | dict[str, Any]) -> Batch:
    assert gadget.sent is not None
    writer = RowWriter(gadget.sent)
    for number, text in enumerate(texts):
        given = text if isinstance(text, dict) else {"text": text}
        values = {"pid": 42, "terminal": b"pts0", "direction": OUTPUT, "bytes": len(given.get("text") or b"")} | given
        writer.add(b"", values.pop("timestamp", number), values)
    return decode(gadget.as_sent(), "node", writer.take())


def texts(gadget: Gadget, data: bytes) -> list[str]:
    return [row["text"] for row in read(gadget, data)]


def test_pieces_become_lines(gadget: Gadget) -> None:
    tty = Tty(gadget, {})
    assert texts(gadget, tty.rows(pieces(gadget, b"he", b"llo\r\nwor", b"ld\n"), 0)) == ["hello\r\n", "world\n"]
    assert tty.rest() == b""


def test_an_unfinished_line_is_a_row_after_half_a_second_or_at_the_end(gadget: Gadget) -> None:
    tty = Tty(gadget, {})
    assert tty.rows(pieces(gadget, b"login: "), 0) == b""
    assert texts(gadget, tty.rows(pieces(gadget), SECOND)) == ["login: "]
    tty.rows(pieces(gadget, b"rest"), 0)
    assert texts(gadget, tty.rest()) == ["rest"]


def test_terminals_processes_and_directions_are_not_mixed(gadget: Gadget) -> None:
    tty = Tty(gadget, {})
    others = ({"pid": 43}, {"terminal": b"pts1"}, {"direction": INPUT})
    batch = pieces(gadget, b"a", *({"text": b"x\n"} | other for other in others), b"b\n")
    assert texts(gadget, tty.rows(batch, 0)) == ["x\n"] * 3 + ["ab\n"]


def test_what_lacks_a_part_is_a_row_of_its_own_that_says_how_much_there_was(gadget: Gadget) -> None:
    tty = Tty(gadget, {})
    rows = read(gadget, tty.rows(pieces(gadget, b"a", {"text": None, "bytes": 67}, {"text": b"b\n", "bytes": 9}), 0))
    assert [(row["text"], row["bytes"]) for row in rows] == [("a", 1), (None, 67), ("b\n", 9)]


def test_calls_stay_as_they_are_when_asked(gadget: Gadget) -> None:
    tty = Tty(gadget, {"calls": True})
    assert texts(gadget, tty.rows(pieces(gadget, b"a\nb", b"c"), 0)) == ["a\nb", "c"]


def test_a_line_without_an_end_is_cut(gadget: Gadget) -> None:
    tty = Tty(gadget, {})
    rows = read(gadget, tty.rows(pieces(gadget, *[b"x" * 1000] * 5), 0))
    assert [row["bytes"] for row in rows] == [5000]


def test_the_table_leaves_out_the_newline_alone(gadget: Gadget) -> None:
    from kubectl_gadget.rows.members import shown

    batch = decode(gadget, "node", Tty(gadget, {}).rows(pieces(gadget, b"a\tb\r\n", b"\n"), 0))
    assert shown(batch, gadget.column("text")) == ["a\tb", '""']
