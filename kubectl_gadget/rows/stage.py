"""Views that turn what programs send into rows, for gadgets whose rows the kernel cannot make: DNS answers from
packets.

A gadget's YAML names such a view under `view:`, the struct that its programs send under `sent:`, and the struct of a
row under `record:`. The view returns rows in the kernel's format, as records in ring buffer bytes, so that all later
steps (names, filters, order, output) are the same for every gadget. The trap: a view runs for each connection to a node
and keeps items that wait, so it must drop them: after a time by the node's own clock, and if there are too many.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch


class Stage(ABC):
    """One view that runs for one node."""

    @abstractmethod
    def rows(self, sent: Batch, complete_until: int) -> bytes:
        """Makes rows from these records, in ring buffer format, approximately in order of time.

        `complete_until` is boot time in ns; every record before it has been passed in. It decides when rows for answers
        that did not come are made.
        """

    def rest(self) -> bytes:
        """Rows for all open items. It is the last call."""
        return b""


_STAGES = {
    "deadlock": "protocols.deadlock:Deadlock",
    "dns": "protocols.dns:Dns",
    "http": "protocols.http:Http",
    "sni": "protocols.tls:Sni",
    "tty": "protocols.tty:Tty",
}
"""Module and class of each view; its arguments are the gadget and the values of all its parameters."""


def make_stage(gadget: Gadget, parameters: Mapping[str, Any]) -> Stage | None:
    """A new stage of the gadget's view; None if it has none. `parameters` are those set by the user, by name.

    Raises GadgetError if this version has no such view.
    """
    if gadget.view is None:
        return None
    if gadget.view.name not in _STAGES:
        raise GadgetError(
            f"{gadget.name} needs the view {gadget.view.name!r}",
            f"one of {', '.join(_STAGES)}, or a newer version of this program",
        )
    values = gadget.values(parameters)
    module, _, name = _STAGES[gadget.view.name].partition(":")
    stage: Stage = getattr(import_module(f"kubectl_gadget.{module}"), name)(gadget, values)
    return stage
