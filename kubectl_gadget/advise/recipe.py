"""What advisors watch: gadgets with their parameters, and how their rows become facts.

The trap: what the gadgets leave out cannot be advised later, so parameters that show more are given here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.advise.recording import Fact, FactKind

FactsOf = Callable[[Mapping[str, Any]], Iterable[Fact]]


@dataclass(frozen=True)
class Recipe:
    """What one advisor watches."""

    name: str
    kind: FactKind
    facts_of: FactsOf
    sources: tuple[tuple[str, Mapping[str, object]], ...]
    """gadgets with their parameters"""
    whole_cluster: bool = False
    """whether it names other pods than those that are watched, and services and nodes"""
