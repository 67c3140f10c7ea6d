"""The interfaces of the steps between decoding and output.

A `Collector` decides when rows are released and in which order: by time (merge.TimeMerge), as the blocks of an interval
or a snapshot (views.tables.intervals), one recorded call sequence at a time (views.tables.captures). A `Transform`
turns the rows of several gadgets into other records: a story of processes (observe.story), flows (flows.transform).

A source is one gadget on one node. The trap: a collector has no clock. Arrival times are passed in, so that a replay
gives the same rows as the recorded run.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import Rows

T_co = TypeVar("T_co", covariant=True)


class Collector(ABC):
    """Holds rows back until they may be released. All calls come from one thread; what is not defined in a subclass
    does not matter there."""

    late = 0
    """number of rows that arrived after a younger row had been released"""

    def expect(self, source: Hashable, wall_ns: int) -> None:  # noqa: B027
        """Announces a source that will send no rows older than `wall_ns`. Called before rows are requested from it."""

    def join(self, source: Hashable) -> None:  # noqa: B027
        """The source has started."""

    def leave(self, source: Hashable) -> None:  # noqa: B027
        """The source sends nothing more. Rows that it has sent are kept."""

    @abstractmethod
    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes rows that arrived at `now_ns`."""

    def complete(self, source: Hashable, wall_ns: int) -> None:  # noqa: B027
        """All rows of the source before this wall time have been added."""

    def end(self, source: Hashable, now_ns: int, is_rest: bool) -> None:  # noqa: B027
        """The source's answer (an interval, a snapshot) is complete. `is_rest`: the run ended before it did."""

    @abstractmethod
    def release(self, now_ns: int) -> Rows:
        """Rows that may be released now. Call it until it returns NO_ROWS."""

    @abstractmethod
    def flush(self) -> Rows:
        """Rows that remain at the end of the run. Call it until it returns NO_ROWS."""

    @abstractmethod
    def next_release_ns(self) -> int | None:
        """The latest time for the next call of release; None if no rows are waiting."""


class Transform(Protocol[T_co]):
    """Turns rows, which come in order of time, into other records."""

    def apply(self, rows: Rows) -> T_co:
        """The records of these rows, in the same order."""


class RowTransform(Transform[Rows], Protocol):
    """A transform that returns rows, so filters, conditions and all formats apply to its results."""

    @property
    def gadget(self) -> Gadget:
        """Describes the resulting rows."""

    def notes(self) -> Iterable[str]:
        """Messages to report at the end of the run."""
