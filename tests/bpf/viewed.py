"""Gadgets whose rows are made by a view: real packets in, rows as JSON has them out."""

import time
from typing import Any, Self

from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import make_stage
from tests.bpf.tracer import Tracer


class Viewed(Tracer):
    """One such gadget, attached. Parameters of the view and those of the programs go by their names."""

    def __init__(self, name: str, **parameters: Any) -> None:
        super().__init__(name, **parameters)
        stage = make_stage(self.gadget, {key: value for key, value in parameters.items() if self._has(key)})
        assert stage is not None
        self._stage = stage
        self.sent_bytes = 0
        """that the node has sent for the rows until now"""

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def rows(self, later: float = 0) -> list[dict[str, Any]]:
        """The rows that have become known since the last call, as if asked so many seconds later."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(later * 1e9)
        data = self.data()
        self.sent_bytes += len(data)
        sent = decode(self.gadget.as_sent(), "node", data)
        return self._read(self._stage.rows(sent, now))

    def rest(self) -> list[dict[str, Any]]:
        """The rows of what is still open."""
        return self._read(self._stage.rest())

    def _read(self, data: bytes) -> list[dict[str, Any]]:
        return MemberRows().records(Rows([decode(self.gadget, "node", data)]))

    def _has(self, parameter: str) -> bool:
        return any(parameter == known.name for known in self.gadget.parameters)
