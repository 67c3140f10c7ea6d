"""What is pinned beside the programs and maps of installed policies: what the next agent has to know of them.

The trap: an agent of another version may have written it, so a change that it cannot read takes a new FORMAT.
"""

from collections.abc import Mapping

from kubectl_gadget.wire.message import Message
from kubectl_gadget.wire.policy_messages import InstalledPolicy, PolicySpec, Way


class AttachedHook(Message):
    """A hook whose program is attached."""

    name: str
    """as in `spec`"""
    way: Way
    """that was taken, without variables"""


class PinnedPolicies(Message):
    """A set of installed policies."""

    format: int
    """of records"""
    digest: str
    """of the set"""
    policies: tuple[InstalledPolicy, ...]
    """in the order by which hooks number them"""
    spec: PolicySpec
    """without what only loading takes"""
    node: Mapping[str, int]
    """variables of the node that the hooks were loaded with"""
    attached: tuple[AttachedHook, ...]
    """in the order of the pinned links and maps"""
    without: tuple[int, ...]
    """policies that are not in force"""
    failed: Mapping[str, tuple[str, str | None]]
    """hooks that this node does not have: why, and what helps"""
