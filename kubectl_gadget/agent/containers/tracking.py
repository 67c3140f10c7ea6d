"""All cgroups of the node and the containers they belong to, kept up to date, and the verdicts that the kernel applies.

The tree is walked once and then follows the kernel (cgroup_watcher.py). A container gets its names from its bundle
(bundles.py); if that fails it is retried for a while, and until then the kernel lets its events through. The trap: a
cgroup below a Kubernetes container belongs to that container, whatever its name is, or a pod could forge names.
"""

import os
import time
from typing import Protocol

from kubectl_gadget.agent.containers import identity
from kubectl_gadget.agent.containers.bundles import Bundles
from kubectl_gadget.agent.containers.cgroup_watcher import CgroupWatcher
from kubectl_gadget.agent.containers.container_programs import ContainerPrograms
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.moved_processes import MovedProcesses
from kubectl_gadget.agent.containers.ring_fairness import ContainerNumbers
from kubectl_gadget.agent.containers.verdicts import UNWANTED, UNWANTED_HOST, WANTED, WANTED_HOST, ContainerSelection
from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.agent.host.cgroups import Cgroup
from kubectl_gadget.agent.host.this_node import pod_namespace, pod_uid
from kubectl_gadget.wire.agent_messages import ContainerChanges, ContainerNames
from kubectl_gadget.wire.client_messages import FilterSpec

