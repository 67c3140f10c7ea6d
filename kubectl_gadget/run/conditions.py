"""The filters of a run, and its last step before output: how many rows are shown, and which decide the exit code."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import EXPECTATION_FAILED, INCONCLUSIVE, some

if TYPE_CHECKING:
    from kubectl_gadget.filters.filter import Filter


@dataclass(frozen=True)
class Conditions:
    """The conditions on rows, compiled and checked."""

    filter: "Filter | None" = None
    """for rows as they arrive"""
    of_sums: "Filter | None" = None
    """for rows that were summed up"""
    fail_on: "Filter | None" = None
    expect: "Filter | None" = None
    max_events: int | None = None


class Verdict:
    """Counts rows and decides when there are enough."""

    def __init__(self, conditions: Conditions) -> None:
        self.shown: Counter[str] = Counter()
        """rows by node"""
        self.failed_on = False
        self.expectation_missed = conditions.expect is not None
        self._conditions = conditions
        self._reported: set[int] = set()

    @property
    def is_final(self) -> bool:
        """True if no more rows are to be shown."""
        most = self._conditions.max_events
        return self.failed_on or (most is not None and self.shown.total() >= most)

    def outcome(self, doubts: Sequence[str] = ()) -> tuple[str, int]:
        """Return the outcome of --fail-on and --expect, as a message and an exit code; "" and 0: all is well.

        `doubts`: why the run may not have seen everything (run/coverage.py). A match is certain; with doubts, the
        absence of a match proves nothing, and the exit code says inconclusive."""
        fail_on, expect = self._conditions.fail_on, self._conditions.expect
        if self.failed_on and fail_on is not None:
            return f"--fail-on: the last row matches {fail_on.text}", EXPECTATION_FAILED
        missed = expect if self.expectation_missed else None
        for flag, condition in (("--expect", missed), ("--fail-on", fail_on)):
            if condition is None:
                continue
            reasons = [*doubts, *([f"for some rows, {condition.first_error}"] if condition.errors else [])]
            if reasons:
                return (
                    f"{flag}: no row matched {condition.text}, but this is inconclusive: {some(reasons)}",
                    INCONCLUSIVE,
                )
            if condition is missed:
                return f"--expect: no row matched {condition.text}", EXPECTATION_FAILED
        return "", 0

    def cut(self, rows: Rows) -> Rows:
        """Return the rows to show."""
        conditions = self._conditions
        if conditions.max_events is not None:
            rows = rows.head(conditions.max_events - self.shown.total())
        if conditions.fail_on is not None and (failing := rows.mask(conditions.fail_on.mask)).any():
            rows = rows.head(int(np.argmax(failing)) + 1)
            self.failed_on = True
        if self.expectation_missed and conditions.expect is not None:
            self.expectation_missed = not rows.mask(conditions.expect.mask).any()
        for part in rows.parts:
            self.shown.update({part.node: len(part)} if part.origins is None else Counter(part.nodes()))
        return rows

    def undecided(self) -> Iterator[str]:
        """Yields the filters that had errors on some rows, each once."""
        conditions = self._conditions
        for condition in (conditions.filter, conditions.of_sums, conditions.fail_on, conditions.expect):
            if condition is not None and condition.errors and id(condition) not in self._reported:
                self._reported.add(id(condition))
                yield f"{condition.text!r} could not be evaluated for some rows: {condition.first_error}"
