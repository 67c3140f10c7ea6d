"""Times, durations and sizes as text: RFC 3339 with nanoseconds for machines, rounded for people.

Note: rounded amounts have three significant digits, so they cannot be added up.
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.texts import Texts
from kubectl_gadget.rows.vectors import Pieces

# Wall times. Formatting a date is slow, so each whole second is formatted once.


class Timestamps(Texts):
    """Wall times as RFC 3339 in UTC with nanoseconds."""

    def __init__(self, wall_ns: npt.NDArray[np.int64]) -> None:
        super().__init__(None, len(wall_ns))
        self.wall_ns = wall_ns

    def valid(self) -> None:
        return None

    def json(self) -> Pieces:
        template, lists = self.pieces()
        return f'"{template}"', lists

    def pieces(self) -> Pieces:
        """Like `json`, without quotes."""
        return self._split(lambda second: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)), "%s.%sZ")

    def clock(self) -> list[str]:
        """The local time of day, for tables."""
        template, lists = self._split(lambda second: time.strftime("%H:%M:%S", time.localtime(second)), "%s.%s")
        return list(map(template.__mod__, zip(*lists, strict=True)))

    def _make(self) -> list[str | None]:
        template, lists = self.pieces()
        return list(map(template.__mod__, zip(*lists, strict=True)))

    def _split(self, spell: Callable[[int], str], template: str) -> Pieces:
        """The template, and each row's whole second as a text, formatted once per second, and the nanoseconds within
        it as nine digits. If all rows are of one second, it is part of the template."""
        seconds, within = np.divmod(self.wall_ns, 1_000_000_000)
        fractions = _nine_digits(within)
        numbers: list[int] = seconds.tolist()
        spelt = {second: spell(second) for second in set(numbers)}
        if len(spelt) == 1:
            return template.replace("%s", spelt[numbers[0]], 1), (fractions,)
        return template, ([spelt[second] for second in numbers], fractions)


def _nine_digits(numbers: npt.NDArray[np.int64]) -> list[str]:
    """Numbers below 1,000,000,000 as texts with leading zeros."""
    rest, texts = numbers.astype(np.uint32), np.empty((len(numbers), 10), np.uint8)
    texts[:, 9] = ord("\n")
    for place in range(8, -1, -1):
        before = rest // np.uint32(10)
        texts[:, place] = rest - before * np.uint32(10) + np.uint32(ord("0"))
        rest = before
    return texts.tobytes().decode().split("\n")[:-1]


def nanoseconds(text: str) -> int:
    """Parses the output of rfc3339(); returns ns since 1970."""
    whole, _, fraction = text.partition(".")
    second = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return second * 1_000_000_000 + int(fraction.removesuffix("Z"))


# Durations and sizes, rounded.


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


def bytes_text(count: int) -> str:
    """`87B`, `1.24KiB`, `12.3MiB`."""
    return _scaled(count, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 1024)
