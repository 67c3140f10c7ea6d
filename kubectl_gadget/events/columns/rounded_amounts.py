"""Formats durations and sizes for people. The trap: they have three significant digits, so they cannot be added up."""

from collections.abc import Sequence


def _scaled(number: float, units: Sequence[str], step: int) -> str:
    """Three significant digits, in the largest unit that leaves at least one digit before the point."""
    place = 0
    while number >= step - 0.5 and place + 1 < len(units):
        number /= step
        place += 1
    digits = 0 if place == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{units[place]}"


def duration_text(nanoseconds: int) -> str:
    """`87ns`, `1.24ms`, `12.3s`, `4m05s`, `2h05m`."""
    seconds = round(nanoseconds / 1e9)
    if seconds < 100:
        return _scaled(nanoseconds, ("ns", "µs", "ms", "s"), 1000)
    return f"{seconds // 60}m{seconds % 60:02}s" if seconds < 3600 else f"{seconds // 3600}h{seconds // 60 % 60:02}m"


def bytes_text(count: int) -> str:
    """`87B`, `1.24KiB`, `12.3MiB`."""
    return _scaled(count, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 1024)
