"""Facts made by hand, for tests."""

from collections.abc import Iterable
from typing import Any

from kubectl_gadget.behavior.facts import Behavior, Coverage, Fact, FactKind, Unit, merged
from kubectl_gadget.kube.inventory import Workload

CART = Unit(Workload("shop", "Deployment", "cart"), "main")


def fact(kind: str, program: str, value: str, unit: Unit = CART, **known: Any) -> Fact:
    return Fact(unit.workload, unit.container, FactKind(kind), program, value, **known)


def behavior(*facts: Fact, units: Iterable[Unit] = (CART,), **coverage: Any) -> Behavior:
    """These facts, of containers that all have the same coverage."""
    return Behavior(merged(facts), dict.fromkeys((*units, *(fact.unit for fact in facts)), Coverage(**coverage)))
