"""Formats durations and sizes for people. The trap: they have three significant digits, so they cannot be added up."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_UNITS = ("ns", "µs", "ms", "s")


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
        return _scaled(nanoseconds, _UNITS, 1000)
    return f"{seconds // 60}m{seconds % 60:02}s" if seconds < 3600 else f"{seconds // 3600}h{seconds // 60 % 60:02}m"


def duration_texts(nanoseconds: npt.NDArray[np.int64]) -> list[str]:
    """duration_text() of a column. Those of the same unit and digits are formatted together."""
    seconds = np.rint(nanoseconds / 1e9)
    numbers, places = nanoseconds.astype(np.float64), np.zeros(len(nanoseconds), np.int64)
    for _ in range(len(_UNITS) - 1):
        above = numbers >= 1000 - 0.5
        numbers = np.where(above & (places < len(_UNITS) - 1), numbers / 1000, numbers)
        places += above & (places < len(_UNITS) - 1)
    digits = np.where((places == 0) | (numbers >= 99.95), 0, np.where(numbers >= 9.995, 1, 2))
    codes = np.where(seconds < 100, places * 3 + digits, -1)
    found = np.empty(len(codes), object)
    for code in np.unique(codes).tolist():
        at = np.flatnonzero(codes == code)
        if code < 0:
            texts = list(map(duration_text, nanoseconds[at].tolist()))
        else:
            texts = list(map(f"%.{code % 3}f{_UNITS[code // 3]}".__mod__, numbers[at].tolist()))
        found[at] = texts
    made: list[str] = found.tolist()
    return made


def bytes_text(count: int) -> str:
    """`87B`, `1.24KiB`, `12.3MiB`."""
    return _scaled(count, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 1024)
