"""The cluster's objects in a recording: what the informer delivered, and when the run's views saw it.

Views (`flows`, `observe`) replace what they know of the cluster when objects change. In a recorded run they do so
between two steps, so that a replay has the same names for the same rows. A view goes by the order of objects
where two had the same address, so both runs pass them in the order in which they were created.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICES, Object, Resource
from kubectl_gadget.recording.layout import DamagedError, json_of, to_json
from kubectl_gadget.recording.segments import merge_objects
from kubectl_gadget.wire.message import value_count

KINDS = (PODS, SERVICES, ENDPOINT_SLICES, NODES, NAMESPACES)
_BY_PLURAL = {kind.plural: kind for kind in KINDS}
_FIRST_SECONDS = 5.0
_KEEP_SECONDS = 600.0
_MOST_VALUES = 1_500_000
"""of all objects that are known at a time, which then take some 150 MB. 30,000 pods have fewer."""
_LEAST_LOOKS, _LOOKS_BY_BYTE = 5_000_000, 200
"""Objects that views look at after changes, at least, and by byte of the recordings: each change takes a kilobyte of
these, with the events beside it, and a cluster has up to 200,000 objects."""
_FEW_LOOKS = 16
"""Beyond these limits, views see changes only when one in this many objects has changed."""
Commit = Callable[[], object]


class ObjectsRecorder:
    """Stands between the informer and the followers of a recorded run."""

    def __init__(
        self, followers: Sequence[Follower], pods: Callable[[list[Object], list[str]], object] | None = None
    ) -> None:
        """`pods` gets the pods that are new or have changed, and the uids of those that are gone, in another thread."""
        self._followers = [one for one in followers if set(one.resources) <= set(KINDS)]
        self._others = [one for one in followers if one not in self._followers]
        self._pods = pods
        self._known: dict[Resource, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._lock = threading.Lock()
        self._changes: list[dict[str, Any]] = []
        self._commits: list[Commit] = []
        self._has_all_pods = True

    def followers(self) -> tuple[Follower, ...]:
        """Return the objects that the run has to follow, for the recording and for the views."""
        of_views = self._followers
        missing = "; ".join(dict.fromkeys(one.missing for one in of_views if one.missing))
        every = Follower(
            KINDS,
            self._take,
            max([_FIRST_SECONDS, *(one.first_seconds for one in of_views)]),
            max([_KEEP_SECONDS, *(one.keep_seconds for one in of_views)]),
            required=frozenset[Resource]().union(*(one.required for one in of_views)),
            missing=missing or "a replay will lack some names",
            unchanged="names of the cluster's objects are not updated",
            listed=lambda: [one.listed() for one in of_views],
            narrowed=self._narrow,
        )
        return (every, *self._others)

    def _narrow(self, resource: Resource) -> None:
        self._has_all_pods = self._has_all_pods and resource != PODS
        for one in self._followers:
            one.narrowed(resource)

    def begin_step(self) -> Sequence[Mapping[str, object]]:
        """Makes what has changed visible to the views, and returns it for the recording."""
        with self._lock:
            changes, self._changes = self._changes, []
            commits, self._commits = self._commits, []
        for commit in commits:
            commit()
        return changes

    def _take(self, found: Objects) -> None:
        kinds = {}
        for kind, known in self._known.items():
            now = {item["metadata"]["uid"]: item for item in found[kind]}
            if kind == NODES and not self._has_all_pods:
                # Without the ranges of pods' addresses, a replay cannot claim that no pod has one of them.
                now = {uid: {**item, "spec": {}} for uid, item in now.items()}
            put = [item for uid, item in now.items() if known.get(uid) is not item and known.get(uid) != item]
            gone = [uid for uid in known if uid not in now]
            if put or gone:
                kinds[kind.plural] = {"put": put, "gone": gone}
            if kind is PODS and self._pods is not None:
                self._pods(put, gone)
            self._known[kind] = now
        if not kinds:
            return
        commits = prepared(self._followers, self._known)
        with self._lock:
            self._changes.append({"kinds": kinds})
            self._commits += commits


class ReplayedObjects:
    """The objects of a recording, up to the point of the replay. Without followers, nothing is read.

    A hostile file is short and full of changes, and views look at all objects after each of them. So when
    they have looked at more than a run's views do, they see changes only when there are many.
    """

    def __init__(self, followers: Sequence[Follower], stored: int = 0) -> None:
        """`stored`: the size of the recordings, in bytes."""
        self._followers = followers
        self._known: dict[str, dict[str, Any]] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        """by kind and uid: about how many values each object has"""
        self._size = 0
        self._looks = _LEAST_LOOKS + _LOOKS_BY_BYTE * stored
        self._unseen = 0
        """changes that views have not seen"""

    def apply(self, changes: Iterable[bytes]) -> None:
        """Takes the changes of one step. Raises GadgetError, and what a view raises about an object."""
        if not self._followers:
            return
        for one in changes:
            self._merge(json_of(one))
        known = sum(map(len, self._known.values()))
        if not self._unseen or (self._looks < known and self._unseen * _FEW_LOOKS < known):
            return
        self._unseen = 0
        self._looks = max(0, self._looks - known)
        found = {kind: self._known.get(plural, {}) for plural, kind in _BY_PLURAL.items()}
        for commit in prepared(self._followers, found):
            commit()

    def _merge(self, changes: Mapping[str, Any]) -> None:
        """Raises DamagedError."""
        if changes.get("all"):
            self._sizes.clear()
            self._size = 0
        sizes = dict(_sizes(changes))
        size = self._size + sum(sizes.values()) - sum(self._sizes.get(key, 0) for key in sizes)
        if size > _MOST_VALUES:
            raise DamagedError(f"more than {_MOST_VALUES:,} values")
        merge_objects(self._known, changes)
        self._sizes |= sizes
        for kind, change in changes["kinds"].items():
            for uid in change.get("gone", ()):
                size -= self._sizes.pop((kind, uid), 0)
        self._size = size
        self._unseen += 1 + len(sizes)


def _sizes(changes: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], int]]:
    """Yield kind, uid and size of each object. Raise DamagedError."""
    try:
        for kind, change in changes["kinds"].items():
            for item in change.get("put", ()):
                yield (kind, item["metadata"]["uid"]), value_count(to_json(item))
    except (AttributeError, LookupError, TypeError) as error:
        raise DamagedError(f"objects cannot be read: {error!r}") from None


def prepared(followers: Iterable[Follower], known: Mapping[Resource, Mapping[str, Object]]) -> list[Commit]:
    """Has each follower take these objects, by kind and uid. Returns what makes the results visible."""
    found = {kind: sorted(items.values(), key=_created) for kind, items in known.items()}
    return [commit for one in followers if (commit := one.take(found)) is not None]


def _created(found: Object) -> tuple[str, str]:
    metadata = found["metadata"]
    return str(metadata.get("creationTimestamp", "")), str(metadata["uid"])
