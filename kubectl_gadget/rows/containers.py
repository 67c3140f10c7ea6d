"""Finds the container of each row by its cgroup id.

The agent announces cgroups and containers in CONTAINERS frames (docs/protocol.md) before the first event of each
cgroup; Identity keeps them for one node and looks up whole columns. A removed container stays known for some minutes,
since events that name it may still be on their way.
"""

import marshal
import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.errors import FrameError
from kubectl_gadget.rows.vectors import Array, Integers, different

if TYPE_CHECKING:
    from kubectl_gadget.wire.agent_messages import ContainerChanges, ContainerNames
    from kubectl_gadget.wire.client_messages import FilterSpec


Codes = npt.NDArray[np.intp]
KEEP_SECONDS = 300.0
"""Seconds for which a removed container stays known."""
_MOST_REMOVED = 65_536
"""Maximum number of removed cgroups that are kept, however recently they were removed."""
_MOST_KNOWN = 1 << 18
"""Maximum number of cgroups, and of containers, of one node. No node runs that many; those of a container that makes
cgroups all the time fit."""
_MOST_INDEXED = 4096
_ELSEWHERE = 1 << 63
"""GADGET_ELSEWHERE (bpf/include/gadget/processes/moved.h): set in the cgroup id of a container's process that has left
the container's cgroup."""


@dataclass(frozen=True, slots=True)
class Container:
    """The owner of a cgroup. Names that do not exist are empty: a host process has no pod."""

    kind: str = "unknown"
    """container, sandbox, host, or unknown (the agent has not named the cgroup)"""
    namespace: str = ""
    pod: str = ""
    container: str = ""
    image: str = ""
    container_id: str = ""
    pod_uid: str = ""
    runtime: str = ""
    earlier: bool = False
    """it existed before its node was watched"""
    moved: bool = False
    """for a process that this container started, but whose cgroup is not the container's"""

    @property
    def pod_name(self) -> str:
        """NAMESPACE/NAME of its pod; "" if the pod has no name."""
        return f"{self.namespace}/{self.pod}" if self.pod else ""

    @property
    def container_mark(self) -> str | None:
        """A mark to show with the container's name: it is a sandbox, or the process has moved."""
        if self.moved:
            return "moved"
        return "sandbox" if self.kind == "sandbox" else None


SANDBOX = "POD"
"""The container name that the agent gives to every sandbox (agent/containers/identity.py)."""

UNKNOWN = Container()
HOST = Container("host")


class ContainerFilter:
    """The selection of containers to trace: the meaning of FILTER (docs/protocol.md)."""

    def __init__(self, wanted: "FilterSpec") -> None:
        from kubectl_gadget.wire.client_messages import PodNames  # FilterSpec's module, which help does not import

        self._namespaces, self._containers = (
            None if names is None else frozenset(names) for names in (wanted.namespaces, wanted.containers)
        )
        self._pods = None if wanted.pods is None else PodNames(wanted.pods)
        self._exclude_pods = frozenset(wanted.exclude_pods)
        self._host = wanted.host

    def wanted(self, container: Container) -> bool:
        """Applies the agent's rule to the rows that it sent. An unnamed cgroup is wanted if nothing is restricted."""
        if container.kind == "host":
            return self._host
        if self._exclude_pods and {container.pod_uid, container.pod_name} & self._exclude_pods:
            return False
        if container.kind == "unknown":
            return self._namespaces is None and self._pods is None and self._containers is None
        return (
            (self._namespaces is None or container.namespace in self._namespaces)
            and (self._pods is None or container.pod in self._pods)
            and (self._containers is None or container.container in self._containers)
        )


Judge = Callable[[Container], int]
"""Decides about a container."""


