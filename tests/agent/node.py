"""What sources get from a session, without one: for tests of a single source."""

from collections.abc import Mapping
from typing import Any

from kubectl_gadget.agent.containers.ring_fairness import ContainerNumbers
from kubectl_gadget.agent.sources.source import NodeContext


class NoContainers:
    """In the place of containers.tracking.Containers, for sources that are given none."""

    is_open = True

    def __init__(self, shared: Mapping[str, int], variables: Mapping[str, int]) -> None:
        self.shared = shared
        self.variables = lambda: {"gadget_node_pid_level": 0, **variables}
        self.numbers = ContainerNumbers()
        self.followers: list[Any] = []

    def follow(self, follower: Any) -> None:
        self.followers.append(follower)


def node_context(shared: Mapping[str, int], variables: Mapping[str, int] | None = None) -> NodeContext:
    """`shared` are maps that gadgets have together, by name."""
    return NodeContext(NoContainers(shared, variables or {}), lambda path: True)
