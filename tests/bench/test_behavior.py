"""How the cost of `behavior check` is calculated from what the kernel counts."""

import pytest

from bench import behavior
from bench.behavior import Spent, by_program


def test_what_counting_takes_is_taken_off_and_programs_of_one_name_are_added_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(behavior, "program_names", lambda: {1: "at_exit", 2: "at_exit", 3: "forked"})
    before = Spent(0, 0, 0, 0, {1: (1000, 10), 3: (70, 1)})
    after = Spent(10**9, 0, 0, 0, {1: (1000 + 3_000_000, 10 + 10_000), 2: (7_000_000, 40_000), 3: (70, 1), 4: (60, 1)})
    found = by_program(before, after, counting=60)
    assert found["at_exit"] == (pytest.approx(0.7), pytest.approx(50_000))
    assert found["forked"] == (0, 0)
    assert found["?"] == (pytest.approx(0), pytest.approx(1))


@pytest.mark.bpf
def test_counting_takes_time_which_a_program_that_does_nothing_shows() -> None:
    from bench.program_counts import counting, counting_ns

    with counting():
        assert 0 < counting_ns() < 100_000