class Owners(NamedTuple):
    """The container of each row: `containers[codes[row]]`."""

    codes: Codes
    containers: Sequence[Container]

    def select(self, rows: Array) -> "Owners":
        """The owners of some rows, given as indices or as a mask."""
        return Owners(self.codes[rows], self.containers)

    def judged(self, judge: Judge) -> npt.NDArray[np.int8]:
        """The result of `judge` for each row's container."""
        if len(self.codes) < len(self.containers):
            found = (judge(self.containers[code]) for code in self.codes.tolist())
            return np.fromiter(found, np.int8, len(self.codes))
        return np.fromiter(map(judge, self.containers), np.int8, len(self.containers))[self.codes]

    def judged_by(self, judges: Sequence[Judge], places: Codes) -> npt.NDArray[np.int8]:
        """Return the results for rows of several nodes, each by the judge at the row's place."""
        found, known = [], dict[tuple[int, int], int]()
        for key in zip(places.tolist(), self.codes.tolist(), strict=True):
            verdict = known.get(key)
            if verdict is None:
                verdict = known[key] = judges[key[0]](self.containers[key[1]])
            found.append(verdict)
        return np.array(found, np.int8)

    def unattributed(self) -> int:
        """The number of rows whose cgroup the agent has not named."""
        return int(np.count_nonzero(self.codes == 0))


def join_owners(pieces: Sequence[tuple[Owners | None, int]]) -> Owners:
    """Concatenates the owners of several batches, each given with its number of rows. Code 0 stays UNKNOWN."""
    codes, containers = list[Codes](), [UNKNOWN]
    for owners, count in pieces:
        if owners is None:
            codes.append(np.zeros(count, np.intp))
        else:
            codes.append(np.where(owners.codes == 0, 0, owners.codes + (len(containers) - 1)))
            containers.extend(owners.containers[1:])
    used, dense = different(np.concatenate([np.zeros(1, np.intp), *codes]))
    return Owners(dense[1:].astype(np.intp, copy=False), [containers[code] for code in used.tolist()])


def owners_on(identities: Sequence["Identity"], places: Codes, cgroups: Integers) -> Owners:
    """The owners of a few cgroups on each of many nodes: `places` are indices of `identities`. Code 0 is UNKNOWN."""
    containers, numbers = [UNKNOWN], {id(UNKNOWN): 0}
    codes = []
    for place, cgroup in zip(places.tolist(), cgroups.tolist(), strict=True):
        container = identities[place].owner(cgroup)
        number = numbers.get(id(container))
        if number is None:
            number = numbers[id(container)] = len(containers)
            containers.append(container)
        codes.append(number)
    return Owners(np.array(codes, np.intp), containers)


# The owners of a node's cgroups as it announced them, in little memory: most of a thousand nodes' containers never have
# a row. Until one does, what only one container has is bytes, and what many have is one tuple for all. Until a node's
# containers change, the bytes of all of them are one object.

Packed = bytes | str
"""Hexadecimal digits as the bytes that they stand for, which take half the memory; any other text as it is."""
_ID_DIGITS, _UID_DIGITS = 64, 32
_HOST = -1
"""instead of the place of a container's bytes"""


def packed_id(id: str) -> Packed:
    return _packed(id, id, _ID_DIGITS)


def packed_uid(uid: str) -> Packed:
    digits = uid.replace("-", "")
    return _packed(uid, digits, _UID_DIGITS) if _hyphenated(digits) == uid else uid


def unpacked_id(packed: Packed) -> str:
    return packed if isinstance(packed, str) else packed.hex()


def unpacked_uid(packed: Packed) -> str:
    return packed if isinstance(packed, str) else _hyphenated(packed.hex())


def _packed(text: str, digits: str, count: int) -> Packed:
    """Return the text packed, if `digits` are `count` hexadecimal digits."""
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        return text
    return packed if len(digits) == count and packed.hex() == digits else text


def _hyphenated(digits: str) -> str:
    """As Kubernetes writes UIDs: 8-4-4-4-12."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class SharedNames(NamedTuple):
    """The members that containers on many nodes share."""

    namespace: str
    container: str
    image: str
    runtime: str


@lru_cache(4096)
def shared_names(*names: str) -> SharedNames:
    """The members of SharedNames, mostly as one object for all containers that have them."""
    return SharedNames(*map(sys.intern, names))


OwnNames = tuple[Packed, bool, bool, str, Packed]
"""The members that only one container has: its ID, whether it is a sandbox, whether it existed before its node was
watched, and its pod's name and UID."""


