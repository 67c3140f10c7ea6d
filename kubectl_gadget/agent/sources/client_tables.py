"""Tables of a running gadget that the client fills: UPDATE of docs/protocol.md.

Entries are set and removed unchanged, except in the table of containers: the client sends it by pod, and the agent
fills it by cgroup, since a container's first packet may come before any answer of the client. The trap: new entries are
set before the containers that may use them, and old entries removed after them, or packets would be refused for a
moment.
"""

import errno
import struct

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.bpf.object import TABLE_PREFIX, BpfObject
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import PodTable, Update


class ClientTables:
    """The tables of one gadget."""

    def __init__(self, gadget: str, object: BpfObject, containers: Containers) -> None:
        self._gadget = gadget
        self._object = object
        self._containers = containers
        self._by_container: _ByContainer | None = None

    def update(self, update: Update) -> None:
        """Raises FrameError when the update does not fit the maps, and AgentError when the kernel refuses an entry."""
        for name, entries in update.set.items():
            map = self._map(name)
            for key, value in entries.items():
                _put(self._gadget, name, map, _exact(key, map.key_size), _exact(value, map.value_size))
        if update.containers is not None:
            self._update_containers(update.containers)
        for name, keys in update.remove.items():
            map = self._map(name)
            for key in keys:
                map.remove(_exact(key, map.key_size))

    def _update_containers(self, table: PodTable) -> None:
        if self._by_container is not None:
            self._by_container.update(table)
            return
        self._by_container = _ByContainer(self._gadget, table.table, self._map(table.table))
        self._by_container.update(table)
        self._containers.follow(self._by_container)

    def _map(self, name: str) -> BpfMap:
        map = self._object.map(TABLE_PREFIX + name)
        if map is None:
            raise AgentError(f"gadget {self._gadget} has no table {name}", "update the client or the agents")
        return map


class _ByContainer:
    """A ContainerFollower that sets, for each cgroup of a container, the entry of the container's pod."""

    def __init__(self, gadget: str, name: str, map: BpfMap) -> None:
        self._gadget = gadget
        self._name = name
        self._map = map
        self._known: dict[int, tuple[ContainerIdentity | None, bool]] = {}
        self._pods: dict[str, bytes] = {}
        self._namespaces: dict[str, bytes] = {}
        self._other = self._host = b""

    def update(self, table: PodTable) -> None:
        """Applies changed entries of pods. Raises FrameError when they do not fit the map."""
        size = self._map.value_size
        for known, changes in ((self._pods, table.pods), (self._namespaces, table.namespaces)):
            for name, value in changes.items():
                if value is None:
                    known.pop(name, None)
                else:
                    known[name] = _exact(value, size)
        self._other, self._host = _exact(table.other, size), _exact(table.host, size)
        for cgroup, (container, wanted) in self._known.items():
            self._write(cgroup, container, wanted)

    def set_owner(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        self._known[cgroup] = container, wanted
        self._write(cgroup, container, wanted)

    def forget(self, cgroup: int) -> None:
        self._known.pop(cgroup, None)
        self._map.remove(struct.pack("<Q", cgroup))

    def _write(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        _put(self._gadget, self._name, self._map, struct.pack("<Q", cgroup), self._entry(container, wanted))

    def _entry(self, container: ContainerIdentity | None, wanted: bool) -> bytes:
        if container is None or not (container.pod or container.pod_uid):
            return self._host
        # Pods that the client isolates are in the table by UID only, since a name outlives its pod. Of a container
        # without names, only the UID is known, from its cgroup's path. A name comes first because a static pod's UID
        # stands in the API server only in an annotation, which anyone who may create pods can write.
        name = f"{container.namespace}/{container.pod}" if container.pod else ""
        value = self._pods.get(name) or self._pods.get(container.pod_uid) or self._namespaces.get(container.namespace)
        return value if value and wanted else self._other


def _exact(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise FrameError(f"UPDATE: {len(data)} bytes, but values of the map have {size}")
    return data


def _put(gadget: str, name: str, map: BpfMap, key: bytes, value: bytes) -> None:
    try:
        map.put(key, value)
    except Failure as failure:
        if failure.errno == errno.E2BIG:
            what = f"gadget {gadget}: the table {name} is full: it holds {map.entries:,} entries"
            raise AgentError(what, "fewer pods, addresses or policies on this node") from None
        raise AgentError(f"gadget {gadget}: an entry of the table {name} was refused: {failure}") from None
