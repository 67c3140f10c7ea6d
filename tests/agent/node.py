"""What sources get from a session, without one: for tests of a single source."""

from collections.abc import Mapping
from typing import Any

from kubectl_gadget.agent.containers.ring_fairness import ContainerNumbers
from kubectl_gadget.agent.sources.context import NodeContext, Warnings
from kubectl_gadget.agent.sources.shared_maps import SharedMaps


class NoContainers:
    """In the place of containers.tracking.Containers, for sources that are given none."""

    is_open = True

    def __init__(self) -> None:
        self.numbers = ContainerNumbers()
        self.followers: list[Any] = []

    def follow(self, follower: Any) -> None:
        self.followers.append(follower)


def node_context(
    shared: Mapping[str, int], variables: Mapping[str, int] | None = None, containers: Any = None
) -> NodeContext:
    """`shared` are maps that gadgets have together, by name."""
    warnings = Warnings()
    maps = SharedMaps(shared, 0, warnings.add)
    return NodeContext(containers or NoContainers(), maps, lambda path: True, variables or {}, warnings=warnings)
