"""Widths of texts and of columns."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.output.shown_columns import Heading
from kubectl_gadget.output.tables.widths import GAP, cut, fit, fitting, pad, text_width, widest

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
