"""What the soak counts as growth: leaks, whether they are even or in steps, but not levels."""

from bench.soak import GROWTH, slope

TIMES = range(0, 900, 5)
MIB = 1 << 20


def test_a_single_increase_is_not_growth() -> None:
    for at in (100, 450, 800):
        assert slope([(time, 50 * MIB + (40 * MIB if time > at else 0) + time % 7) for time in TIMES]) < 100


def test_a_leak_is_growth_whether_it_is_even_or_in_steps() -> None:
    an_hour = 2 * GROWTH["client"] / 3600
    for every in (1, 60, 170):
        found = slope([(time, 50 * MIB + an_hour * (time - time % every) + (time % 11) * 4096) for time in TIMES])
        assert 0.7 * an_hour < found < 1.5 * an_hour