class Announced:
    """A container of a node."""

    __slots__ = ("_own", "shared", "uses")

    def __init__(self, own: bytes | memoryview, shared: SharedNames | None = None) -> None:
        """`own`: what `packed` gave, whatever follows it."""
        self._own = own
        self.shared = shared
        """None: it has only an ID yet"""
        self.uses = 0
        """its cgroups"""

    @property
    def id(self) -> Packed:
        id: Packed = marshal.loads(self._own)[0]
        return id

    @property
    def own(self) -> OwnNames:
        """Its own names; it has them."""
        own: OwnNames = marshal.loads(self._own)
        return own

    @property
    def packed(self) -> bytes:
        """Its own names or its ID, as the constructor takes them."""
        return bytes(self._own)

    def name(self, own: OwnNames, shared: SharedNames) -> None:
        """Takes its names."""
        self._own, self.shared = marshal.dumps(own), shared


def announced(id: Packed) -> Announced:
    """A container without names."""
    return Announced(marshal.dumps((id,)))


class AnnouncedOwners:
    """The containers of cgroups; None: the host. A dictionary, or once it is packed, until its next change, arrays that
    are sorted by cgroup. Numbers that do not fit into 64 bits without a sign keep it from being packed."""

    __slots__ = ("_cgroups", "_own", "_shared", "_starts", "_unpacked")

    def __init__(self) -> None:
        self._unpacked: dict[int, Announced | None] | None = {}
        self._clear()

    def _clear(self) -> None:
        self._cgroups, self._starts, self._own = array("Q"), array("i"), b""
        self._shared: tuple[SharedNames | None, ...] = ()

    def __len__(self) -> int:
        return len(self._cgroups if self._unpacked is None else self._unpacked)

    def __contains__(self, cgroup: int) -> bool:
        if self._unpacked is not None:
            return cgroup in self._unpacked
        place = bisect_left(self._cgroups, cgroup)
        return place < len(self._cgroups) and self._cgroups[place] == cgroup

    def __getitem__(self, cgroup: int) -> Announced | None:
        """The owner of a cgroup that it contains. A new object at each call while it is packed."""
        return self._at(bisect_left(self._cgroups, cgroup)) if self._unpacked is None else self._unpacked[cgroup]

    def values(self) -> Iterator[Announced | None]:
        """The owner of each cgroup, in any order, as by __getitem__."""
        return map(self._at, range(len(self._cgroups))) if self._unpacked is None else iter(self._unpacked.values())

    def _at(self, place: int) -> Announced | None:
        start = self._starts[place]
        return None if start == _HOST else Announced(memoryview(self._own)[start:], self._shared[place])

    def pack(self) -> None:
        """Packs it until the next call of `unpack`."""
        if not self._unpacked or min(self._unpacked) < 0 or max(self._unpacked) >= 1 << 64:
            return
        cgroups = sorted(self._unpacked)
        owners = [self._unpacked[cgroup] for cgroup in cgroups]
        starts: dict[Announced | None, int] = {None: _HOST}
        pieces, size = list[bytes](), 0
        for owner in owners:
            if owner not in starts and owner is not None:
                starts[owner] = size
                pieces.append(piece := owner.packed)
                size += len(piece)
        self._cgroups, self._starts = array("Q", cgroups), array("i", [starts[owner] for owner in owners])
        self._shared = tuple([None if owner is None else owner.shared for owner in owners])
        self._own, self._unpacked = b"".join(pieces), None

    def unpack(self) -> dict[int, Announced | None]:
        """The dictionary, for changes."""
        if self._unpacked is None:
            starts = sorted({*self._starts, len(self._own)} - {_HOST})
            pieces = {start: self._own[start:end] for start, end in pairwise(starts)}
            owners = {start: Announced(piece) for start, piece in pieces.items()}
            self._unpacked = {}
            for cgroup, start, shared in zip(self._cgroups, self._starts, self._shared, strict=True):
                owner = self._unpacked[cgroup] = owners.get(start)
                if owner is not None:
                    owner.shared = shared
                    owner.uses += 1
            self._clear()
        return self._unpacked


