"""Calls as the model of policies sees them: who calls, with which arguments, and what is known of those."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from kubectl_gadget.policies.model import Argument
from tests.policies.model.workloads import Workload

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Connection:
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


@dataclass(frozen=True)
class File:
    """A file behind an argument."""

    path: str
    type: int = 0o100000
    identity: tuple[int, int] = (0, 0)
    """device and inode"""


ArgumentValue = int | str | Connection | File | None
"""None: could not be read."""


@dataclass(frozen=True)
class Process:
    """The process that makes a call, at that moment."""

    pid: int = 1
    namespace_pid: int = 0
    """0 in the node's own PID namespace; of an ancestor, when it is outside of the process's one"""
    ancestors: tuple["Process", ...] = ()
    """The parent first. Only their ids and binaries are looked at"""
    binary: str | None = "/bin/true"
    started_by: frozenset[str] = frozenset()
    """binaries that an ancestor, or the process itself before its last exec, ran at some time"""
    namespaces: Mapping[str, int] = field(default_factory=dict, hash=False)
    namespaces_at_exec: Mapping[str, int] = field(default_factory=dict, hash=False)
    host_namespaces: Mapping[str, int] = field(default_factory=dict, hash=False)
    capabilities: Mapping[str, int] = field(default_factory=dict, hash=False)
    capabilities_at_exec: Mapping[str, int] = field(default_factory=dict, hash=False)
    workload: Workload = field(default_factory=Workload)


@dataclass(frozen=True)
class Call:
    """One call of a hook's function."""

    process: Process
    values: Mapping[Argument, ArgumentValue] = field(default_factory=dict, hash=False)
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)
    """device and inode of the paths that `same_file` names"""
    returned: ArgumentValue = None
    architecture: str = "x86_64"
