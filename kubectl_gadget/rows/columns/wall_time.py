"""Wall times as text: RFC 3339 for machines, the local time of day for people.

The trap: formatting a date is slow, so each whole second is formatted once; Python's datetime cannot hold nanoseconds.
"""

import time
from collections.abc import Callable
from datetime import datetime

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.columns.texts import Texts
from kubectl_gadget.rows.vectors import Pieces


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
        """As `json`, without quotes."""
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
