"""Names that are similar to one that is not known."""

from difflib import SequenceMatcher, get_close_matches

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.wording import age, close_matches, suggested

names = st.text("abc_1", min_size=1, max_size=12)


def test_ages_are_as_kubectl_writes_them() -> None:
    found = [age(seconds) for seconds in (-1, 5, 200, 3600, 47 * 3600 + 300, 12 * 86400 + 3 * 3600)]
    assert found == ["0s", "5s", "3m20s", "1h0m", "47h5m", "12d3h"]


@given(names, st.lists(names, unique=True), st.integers(1, 4), st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.85, 1.0]))
def test_the_nearest_are_those_that_difflib_finds(name: str, known: list[str], most: int, cutoff: float) -> None:
    assert close_matches(name, known, most, cutoff) == get_close_matches(name, known, most, cutoff)


def test_few_of_many_names_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    class Counting(SequenceMatcher[str]):
        def ratio(self) -> float:
            compared.append(self.a)
            return super().ratio()

    monkeypatch.setattr("difflib.SequenceMatcher", Counting)
    known = [
        f"{verb}_{noun}_{number}"
        for verb in ("vfs", "tcp", "udp")
        for noun in ("read", "close")
        for number in range(99)
    ]
    assert close_matches("vfs_raed_77", known, 2, 0.7)[0] == "vfs_read_77"
    assert len(compared) < 60


def test_few_names_of_a_long_list_are_shown_with_their_number() -> None:
    assert suggested("zzz", ["pod", "path"]) == "one of path, pod"
    names = [f"column_with_a_long_name_{number}" for number in range(100)]
    found = suggested("xyz_long", names)
    assert "or another one of 100 names" in found
    assert found.count("column_with") == 5
