"""The description that is pinned beside the programs and maps of installed policies, for the next agent.

The trap: an agent of another version may have written it, so an incompatible change needs a new FORMAT.
"""

from collections.abc import Mapping

from kubectl_gadget.wire.message import Hex, Message
from kubectl_gadget.wire.policy_messages import InstalledPolicy, PolicySpec, Way


class AttachedHook(Message):
    """A hook whose program is attached."""

    number: int
    """its place in `spec`"""
    way: Way
    """the way that was used, without variables"""
    entry: tuple[int, int, int] | None = None
    """of a hook without a link: the program array that it is called from, counted from the last of the dispatcher's
    pins; the key there; and the program's id"""


class PinnedCalls(Message):
    """The content of the system call dispatcher's tables (bpf/syscall_programs.py)."""

    followers: Mapping[str, tuple[int, ...]]
    interests: Hex


class PinnedPolicies(Message):
    """A set of installed policies."""

    format: int
    """of records"""
    digest: str
    """of the set"""
    policies: tuple[InstalledPolicy, ...]
    """in the order in which hooks number them"""
    spec: PolicySpec
    """without the members that only loading needs"""
    node: Mapping[str, int]
    """the node's variables that the hooks were loaded with"""
    attached: tuple[AttachedHook, ...]
    """in the order of the pinned links and maps"""
    without: tuple[int, ...]
    """policies that are not in force"""
    failed: Mapping[str, tuple[str, str | None]]
    """hooks that this node does not have, by their place in `spec`, with reason and remedy"""
    calls: PinnedCalls | None = None
    """null if the set uses no dispatcher"""
