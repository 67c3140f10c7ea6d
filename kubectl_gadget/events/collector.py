"""The two protocols that rows pass between decoding and output.

A `Collector` decides when rows leave and in which order: by time (merge.TimeMerge), as the blocks of an interval or a
snapshot (views.tables.intervals), one recorded call sequence at a time (views.tables.captures). A `Transform` makes
other records of the rows of several gadgets: a story of processes (observe.story), flows (flows.transform).

A source is one gadget on one node. The trap: a collector has no clock. Times of arrival are passed in, so that a
replay gives the same rows as the run that was recorded.
"""

from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.events.schema import Gadget

T_co = TypeVar("T_co", covariant=True)


class Collector(Protocol):
    """Holds rows back until they may leave. All calls come from one thread."""

    late: int
    """rows that came after a younger row had left"""

    def expect(self, source: Hashable, wall_ns: int) -> None:
        """The source is about to be asked for rows; it will send none that are older than `wall_ns`."""

    def join(self, source: Hashable) -> None:
        """The source has started."""

    def leave(self, source: Hashable) -> None:
        """The source sends nothing more. What it has sent counts."""

    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes rows that came at `now_ns`."""

    def complete(self, source: Hashable, wall_ns: int) -> None:
        """All rows of the source before this wall time have been added."""

    def end(self, source: Hashable, now_ns: int, is_rest: bool) -> None:
        """The source's answer (an interval, a snapshot) is whole; `is_rest`: the run was ended before the interval."""

    def release(self, now_ns: int) -> Rows:
        """Rows that may leave now. To be called until it gives NO_ROWS."""

    def flush(self) -> Rows:
        """Rows that are left at the end of the run. To be called until it gives NO_ROWS."""

    def next_release_ns(self) -> int | None:
        """When release has to be called at the latest; None while nothing waits."""


class Transform(Protocol[T_co]):
    """Makes other records of rows, which come in the order of time."""

    def apply(self, rows: Rows) -> T_co:
        """The records of these rows, in the same order."""


class RowTransform(Transform[Rows], Protocol):
    """A transform whose records are rows again, so filters, conditions and all formats apply to them."""

    @property
    def gadget(self) -> Gadget:
        """Describes the rows that come out."""

    def notes(self) -> Iterable[str]:
        """What has to be said at the end of the run."""