# One node.


def _container(owner: Announced | None) -> Container:
    if owner is None:
        return HOST
    if owner.shared is None:
        return UNKNOWN
    id, is_sandbox, earlier, pod, pod_uid = owner.own
    return Container(
        kind="sandbox" if is_sandbox else "container",
        namespace=owner.shared.namespace,
        pod=pod,
        container=owner.shared.container,
        image=owner.shared.image,
        container_id=unpacked_id(id),
        pod_uid=unpacked_uid(pod_uid),
        runtime=owner.shared.runtime,
        earlier=earlier,
    )


def _name(owner: Announced, item: "ContainerNames") -> None:
    """Gives a container its names."""
    # After a reconnect, the agent reports as earlier what this client has seen start.
    earlier = item.earlier and (owner.shared is None or _container(owner).earlier)
    owner.name(
        (owner.id, item.kind == "sandbox", earlier, item.pod, packed_uid(item.pod_uid)),
        shared_names(item.namespace, item.container, item.image, item.runtime),
    )


class Identity:
    """The containers of one node. Times are in seconds of any monotonic clock.

    A container may create ten thousand cgroups, and create and remove some all the time. So the cost of each call
    depends only on the cgroups in the frame or in the rows.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self._owners = AnnouncedOwners()
        self._by_id: dict[Packed, Announced] | None = None
        """None, as on most nodes: each container owns a cgroup, and no later frame has named one"""
        self._removed: dict[int, float] = {}  # oldest first
        self._forget_index()

    def __len__(self) -> int:
        return len(self._owners)

    def apply(self, changes: "ContainerChanges", now: float) -> None:
        """Takes one CONTAINERS frame. Raises FrameError if the node would have more than any node has."""
        self._check_room(changes)
        is_first = not self._owners
        named: dict[str, Announced] = {}
        for item in changes.containers:
            _name(self._find_or_add(item.id, named), item)
        if named:
            self._forget_index()
        for cgroup, id in changes.cgroups.items():
            self._own(cgroup, None if id is None else self._find_or_add(id, named))
        if self._by_id is None and not all(container.uses for container in named.values()):
            self._containers_by_id().update((container.id, container) for container in named.values())
        for cgroup in changes.removed:
            if cgroup in self._owners:
                self._removed.pop(cgroup, None)
                self._removed[cgroup] = now
        if is_first and self._by_id is None:
            self._owners.pack()
        self.expire(now)

    def _check_room(self, changes: "ContainerChanges") -> None:
        known = len(self._by_id) if self._by_id is not None else 0
        for what, before, more in (
            ("cgroups", len(self._owners), len(changes.cgroups)),
            ("containers", known, len(changes.containers)),
        ):
            if before + more > _MOST_KNOWN:
                raise FrameError(f"CONTAINERS: more than {_MOST_KNOWN:,} {what}")

    def expire(self, now: float) -> None:
        """Forgets cgroups removed more than KEEP_SECONDS ago, and the oldest above the maximum number."""
        while self._removed:
            cgroup, since = next(iter(self._removed.items()))
            if now - since <= KEEP_SECONDS and len(self._removed) <= _MOST_REMOVED:
                return
            del self._removed[cgroup]
            owner = self._disown(cgroup)
            if owner is not None and not owner.uses and self._by_id is not None:
                self._by_id.pop(owner.id, None)

    def lookup(self, cgroups: Integers) -> Owners:
        """The owner of each row's cgroup. Code 0 is UNKNOWN."""
        ids = cgroups.astype(np.uint64, copy=False)
        codes = self._indexed(ids)
        if (missing := codes < 0).any():
            if len(self._codes) > _MOST_INDEXED:
                self._forget_index()
                missing[:] = True
            # Without np.unique(), which imports numpy.ma at its first call: 7 ms of each run.
            if self._learn(sorted(set(ids[missing].tolist()))):
                codes = self._indexed(ids)
        return Owners(np.maximum(codes, 0), self._indexed_containers)

    def owner(self, cgroup: int) -> Container:
        """Like `lookup`, for a single cgroup."""
        code = self._codes.get(cgroup)
        if code is None and cgroup & ~_ELSEWHERE in self._owners:
            if len(self._codes) > _MOST_INDEXED:
                self._forget_index()
            self._learn([cgroup])
            code = self._codes[cgroup]
        return UNKNOWN if code is None else self._indexed_containers[code]

    def containers(self) -> list[Container]:
        """All containers that are known now, including removed ones."""
        found = map(_container, self._owners.values())
        return [container for container in dict.fromkeys(found) if container != UNKNOWN]

    def _find_or_add(self, container_id: str, named: dict[str, Announced]) -> Announced:
        """Return the container with this id. `named`: the containers of the frame, which gets this one, too."""
        found = named.get(container_id)
        if found is None:
            id = packed_id(container_id)
            known = self._containers_by_id() if self._owners or self._by_id is not None else {}
            found = named[container_id] = known.get(id) or known.setdefault(id, announced(id))
        return found

    def _containers_by_id(self) -> dict[Packed, Announced]:
        if self._by_id is None:
            self._by_id = {owner.id: owner for owner in self._owners.unpack().values() if owner is not None}
        return self._by_id

    def _own(self, cgroup: int, owner: Announced | None) -> None:
        if cgroup in self._owners:
            self._containers_by_id()  # its container may own nothing then
            self._disown(cgroup)
            self._removed.pop(cgroup, None)
        self._owners.unpack()[cgroup] = owner
        if owner is not None:
            owner.uses += 1

    def _disown(self, cgroup: int) -> Announced | None:
        """Removes a cgroup's owner and returns it; None: the host, or nothing."""
        if cgroup in self._codes or cgroup | _ELSEWHERE in self._codes:
            self._forget_index()
        owner = self._owners.unpack().pop(cgroup, None)
        if owner is not None:
            owner.uses -= 1
        return owner

    def _forget_index(self) -> None:
        """Clears the index, which has only cgroups that rows have named; most cgroups never have a row."""
        self._codes: dict[int, int] = {}
        self._indexed_containers = [UNKNOWN]
        self._numbers: dict[Container, int] = {}
        """of indexed containers"""
        self._index: tuple[npt.NDArray[np.uint64], Codes] | None = None

    def _indexed(self, ids: npt.NDArray[np.uint64]) -> Codes:
        """The codes of these cgroups; -1 for those that are not in the index."""
        if not self._codes:
            return np.full(len(ids), -1, np.intp)
        if self._index is None:
            pairs = sorted(self._codes.items())
            codes_of = np.fromiter((code for _, code in pairs), np.intp, len(pairs))
            self._index = np.array([cgroup for cgroup, _ in pairs], np.uint64), codes_of
        known, codes = self._index
        places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[places] == ids, codes[places], -1)

    def _learn(self, ids: Iterable[int]) -> bool:
        """Adds cgroups to the index. Returns False if none of them is known."""
        before = len(self._codes)
        for cgroup in ids:
            if cgroup & ~_ELSEWHERE not in self._owners:
                continue
            container = _container(self._owners[cgroup & ~_ELSEWHERE])
            if cgroup & _ELSEWHERE and container not in (HOST, UNKNOWN):
                container = replace(container, moved=True)
            number = self._numbers.get(container)
            if number is None:
                number = self._numbers[container] = self._add_to_index(container)
            self._codes[cgroup] = number
        if len(self._codes) == before:
            return False
        self._index = None
        return True

    def _add_to_index(self, container: Container) -> int:
        if container is UNKNOWN:
            return 0
        self._indexed_containers.append(container)
        return len(self._indexed_containers) - 1
