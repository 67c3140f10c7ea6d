"""The sink of a run that is only recorded: it prints nothing, and says when a row matches the user's expression."""

from collections.abc import Callable, Sequence

from kubectl_gadget.events.filters.filter import compile_filter
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.output.sink import WholeSink


class MatchSink(WholeSink):
    """Calls `matched` with a reason for rows that match."""

    def __init__(self, expression: str | None, gadgets: Sequence[Gadget], matched: Callable[[str], object]) -> None:
        """`expression`: None matches nothing. Raises UsageError."""
        self._expression = None if expression is None else compile_filter(expression, gadgets, "--on-match")
        self._matched = matched

    def write(self, rows: Rows) -> None:
        """Looks at all rows at once."""
        if self._expression is not None and len(rows) and rows.mask(self._expression.mask).any():
            self._matched(f"a row matched {self._expression.text}")
