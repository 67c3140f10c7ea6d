"""The page of a command, apart from its flags; rendering.py makes text of it.

The trap: rarely needed flags are only named in help (`NAMED_ONLY`) and explained by `kubectl gadget options`; otherwise
no gadget's help would fit.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_gadget.cli.flags.declaration import CLUSTER, ENGINE
from kubectl_gadget.events.example import Example

if TYPE_CHECKING:
    from kubectl_gadget.events.schema import Column

NAMED_ONLY = (ENGINE, CLUSTER)


@dataclass(frozen=True)
class Page:
    """A command's help apart from its flags."""

    summary: str = ""
    examples: tuple[Example, ...] = ()
    columns: "tuple[Column, ...]" = ()
    usage: str = ""
    """the usage line after the command"""
    named_only: tuple[str, ...] = NAMED_ONLY
    """groups of flags that are named but not explained"""
    silent: tuple[str, ...] = ()
    """groups of flags that are accepted but not mentioned"""
    more: str = ""
    """a last paragraph"""
    passes_on: bool = False
    """all words after the first are for another program"""
