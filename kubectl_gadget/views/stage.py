"""Views that make rows of what programs send, for gadgets whose rows the kernel cannot make: packets to DNS answers.

A gadget's YAML names such a view under `view:`, what its programs send under `sent:`, and the struct of a row under
`record:`. The view gives its rows as the kernel would, as records in ring buffer bytes, so that all that follows
(names, filters, order, output) is the same for every gadget. The trap: a view runs per connection to one node and keeps
what it waits for, so it has to forget: after a time by the node's own clock, and when it would hold too much.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.schema import Gadget


class Stage(Protocol):
    """One view at work for one node."""

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        """Rows made of these records, as a ring buffer holds them, in about the order of their time.

        `complete_until` is boot time in ns; every record before it has been given. Rows about what did not come are
        made when it is far enough.
        """
        ...

    def rest(self) -> bytes:
        """Rows of what is still open; nothing is given afterwards."""
        ...


_MODULES = {
    "deadlock": "deadlock",
    "dns": "protocols.dns",
    "http": "protocols.http",
    "sni": "protocols.sni",
    "tty": "tty",
}


def make_stage(gadget: Gadget, parameters: Mapping[str, Any]) -> Stage | None:
    """A new stage of the gadget's view, None when it has none. `parameters` are those that the user gave, by name.

    Raises GadgetError when this version has no such view.
    """
    if gadget.view is None:
        return None
    if gadget.view.name not in _MODULES:
        raise GadgetError(
            f"{gadget.name} needs the view {gadget.view.name!r}", f"one of {', '.join(_MODULES)}, or an update"
        )
    values = {parameter.name: parameter.default for parameter in gadget.parameters} | dict(parameters)
    stage: Stage = import_module(f"kubectl_gadget.views.{_MODULES[gadget.view.name]}").make(gadget, values)
    return stage