_NUMBER_SHIFT = 8
"""GADGET_NUMBER_SHIFT: a container's number is stored above the verdict's bits."""
_MOST_UNSENT = 10_000
_MOST_UNSENT_CGROUPS = 100_000
"""Limits on changes that were not sent: containers can make any number of cgroups, and a client may stop reading."""
_CHECK_SECONDS = 1.0
"""Between two checks for processes elsewhere of a container whose cgroup was removed."""
_RETRIES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds to wait before each new attempt to name a container."""


class _TrackedCgroup:
    """A cgroup in the tree. `owner` is the cgroup id of its container, 0 for the host."""

    __slots__ = ("cgroup", "owner", "verdict")

    def __init__(self, cgroup: Cgroup, owner: int) -> None:
        self.cgroup, self.owner, self.verdict = cgroup, owner, 0


class _Unnamed:
    """A container whose names are not known yet. `due`: when to try again, in time.monotonic()."""

    __slots__ = ("attempt", "container", "creator", "due")

    def __init__(self, container: ContainerIdentity, creator: int) -> None:
        self.container, self.creator, self.attempt, self.due = container, creator, 0, 0.0


class ContainerFollower(Protocol):
    """Receives which container each cgroup belongs to."""

    def set_owner(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        """Called when the container, or at least the UID of its pod, is known, and when the filter changes.
        `container` None: the host."""

    def forget(self, cgroup: int) -> None:
        """Called when the cgroup was removed."""


class Containers:
    """Tracks cgroups and containers. Raises AgentError when the node has no cgroup v2, or refuses the BPF programs.

    With `only`, only containers of this namespace are reported, and filters select only among them.
    """

    def __init__(self, only: str | None = None) -> None:
        self._only = only
        self._root = cgroups.find_root()
        self._bundles = Bundles(self._root)
        self._programs = ContainerPrograms()
        self._verdicts = self._programs.verdicts
        self._watcher = CgroupWatcher(self._programs.object)
        self.fd = self._watcher.fd
        """A file descriptor that is readable when cgroups were made or removed."""
        self.numbers = ContainerNumbers()
        self._moved = MovedProcesses(self._programs, self._watcher.pid_level)
        self.shared = {"gadget_containers": self._verdicts.fd, **self._moved.maps}
        """maps that all gadgets share, by name"""
        self.warnings = self._moved.warnings
        self._lost = 0
        self._filter = ContainerSelection(FilterSpec(host=True), only=only)
        self._tracked: dict[int, _TrackedCgroup] = {}  # by cgroup
        self._members: dict[int, set[int]] = {}  # cgroups, by owner
        self._containers: dict[int, ContainerIdentity] = {}  # by cgroup
        self._unnamed: dict[int, _Unnamed] = {}  # by cgroup
        self._nameless: set[int] = set()  # containers without any description, by cgroup
        self._new_containers: list[ContainerIdentity] = []
        self._new_cgroups: dict[int, str | None] = {}
        self._removed: list[int] = []
        self._top = 0
        self._followers: list[ContainerFollower] = []
        self._kept: dict[int, float] = {}  # removed, but with processes elsewhere; when to check again, by cgroup
        self._walk(earlier=True)
        self._moved.adopt_existing(os.stat("/proc/1/ns/mnt").st_ino if os.path.exists("/proc/1/ns/mnt") else 0)

    def variables(self) -> dict[str, int]:
        """Values of the node's variables in gadgets."""
        return {
            "gadget_node_pid_level": self._watcher.pid_level,
            "gadget_node_cgroup": self._top,
            "gadget_node_page_bytes": os.sysconf("SC_PAGE_SIZE"),
            "gadget_node_named_only": int(self._only is not None),
        }

    def set_filter(self, wanted: FilterSpec) -> None:
        """Applies FILTER: which containers are traced from now on."""
        self._filter = ContainerSelection(wanted, pod_uid(), pod_namespace(), self._only)
        for id in self._tracked:
            self._decide(id)

    def follow(self, follower: "ContainerFollower") -> None:
        """Calls the follower for every existing cgroup, and for changes from now on."""
        self._followers.append(follower)
        for id in self._tracked:
            self._decide(id)

    def unfollow(self, follower: "ContainerFollower") -> None:
        """Stops calling the follower."""
        self._followers.remove(follower)

    @property
    def is_open(self) -> bool:
        """Whether the filter wants every container."""
        return self._filter.is_open

    @property
    def is_quiet(self) -> bool:
        """Whether drain() has nothing to do: nothing has changed, and no container has to be checked again."""
        return self._watcher.is_quiet and not (self._unnamed or self._kept)

    def drain(self) -> bool:
        """Processes changes. Returns True when nothing older than this call is missing."""
        if len(self._new_containers) > _MOST_UNSENT or len(self._new_cgroups) > _MOST_UNSENT_CGROUPS:
            return False  # the client does not read: the ring fills up instead, and the tree is walked again afterwards
        settled = self._watcher.settle()
        for change in self._watcher.read():
            if not change.made:
                self._on_removed(change.cgroup)
            elif above := self._tracked.get(change.parent):
                path = f"{above.cgroup.path}/{change.name}".lstrip("/")
                self._on_made(Cgroup(change.cgroup, change.parent, path), change.pid)
        if self._watcher.lost != self._lost:
            self._lost = self._watcher.lost
            self._walk()
        self._retry()
        self._forget_kept()
        return settled

    def take_changes(self) -> ContainerChanges | None:
        """Returns the containers and cgroups that are new since the last call; None if there are none."""
        if not self._new_containers and not self._new_cgroups:
            return None
        changes = ContainerChanges(
            containers=tuple(ContainerNames(**container._asdict()) for container in self._new_containers),
            cgroups=self._new_cgroups,
            removed=(),
        )
        self._new_containers = []
        self._new_cgroups = {}
        return changes

    def take_removed(self) -> list[int]:
        """Returns cgroups that were removed since the last call."""
        removed, self._removed = self._removed, []
        return removed

    def wants(self, path: str) -> bool:
        """Whether the filter wants processes of this cgroup, by its path in /proc/PID/cgroup. True when unknown.

        Our own cgroup namespace may show paths from another root, so only the last name is compared; host cgroups may
        share one.
        """
        name = path.rpartition("/")[2]
        verdicts = {
            tracked.verdict for tracked in self._tracked.values() if tracked.cgroup.path.rpartition("/")[2] == name
        }
        return not verdicts or not verdicts <= {UNWANTED, UNWANTED_HOST}

    def wanted(self) -> list[tuple[int, str]]:
        """Returns id and path of each wanted cgroup, containers first. Containers without names count as wanted."""
        unwanted = (UNWANTED, UNWANTED_HOST) if self._only is None else (UNWANTED, UNWANTED_HOST, 0)
        found = [tracked for tracked in self._tracked.values() if tracked.verdict not in unwanted]
        found.sort(key=lambda tracked: not tracked.owner)
        return [(tracked.cgroup.id, tracked.cgroup.path) for tracked in found]

    def everything(self) -> list[tuple[int, str]]:
        """Returns id and path of all cgroups."""
        return [(tracked.cgroup.id, tracked.cgroup.path) for tracked in self._tracked.values()]

    def wanted_containers(self) -> list[tuple[int, str]]:
        """Returns id and path of wanted containers' own cgroups, without those below them."""
        return [(id, path) for id, path in self.wanted() if self._tracked[id].owner == id]

    def close(self) -> None:
        self._watcher.close()
        self._programs.close()

    def _walk(self, earlier: bool = False) -> None:
        found = {cgroup.id: cgroup for cgroup in cgroups.walk(self._root)}
        gone = self._tracked.keys() - found.keys()
        for id in sorted(gone, key=lambda id: self._tracked[id].cgroup.path, reverse=True):
            self._on_removed(id)  # cgroups below a container go before the container, as the kernel removes them
        self._top = next(iter(found))
        runc = {known.cgroup.strip("/"): known.id for known in self._bundles.known_to_runc()}
        for cgroup in found.values():
            if identity.container_id(cgroup.path.rpartition("/")[2]):
                self._bundles.learn(cgroup.path)
        for cgroup in found.values():
            if cgroup.id not in self._tracked:
                self._on_made(cgroup, 0, runc, earlier)

    def _on_made(self, cgroup: Cgroup, creator: int, runc: dict[str, str] | None = None, earlier: bool = False) -> None:
        if cgroup.id in self._tracked:
            return
        above = self._tracked.get(cgroup.parent)
        owner = above.owner if above else 0
        new = self._container_in(cgroup, owner, creator, runc or {})
        self._tracked[cgroup.id] = _TrackedCgroup(cgroup, cgroup.id if new else owner)
        self._members.setdefault(cgroup.id if new else owner, set()).add(cgroup.id)
        if new:
            self._unnamed[cgroup.id] = _Unnamed(new._replace(earlier=earlier), creator)
            self._name(cgroup.id)
        else:
            self._publish(cgroup.id)

    def _container_in(self, cgroup: Cgroup, owner: int, creator: int, runc: dict[str, str]) -> ContainerIdentity | None:
        """Returns the container that this cgroup was made for, without names; None if it has its parent's owner."""
        above = self._containers.get(owner)
        if owner in self._unnamed or (above and above.pod):
            return None
        name = cgroup.path.rpartition("/")[2]
        found = identity.container_id(name)
        if not found and creator:
            found = self._bundles.created_by(creator, cgroup.path)
        if not found and runc:
            found = next((("runc", id) for path, id in runc.items() if path.endswith(f"/{cgroup.path}")), None)
        if not found:
            return None
        runtime, id = found
        title = id[:12] if len(id) == 64 else id
        return ContainerIdentity(id, cgroup.id, "", "", identity.pod_uid(cgroup.path), title, "", runtime, "container")

    def _name(self, id: int) -> bool:
        """Tries once to name a container. Returns True when it has its names now."""
        unnamed = self._unnamed[id]
        named = self._bundles.name(unnamed.container, self._tracked[id].cgroup.path, unnamed.creator)
        if named is None:
            wait = _RETRIES[min(unnamed.attempt, len(_RETRIES) - 1)]
            unnamed.attempt += 1
            unnamed.due = time.monotonic() + wait
            return False
        del self._unnamed[id]
        self._containers[id] = named
        self._introduce(id, named)
        return True

    def _introduce(self, id: int, container: ContainerIdentity) -> None:
        if self._may_report(container):
            self._new_containers.append(container)
        for member in self._members[id]:
            self._publish(member)

    def _forget_kept(self) -> None:
        """Forgets containers that were kept for their processes elsewhere, once these have ended."""
        now = time.monotonic()
        if not self._kept or now < min(self._kept.values()):
            return
        origins = self._moved.origins()
        for id in list(self._kept):
            if id in origins:
                self._kept[id] = now + _CHECK_SECONDS
            else:
                del self._kept[id]
                self._on_removed(id)

    def _retry(self) -> None:
        if not self._unnamed:
            return
        now = time.monotonic()
        for id, unnamed in list(self._unnamed.items()):
            if unnamed.due <= now and not self._name(id) and unnamed.attempt == len(_RETRIES):
                self._give_up(id)

    def _give_up(self, id: int) -> None:
        """Reports the container without names, by its id. The kernel gets no verdict on it."""
        container = self._unnamed.pop(id).container
        self._containers[id] = container
        self._nameless.add(id)
        self._introduce(id, container)

    def _publish(self, id: int) -> None:
        """Reports the container of this cgroup, unless its names are not known yet."""
        owner = self._tracked[id].owner
        if owner in self._unnamed:
            return
        self._decide(id)
        container = self._containers.get(owner)
        if self._may_report(container):
            self._new_cgroups[id] = container.id if container else None

    def _may_report(self, container: ContainerIdentity | None) -> bool:
        return self._only is None or (container is not None and container.namespace == self._only)

    def _decide(self, id: int) -> None:
        """Decides whether a cgroup is wanted, and tells the kernel if that has changed, and all followers."""
        tracked = self._tracked[id]
        if tracked.owner in self._unnamed:
            return
        container = self._containers.get(tracked.owner)
        is_nameless = tracked.owner in self._nameless
        if is_nameless and container and not container.pod_uid:
            return  # nothing is known of it: policies treat it as a container whose names have not been read yet
        verdict = self._filter.verdict(container) if container else self._filter.host
        if not is_nameless and verdict != tracked.verdict:
            number = self.numbers.of(tracked.owner, container)
            if self._verdicts.add(id, verdict | number << _NUMBER_SHIFT):
                tracked.verdict = verdict
        for follower in self._followers:
            follower.set_owner(id, container, verdict in (WANTED, WANTED_HOST))

    def _on_removed(self, id: int) -> None:
        tracked = self._tracked.get(id)
        if tracked is None:
            return
        if id in self._unnamed and not self._name(id):
            self._give_up(id)
        if tracked.owner == id and id not in self._kept and id in self._moved.origins():
            self._kept[id] = time.monotonic() + _CHECK_SECONDS
            return
        may_report = self._may_report(self._containers.get(tracked.owner))
        del self._tracked[id]
        self._members[tracked.owner].discard(id)
        if tracked.owner == id:
            del self._members[id], self._containers[id]
            self.numbers.give_back(id)
            self._nameless.discard(id)
        self._verdicts.remove(id.to_bytes(8, "little"))
        for follower in self._followers:
            follower.forget(id)
        if may_report:
            self._removed.append(id)
