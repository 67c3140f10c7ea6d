"""The gadgets: their descriptions, their BPF objects, and how both are built.

The package imports only `load`, which `--help` and completion need; both have to start quickly.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kubectl_gadget.gadgets.load import GadgetSummary, load_gadget, load_index, object_bytes

if TYPE_CHECKING:
    from kubectl_gadget.gadgets.schema import Gadget

__all__ = ["GadgetSummary", "load_gadget", "load_index", "load_own", "object_bytes"]


def load_own(path: Path) -> "tuple[Gadget, Path]":
    """A user's own gadget, built when necessary, and the directory for object_bytes. See own.load_own."""
    from kubectl_gadget.gadgets.own import load_own as load

    return load(path)
