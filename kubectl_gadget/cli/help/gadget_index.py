"""The built-in gadgets by name: all that help and completion need to know about most of them.

The trap: a gadget's own file is larger than the index, so it is read only for the gadget that was requested.
"""

from typing import TYPE_CHECKING

from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.gadgets import GadgetSummary


def index() -> "list[GadgetSummary]":
    """The built-in gadgets: name, command, group and summary of each."""
    from kubectl_gadget.gadgets import load_index

    return load_index()


def unknown_gadget(name: str, path: str) -> UsageError | None:
    """The error for a gadget that was named without its verb after `path`; None if there is no such gadget."""
    for entry in index():
        if name in (entry.name, entry.command[-1], "-".join(entry.command)):
            return UsageError(f"unknown command {name!r}", f"{path} {' '.join(entry.command)}")
    return None
