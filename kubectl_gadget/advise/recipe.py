"""What advisors watch: gadgets with their parameters, and how their rows become uses.

The trap: what the gadgets omit cannot be part of the advice later, so the parameters here are those that show more.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.advise.uses import Use, UseKind

UsesOf = Callable[[Mapping[str, Any]], Iterable[Use]]


@dataclass(frozen=True)
class Recipe:
    """What one advisor watches."""

    name: str
    kind: UseKind
    uses_of: UsesOf
    sources: tuple[tuple[str, Mapping[str, object]], ...]
    """gadgets with their parameters"""
    whole_cluster: bool = False
    """the advice names pods other than the watched ones, and services and nodes"""
