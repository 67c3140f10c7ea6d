"""Histograms below their table, as bars."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.histograms import DiffTable, SavedHistogram, bars
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.histogram import Buckets, read_buckets
from kubectl_gadget.rows.tables import arrange
from tests.rows.test_histogram import counted


def test_there_is_a_line_for_each_power_of_two_from_the_lowest_to_the_highest() -> None:
    lines = bars([counted([*[100] * 40, 300])[0]])
    assert [line.split()[:4] for line in lines] == [
        ["64ns", "..", "128ns", "40"],
        ["128ns", "..", "256ns", "0"],
        ["256ns", "..", "512ns", "1"],
    ]
    assert [line.count("█") for line in lines] == [40, 0, 1]


def test_what_is_seldom_has_a_bar_that_is_seen() -> None:
    assert bars([counted([*[100] * 10_000, 300])[0]])[-1].endswith("▏")


def test_two_histograms_stand_side_by_side() -> None:
    (line,) = bars([counted([100])[0], counted([100, 100])[0]])
    assert line.split()[3:] == ["1", "█" * 40, "2", "█" * 40]


def test_without_rows_there_are_no_bars() -> None:
    assert bars([counted([])[0]]) == []


KEYS = ("operation",)


def recorded(path: Path, *rows: tuple[str, list[int]]) -> Path:
    def row(operation: str, values: list[int]) -> dict[str, Any]:
        return {"operation": operation, "max": max(values), "buckets": Buckets(counted(values)).values()[0]}

    path.write_text("".join(json.dumps(row(*item)) + "\n" for item in rows))
    return path


def batch(operation: str, values: Sequence[int]) -> Batch:
    """One record of profile fs."""
    gadget = load_gadget("profile_fs")
    data = bytearray(gadget.record.size)
    buckets = counted(list(values))[0]
    numbers = {"count": len(values), "total": sum(values), "max": max(values)}
    for field in gadget.record.fields:
        raw = buckets.tobytes() if field.name == "buckets" else operation.encode() if field.name == "operation" else b""
        if field.name in numbers:
            raw = numbers[field.name].to_bytes(8, "little")
        data[field.offset : field.offset + len(raw)] = raw
    return decode(gadget, "node", len(data).to_bytes(8, "little") + bytes(data))


@pytest.fixture(autouse=True)
def _built(catalogue_built: Path) -> None:
    """The gadget's record."""


def compared(path: Path, rows: Batch) -> list[str]:
    stream = StringIO()
    table = DiffTable(stream, SavedHistogram(path, KEYS), KEYS, 1)
    table.write(arrange([rows], Arrangement(by=KEYS)))
    table.close()
    return stream.getvalue().splitlines()


def test_figures_stand_beside_those_of_the_recording_with_their_change(tmp_path: Path) -> None:
    path = recorded(tmp_path / "old.json", ("read", [1000]), ("read", [1000]), ("write", [5]))
    lines = compared(path, batch("read", [2000] * 3))
    assert lines[0].split() == ["OPERATION", "COUNT", "P50", "P90", "P99"]
    assert lines[1].split()[:5] == ["read", "2", "→", "3", "+50%"]
    assert [word for word in lines[1].split() if word.endswith("%")][1:] == ["+103%", "+100%", "+100%"]
    assert lines[3].endswith("(before, now)")
    assert [[word for word in line.split() if word.isdigit()] for line in lines[4:]] == [["2", "0"], ["0", "3"]]


def test_what_was_not_there_before_has_no_change(tmp_path: Path) -> None:
    (_, line, *_) = compared(recorded(tmp_path / "old.json", ("write", [5])), batch("read", [100]))
    assert line.split()[:4] == ["read", "-", "→", "1"]


def test_histograms_are_added_up_bucket_by_bucket(tmp_path: Path) -> None:
    found = SavedHistogram(recorded(tmp_path / "old.json", ("read", [100]), ("read", [900, 100])), KEYS).find(("read",))
    assert found is not None
    buckets, highest = found
    assert (buckets.tolist(), highest) == (counted([100, 100, 900])[0].tolist(), 900)
    assert read_buckets(Buckets(buckets[None, :]).values()[0]).tolist() == buckets.tolist()


@pytest.mark.parametrize("text", ["no json", "[]", '{"operation": "read"}', '{"max": 1, "buckets": []}'])
def test_a_file_that_is_not_a_recording_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(f"{text}\n")
    with pytest.raises(UsageError, match="line 1"):
        SavedHistogram(tmp_path / "file", KEYS)
    with pytest.raises(UsageError, match="cannot be read"):
        SavedHistogram(tmp_path / "none", KEYS)
