"""Calls as the model of policies sees them: who calls, with which arguments, and what is known of those."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from kubectl_gadget.policies.model import Argument, Scope, Test

Address = IPv4Address | IPv6Address


class Undecided(Exception):
    """Whether a filter matches is not known, because a value is not. Its text says which one."""


@dataclass(frozen=True)
class ConnectionArgument:
    """A socket, a packet or an address, as far as it is known."""

    family: int | None = None
    protocol: int | None = None
    state: int | None = None
    source: Address | None = None
    destination: Address | None = None
    source_port: int | None = None
    destination_port: int | None = None
    path: str | None = None
    """of a Unix socket"""
    unknown: frozenset[Test] = frozenset()
    """tests whose answer is not known"""


@dataclass(frozen=True)
class FileArgument:
    """A file behind an argument."""

    path: str
    type: int = 0o100000
    identity: tuple[int, int] = (0, 0)
    """device and inode"""
    unknown: frozenset[Test] = frozenset()
    """tests whose answer is not known"""


ArgumentValue = int | str | ConnectionArgument | FileArgument | None
"""None: could not be read."""


class CallingProcess(Protocol):
    """The process that makes a call, at that moment. Reading a member, or asking it, raises Undecided where the answer
    is not known."""

    @property
    def pid(self) -> int: ...
    @property
    def namespace_pid(self) -> int:
        """0 in the node's own PID namespace; of an ancestor, when it is outside of the process's one"""

    @property
    def ancestors(self) -> "Iterable[CallingProcess]":
        """The parent first. Only their ids and binaries are looked at"""

    @property
    def binary(self) -> str | None: ...
    @property
    def started_by(self) -> frozenset[str]:
        """binaries that an ancestor, or the process itself before its last exec, ran at some time"""

    @property
    def namespaces(self) -> Mapping[str, int]: ...
    @property
    def namespaces_at_exec(self) -> Mapping[str, int]: ...
    @property
    def host_namespaces(self) -> Mapping[str, int]: ...
    @property
    def capabilities(self) -> Mapping[str, int]: ...
    @property
    def capabilities_at_exec(self) -> Mapping[str, int]: ...

    def is_in(self, scope: Scope) -> bool:
        """Whether the scope is for its workload."""


@dataclass(frozen=True)
class Call:
    """One call of a hook's function."""

    process: CallingProcess
    values: Mapping[Argument, ArgumentValue] = field(default_factory=dict, hash=False)
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)
    """device and inode of the paths that `same_file` names"""
    returned: ArgumentValue | Undecided = None
    architecture: str = "x86_64"

    def result(self) -> ArgumentValue:
        """What was returned. Raises Undecided."""
        if isinstance(self.returned, Undecided):
            raise self.returned
        return self.returned
