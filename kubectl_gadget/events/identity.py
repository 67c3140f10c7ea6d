"""Which container a row belongs to, by cgroup id.

The agent tells cgroups and containers in CONTAINERS frames (docs/protocol.md) before the first event of each cgroup;
this keeps them for one node and answers for whole columns. The trap: a container that is gone must stay known for
some minutes, since events that name it may still be on their way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.intp]

COLUMNS = ("node", "namespace", "pod", "container", "image", "container_id", "pod_uid", "runtime")
"""Columns that come from here and not from the record; `Column.field` names them."""


def owner_source(field: str) -> tuple[str, str] | None:
    """Whose name a Column.field asks for, and which of COLUMNS; None when it is a field of the record.

    "pod" is ("cgroup", "pod"); a record that names a second party in its gadget_cgroup field `receiver` has
    "receiver.pod", which is ("receiver", "pod").
    """
    party, _, name = field.rpartition(".")
    return (party or "cgroup", name) if name in COLUMNS else None


KEEP_SECONDS = 300.0
"""How long a removed container stays known."""


@dataclass(frozen=True)
class Container:
    """Whom a cgroup belongs to. Names that do not exist are empty: a host process has no pod."""

    kind: str = "unknown"
    """container, sandbox, host, or unknown (the agent has not named the cgroup)"""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    image: str = ""
    container_id: str = ""
    pod_uid: str = ""
    runtime: str = ""


UNKNOWN = Container()
HOST = Container("host")


@dataclass(frozen=True)
class ContainerFilter:
    """Which containers are traced: FILTER of docs/protocol.md. None means any."""

    namespaces: frozenset[str] | None = None
    pods: frozenset[str] | None = None
    containers: frozenset[str] | None = None
    exclude_pods: frozenset[str] = frozenset()
    host: bool = False

    def to_json(self) -> dict[str, Any]:
        """The payload of FILTER."""

        def names(value: frozenset[str] | None) -> list[str] | None:
            return None if value is None else sorted(value)

        return {
            "namespaces": names(self.namespaces),
            "pods": names(self.pods),
            "containers": names(self.containers),
            "exclude_pods": sorted(self.exclude_pods),
            "host": self.host,
        }

    def wanted(self, container: Container) -> bool:
        """The agent's rule, for what it let through. A cgroup without a name is wanted when nothing is restricted."""
        if container.kind == "host":
            return self.host
        if container.kind == "sandbox" or container.pod_uid in self.exclude_pods:
            return False
        if container.kind == "unknown":
            return self.namespaces is None and self.pods is None and self.containers is None
        return (
            (self.namespaces is None or container.namespace in self.namespaces)
            and (self.pods is None or container.pod in self.pods)
            and (self.containers is None or container.container in self.containers)
        )


class Owners(NamedTuple):
    """The container of each row: `containers[codes[row]]`."""

    codes: Codes
    containers: Sequence[Container]

    def select(self, rows: npt.NDArray[Any]) -> "Owners":
        """The same for some rows, by indices or mask."""
        return Owners(self.codes[rows], self.containers)

    def judged(self, judge: Callable[[Container], int]) -> npt.NDArray[np.int8]:
        """What `judge` says of each row's container."""
        return np.fromiter(map(judge, self.containers), np.int8, len(self.containers))[self.codes]

    def unattributed(self) -> int:
        """How many rows belong to a cgroup that the agent has not named."""
        return int(np.count_nonzero(self.codes == 0))


def join_owners(pieces: Sequence[tuple[Owners | None, int]]) -> Owners:
    """The owners of several batches' rows one after the other; with each, its number of rows. Code 0 stays UNKNOWN."""
    codes, containers = list[Codes](), [UNKNOWN]
    for owners, count in pieces:
        if owners is None:
            codes.append(np.zeros(count, np.intp))
        else:
            codes.append(np.where(owners.codes == 0, 0, owners.codes + (len(containers) - 1)))
            containers.extend(owners.containers[1:])
    used, dense = np.unique(np.concatenate([np.zeros(1, np.intp), *codes]), return_inverse=True)
    return Owners(dense[1:], [containers[code] for code in used.tolist()])


class Identity:
    """The containers of one node. Times are seconds of any monotonic clock."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._containers: dict[str, Container] = {}
        self._owners: dict[int, str | None] = {}
        self._removed: dict[int, float] = {}
        self._index: tuple[npt.NDArray[np.uint64], Codes, list[Container]] | None = None

    def __len__(self) -> int:
        return len(self._owners)

    def apply(self, payload: Mapping[str, Any], now: float) -> None:
        """Takes one CONTAINERS frame. Raises KeyError, TypeError or ValueError when it is not one."""
        for item in payload.get("containers") or ():
            self._containers[item["id"]] = _container(item)
        for key, container_id in (payload.get("cgroups") or {}).items():
            cgroup = int(key)
            self._owners[cgroup] = container_id
            self._removed.pop(cgroup, None)
        for cgroup in payload.get("removed") or ():
            if cgroup in self._owners:
                self._removed[cgroup] = now
        self.expire(now)
        self._index = None

    def expire(self, now: float) -> None:
        """Forgets what was removed more than KEEP_SECONDS ago."""
        gone = [cgroup for cgroup, since in self._removed.items() if now - since > KEEP_SECONDS]
        if not gone:
            return
        for cgroup in gone:
            del self._removed[cgroup]
            self._owners.pop(cgroup, None)
        in_use = set(self._owners.values())
        self._containers = {key: value for key, value in self._containers.items() if key in in_use}
        self._index = None

    def lookup(self, cgroups: npt.NDArray[np.integer[Any]]) -> Owners:
        """Who owns each row's cgroup. Code 0 is UNKNOWN."""
        known, codes, containers = self._index or self._make_index()
        if len(known) == 0 or len(cgroups) == 0:
            return Owners(np.zeros(len(cgroups), np.intp), containers)
        ids = cgroups.astype(np.uint64, copy=False)
        places = np.searchsorted(known, ids)
        np.minimum(places, len(known) - 1, out=places)
        return Owners(np.where(known[places] == ids, codes[places], 0), containers)

    def containers(self) -> list[Container]:
        """All containers that are known now, removed ones too."""
        return (self._index or self._make_index())[2][1:]

    def _make_index(self) -> tuple[npt.NDArray[np.uint64], Codes, list[Container]]:
        containers = [UNKNOWN]
        numbers = {UNKNOWN: 0}
        cgroups = sorted(self._owners)
        codes = np.zeros(len(cgroups), np.intp)
        for place, cgroup in enumerate(cgroups):
            owner = self._owners[cgroup]
            container = HOST if owner is None else self._containers.get(owner, UNKNOWN)
            if container not in numbers:
                numbers[container] = len(containers)
                containers.append(container)
            codes[place] = numbers[container]
        self._index = (np.array(cgroups, np.uint64), codes, containers)
        return self._index


def _container(item: Mapping[str, Any]) -> Container:
    def text(key: str) -> str:
        value = item.get(key)
        return value if isinstance(value, str) else ""

    kind = "sandbox" if item.get("kind") == "sandbox" else "container"
    return Container(
        kind=kind,
        namespace=text("namespace"),
        pod=text("pod"),
        container=text("container"),
        image=text("image"),
        container_id=text("id"),
        pod_uid=text("pod_uid"),
        runtime=text("runtime"),
    )
