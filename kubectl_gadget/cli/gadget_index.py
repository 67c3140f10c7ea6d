"""The gadgets that are built in, by name: all that help and completion need to know of most of them.

The trap: a gadget's own file is larger than the index, so it is read only for the gadget that was asked for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_gadget.cli.arguments import nearest
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import Gadget

if TYPE_CHECKING:
    from kubectl_gadget.catalogue import GadgetSummary


def index() -> "list[GadgetSummary]":
    """The built-in gadgets: name, command, group and summary of each."""
    from kubectl_gadget.catalogue import load_index

    return load_index()


def find_gadget(words: Sequence[str]) -> Gadget:
    """The gadget `trace open`, `trace_open` or `open`. Raises UsageError with the nearest names."""
    from kubectl_gadget.catalogue import load_gadget

    name = " ".join(words).replace("_", " ")
    names: dict[str, str] = {}
    for entry in index():
        names |= {" ".join(entry.command): entry.name, entry.command[-1]: entry.name}
    if name in names:
        return load_gadget(names[name])
    raise UsageError(f"there is no gadget {name!r}", nearest(name, names) or "kubectl gadget list")
