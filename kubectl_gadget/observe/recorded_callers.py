"""The process of a recorded call as policies look at it (policies.decisions.calls.Caller).

The trap: what is not known raises Undecided; namespaces and capabilities are those at the program's start, and become
unknown once the process changes them.
"""

from collections.abc import Callable, Iterator, Mapping

from kubectl_gadget.linux.processes import NAMESPACE_KINDS
from kubectl_gadget.observe.happening import ProcessEvent
from kubectl_gadget.observe.process import Process
from kubectl_gadget.observe.process_table import ProcessTable
from kubectl_gadget.policies.decisions.calls import CallingProcess, Undecided
from kubectl_gadget.policies.model import Scope
from kubectl_gadget.rows.container_lookup import Container

_MOST_ANCESTORS = 512


class RecordedCaller:
    """The process of a call, as far as rows say; see policies.decisions.calls.Caller."""

    def __init__(
        self,
        process: Process | None,
        table: ProcessTable,
        container: Container,
        is_in: Callable[[Scope, Container, str], bool],
        sees_changes: bool,
        descendant: "RecordedCaller | None" = None,
    ) -> None:
        """`sees_changes`: the recording has what processes have changed since their programs began. `descendant`: the
        process of the call, of which this is an ancestor."""
        self._process = process
        self._table = table
        self._container = container
        self._is_in = is_in
        self._sees_changes = sees_changes
        self._descendant = descendant

    @property
    def _known(self) -> Process:
        if self._process is None:
            raise Undecided("the process, of which no row came before")
        return self._process

    @property
    def _event(self) -> ProcessEvent:
        event = self._known.event
        if event is None:
            raise Undecided("the process")
        return event

    @property
    def pid(self) -> int:
        return self._known.id.pid

    @property
    def namespace_pid(self) -> int:
        if self._descendant is not None and self._event.namespaces["pid"] != self._descendant._event.namespaces["pid"]:
            return 0
        return 0 if self._is_host("pid") else self._event.container_pid

    def _is_host(self, kind: str) -> bool:
        bits = self._event.host_namespaces
        if bits is None:
            raise Undecided("whether a namespace is the node's")
        return bool(bits >> NAMESPACE_KINDS.index(kind) & 1)

    @property
    def ancestors(self) -> Iterator[CallingProcess]:
        each = self._parent()
        for _ in range(_MOST_ANCESTORS):
            if each is None:
                return
            yield each
            each = each._parent()

    def _parent(self) -> "RecordedCaller | None":
        """None: it has none. Raises Undecided."""
        id = self._known.parent_id
        if id is None or not id.pid:
            return None
        parent = self._table.current(id.pid) or self._known.parent
        if parent is None or parent.has_ended:
            raise Undecided("the parent, which has ended or of which no row came before")
        of = self._descendant or self
        return RecordedCaller(parent, self._table, parent.container, self._is_in, False, of)

    @property
    def binary(self) -> str | None:
        if self._known.exe is None:
            raise Undecided("the program")
        return self._known.exe

    @property
    def started_by(self) -> frozenset[str]:
        found = set(self._known.started_by)
        for each in self._known.ancestors():
            found |= each.started_by | ({each.exe} if each.exe else set())
        return frozenset(found)

    @property
    def namespaces(self) -> Mapping[str, int]:
        self._unchanged("namespaces")
        return self._event.namespaces

    @property
    def namespaces_at_exec(self) -> Mapping[str, int]:
        self._seen("namespaces")
        return self.namespaces

    @property
    def host_namespaces(self) -> Mapping[str, int]:
        """See CallingProcess: the number is the process's own if that is the node's, and else one that no namespace
        has."""
        return {kind: number if self._is_host(kind) else -1 for kind, number in self._event.namespaces.items()}

    @property
    def capabilities(self) -> Mapping[str, int]:
        self._unchanged("capabilities")
        own = self._event.credentials
        return {"effective": own.effective, "inheritable": own.inheritable, "permitted": own.permitted}

    @property
    def capabilities_at_exec(self) -> Mapping[str, int]:
        self._seen("capabilities")
        return self.capabilities

    def _seen(self, kind: str) -> None:
        if not self._sees_changes:
            raise Undecided(f"changes of {kind}")

    def _unchanged(self, kind: str) -> None:
        if kind in self._known.changed:
            raise Undecided(f"the {kind}, which the process has changed")

    def is_in(self, scope: Scope) -> bool:
        return self._is_in(scope, self._container, self._table.node)
