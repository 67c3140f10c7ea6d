"""Tables of a gadget that the client fills while it runs: their contents, and UPDATE frames from one state to the next.

They are changed in one thread and sent from another, so a state is never modified, only replaced as a whole.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from kubectl_gadget.wire.client_messages import PodTable, Update
from kubectl_gadget.wire.policy_messages import LabelScopes

_ENTRIES = 20_000
"""in one frame"""


@dataclass(frozen=True)
class Contents:
    """Keys and values by table, as the maps store them; `containers` is the table whose values are given by pod."""

    tables: Mapping[str, Mapping[bytes, bytes]] = field(default_factory=dict)
    containers: str = ""
    pods: Mapping[str, bytes] = field(default_factory=dict)
    """by NAMESPACE/NAME, and by UID"""
    namespaces: Mapping[str, bytes] = field(default_factory=dict)
    """of pods in these namespaces that are not in `pods`"""
    other: bytes = b""
    """of all other pods, and of those outside of the run's selection"""
    host: bytes = b""
    labels: Mapping[str, tuple[int, ...]] | None = None
    """for the policy engine: the scopes that match a pod's labels, by its uid; None: not known yet"""
    node: tuple[int, ...] = ()
    """the same for the node's labels"""


class LiveTables:
    """The wanted contents of each node's tables. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contents: Callable[[str, tuple[str, ...]], Contents] = lambda node, addresses: Contents()
        self._listeners: list[Callable[[], None]] = []

    def replace(self, contents: Callable[[str, tuple[str, ...]], Contents]) -> None:
        """`contents` returns the contents for a node, by its name and the addresses that its agent reports."""
        with self._lock:
            self._contents = contents
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def of(self, node: str, addresses: tuple[str, ...] = ()) -> Contents:
        return self._contents(node, addresses)

    def listen(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls `changed` after each change, until the returned function is called."""
        with self._lock:
            self._listeners.append(changed)

        def end() -> None:
            with self._lock:
                self._listeners.remove(changed)

        return end


def first_labels(now: Contents) -> LabelScopes | None:
    """Returns the first labels for RUN, as in UPDATE; None when they are not known, or no policy uses labels."""
    return None if now.labels is None else _labels(Contents(), now)


def updates(gadget: int, before: Contents, now: Contents) -> Iterator[Update]:
    """Yields UPDATE frames that lead from one state to the next: first new entries, then pods, then removals."""
    for table, entries in now.tables.items():
        old = before.tables.get(table, {})
        new = {key: value for key, value in entries.items() if old.get(key) != value}
        for part in _parts(new):
            yield Update(gadget=gadget, set={table: part})
    if now.labels is not None and (before.labels is None or (before.labels, before.node) != (now.labels, now.node)):
        yield Update(gadget=gadget, labels=_labels(before, now))
    if containers := _containers(before, now):
        yield Update(gadget=gadget, containers=containers)
    for table, entries in before.tables.items():
        gone = {key: b"" for key in entries.keys() - now.tables.get(table, {}).keys()}
        for part in _parts(gone):
            yield Update(gadget=gadget, remove={table: tuple(part)})


def _labels(before: Contents, now: Contents) -> LabelScopes:
    old, new = before.labels or {}, now.labels or {}
    gone: dict[str, tuple[int, ...] | None] = dict.fromkeys(old.keys() - new.keys())
    changed = {pod: tuple(scopes) for pod, scopes in new.items() if old.get(pod) != scopes}
    return LabelScopes(node=tuple(now.node), pods=gone | changed)


def _containers(before: Contents, now: Contents) -> PodTable | None:
    pods, namespaces = _changes(before.pods, now.pods), _changes(before.namespaces, now.namespaces)
    if not now.containers or (before.containers and not pods and not namespaces):
        return None
    return PodTable(table=now.containers, other=now.other, host=now.host, pods=pods, namespaces=namespaces)


def _changes(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> dict[str, bytes | None]:
    gone: dict[str, bytes | None] = dict.fromkeys(before.keys() - now.keys())
    return gone | {name: value for name, value in now.items() if before.get(name) != value}


def _parts(entries: dict[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    left = iter(entries.items())
    while part := dict(islice(left, _ENTRIES)):
        yield part
