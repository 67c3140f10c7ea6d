"""A process of which all is known, for decisions on calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubectl_gadget.policies.model import Scope
from kubectl_gadget.policies.scope_labels import ScopedWorkload, belongs


@dataclass(frozen=True)
class Process:
    """Implements policies.decisions.calls.Caller."""

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
    workload: ScopedWorkload = field(default_factory=ScopedWorkload)

    def is_in(self, scope: Scope) -> bool:
        return belongs(scope, self.workload)
