"""Histograms below their table, as bars."""

from kubectl_gadget.output.tables.histogram_bars import bars
from tests.rows.columns.test_histogram import counted


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
