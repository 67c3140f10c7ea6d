"""The containers and other cgroups of the node, kept up to date, and the verdicts that the kernel applies.

The tree is walked at the start, and then follows the kernel (CgroupWatcher). A container gets its names from its bundle
(bundles.py); if that fails it is retried for a while, and until then the kernel lets its events through.

Any pod can make cgroups below its container's, with any name and in any number. So they are not followed: whatever is
below a container belongs to it (bpf/include/gadget/processes/containers.h). Only those that a container makes before
the kernel knows of it are reported to the client, and only a few of each container, since their events may be on their
way already.
"""

import itertools
import os
import time
from typing import Protocol

from kubectl_gadget.agent.containers import identity
from kubectl_gadget.agent.containers.bundles import Bundles
from kubectl_gadget.agent.containers.container_programs import CgroupWatcher, ContainerPrograms, MovedProcesses
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.ring_fairness import ContainerNumbers
from kubectl_gadget.agent.host import cgroups, procfs
from kubectl_gadget.agent.host.cgroups import Cgroup
from kubectl_gadget.agent.host.this_node import pod_namespace, pod_uid
from kubectl_gadget.wire.agent_messages import ContainerChanges, ContainerNames
from kubectl_gadget.wire.client_messages import FilterSpec, PodNames

# FILTER of docs/protocol.md: whether events of a container, or of the host, are wanted.
#
# The numbers are from bpf/include/gadget/filter.h. A container whose names are not known gets no verdict; its
# events are sent, and the client decides. Only in a session that may see a single namespace, events without a verdict
# are not sent (gadget_node_named_only).

_CLOCK_MONOTONIC_COARSE = 6
"""Of linux/time.h; Python does not name it. It advances with each tick."""
_AGENT = "agent"
"""The container name in an agent's pod (manifests/daemonset.yaml)."""
WANTED, UNWANTED, WANTED_HOST, UNWANTED_HOST = 1, 2, 3, 4


class ContainerSelection:
    """The meaning of FILTER.

    `own_pod` is the UID of the agent's own pod, and `own_namespace` may contain other agents. Activity of agents is
    excluded, unless it or their namespace was requested. `only` is the one namespace that the session may see, whatever
    `wanted` says.
    """

    def __init__(self, wanted: FilterSpec, own_pod: str = "", own_namespace: str = "", only: str | None = None) -> None:
        self._namespaces = _names(wanted.namespaces)
        self._pods = None if wanted.pods is None else PodNames(wanted.pods)
        self._containers = _names(wanted.containers)
        self._exclude = frozenset(wanted.exclude_pods)
        self._host = wanted.host
        without_agents = self._namespaces is None and not wanted.own_processes
        self._agents = own_namespace if without_agents else ""
        if own_pod and without_agents:
            self._exclude |= {own_pod}
        if only is not None:
            self._namespaces = frozenset({only}) if self._namespaces is None else self._namespaces & {only}
            self._host = False

    @property
    def host(self) -> int:
        """The verdict on cgroups of the host."""
        return WANTED_HOST if self._host else UNWANTED_HOST

    @property
    def is_open(self) -> bool:
        """True if every container is wanted, except excluded ones."""
        return self._namespaces is None and self._pods is None and self._containers is None

    def verdict(self, container: ContainerIdentity) -> int:
        """Returns the verdict on a container whose names are known."""
        wanted = (
            (self._namespaces is None or container.namespace in self._namespaces)
            and (self._pods is None or container.pod in self._pods)
            and (self._containers is None or container.container in self._containers)
            and not self._excludes(container)
        )
        return WANTED if wanted else UNWANTED

    def _excludes(self, container: ContainerIdentity) -> bool:
        """Pods are excluded by UID; static pods by NAMESPACE/NAME, since the API server has another UID for them."""
        if self._agents and (container.namespace, container.container) == (self._agents, _AGENT):
            return True
        name = f"{container.namespace}/{container.pod}" if container.pod else ""
        return any(key in self._exclude for key in (container.pod_uid, name) if key)


def _names(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


# The tree of cgroups, and the containers in it.

_CONTAINER = 0x80
"""GADGET_CONTAINER: cgroups below this one belong to it."""
_SANDBOX = 0x40
"""GADGET_SANDBOX: the container is a pod's sandbox."""
_NUMBER_SHIFT = 8
"""GADGET_SHARE_SHIFT: a container's number is stored above the verdict's bits."""
_MOST_UNSENT = 10_000
_MOST_UNSENT_CGROUPS = 100_000
"""Limits on changes that were not sent, since a client may stop reading."""
MOST_BELOW = MOST_EARLY = 256
"""The most cgroups below a container's that are looked up, or reported if it made them before the kernel knew of it."""
_CHECK_SECONDS = 1.0
"""Between two checks for processes elsewhere of a container whose cgroup was removed."""
_RETRIES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds to wait before each new attempt to name a container."""


class _TrackedCgroup:
    """A container's own cgroup, or one of the host. `owner` is the cgroup id of the container, 0 for the host."""

    __slots__ = ("cgroup", "owner", "verdict")

    def __init__(self, cgroup: Cgroup, owner: int) -> None:
        self.cgroup, self.owner, self.verdict = cgroup, owner, 0


class _Unnamed:
    """A container whose names are not known yet. `due`: when to try again, in time.monotonic(). `user`: who could
    choose its cgroup's name, so that no description is believed; 0 is root."""

    __slots__ = ("attempt", "container", "creator", "due", "user")

    def __init__(self, container: ContainerIdentity, creator: int, user: int) -> None:
        self.container, self.creator, self.user, self.attempt, self.due = container, creator, user, 0, 0.0


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
        self._bundles = Bundles(self._root, lambda path: self._container_at(path) is not None)
        self._programs = ContainerPrograms()
        self._verdicts = self._programs.verdicts
        self._watcher = CgroupWatcher(self._programs.object)
        self.fd = self._watcher.fd
        """A file descriptor that is readable when cgroups were made or removed."""
        self.numbers = ContainerNumbers()
        self._moved = MovedProcesses(self._programs, self._watcher.pid_level)
        self.shared = {"gadget_containers": self._verdicts.fd, **self._moved.maps}
        """maps that all gadgets share, by name"""
        self._lost = 0
        self._filter = ContainerSelection(FilterSpec(host=True), only=only)
        self._tracked: dict[int, _TrackedCgroup] = {}  # by cgroup
        self._by_name: dict[str, set[int]] = {}  # tracked cgroups, by the last name of their path
        self._early: dict[int, list[int]] = {}  # cgroups that containers made before the kernel knew of them, by owner
        self._early_owners: dict[int, int] = {}  # the reverse
        self._unreported: dict[int, int] = {}  # how many of these were too many, by owner
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
            "gadget_node_tick_ns": round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9),
            "gadget_node_named_only": int(self._only is not None),
        }

    def set_filter(self, wanted: FilterSpec) -> None:
        """Applies FILTER, which selects the containers to trace."""
        self._filter = ContainerSelection(wanted, pod_uid(), pod_namespace(), self._only)
        for id in self._tracked:
            self._decide(id)

    def follow(self, follower: "ContainerFollower") -> None:
        """Calls the follower for every existing cgroup, and for each later change."""
        self._followers.append(follower)
        for id in self._tracked:
            self._decide(id)

    def unfollow(self, follower: "ContainerFollower") -> None:
        """Stops calling the follower."""
        self._followers.remove(follower)

    @property
    def is_open(self) -> bool:
        """True if the filter wants every container."""
        return self._filter.is_open

    @property
    def is_quiet(self) -> bool:
        """True if drain() has nothing to do: nothing has changed, and no container has to be checked again."""
        return self._watcher.is_quiet and not (self._unnamed or self._kept)

    def drain(self) -> bool:
        """Processes changes. Returns True when nothing older than this call is missing."""
        if len(self._new_containers) > _MOST_UNSENT or len(self._new_cgroups) > _MOST_UNSENT_CGROUPS:
            return False  # the client does not read: the ring fills up instead, and the tree is walked again afterwards
        settled = self._watcher.settle()
        for change in self._watcher.read():
            if not change.made:
                self._on_removed(change.cgroup)
                continue
            above = self._tracked.get(change.parent)
            owner = above.owner if above else self._early_owners.get(change.parent, 0)
            if owner:
                self._on_made_inside(change.cgroup, owner)
            elif above:
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

    def take_warnings(self) -> list[str]:
        """Returns warnings since the last call."""
        found = self._moved.take_warnings()
        for owner in [owner for owner in self._unreported if owner in self._containers]:
            container = self._containers[owner]
            name = "/".join(filter(None, (container.namespace, container.pod, container.container)))
            found.append(
                f"{name} made {self._unreported.pop(owner)} more cgroups than are followed before it was known here; "
                "what happened in them before that has no container"
            )
        return found

    def take_removed(self) -> list[int]:
        """Returns cgroups that were removed since the last call."""
        removed, self._removed = self._removed, []
        return removed

    def wants(self, path: str) -> bool:
        """True if the filter wants processes of this cgroup, by its path in /proc/PID/cgroup. True when unknown."""
        container = self._container_at(path)
        found = self._named(path.rpartition("/")[2]) if container is None else {container}
        return not found or any(self._tracked[id].verdict not in (UNWANTED, UNWANTED_HOST) for id in found)

    def wanted(self) -> list[tuple[int, str]]:
        """Returns id and path of each wanted cgroup, containers first, without cgroups below containers. Containers
        without names count as wanted."""
        unwanted = (UNWANTED, UNWANTED_HOST) if self._only is None else (UNWANTED, UNWANTED_HOST, 0)
        found = [tracked for tracked in self._tracked.values() if tracked.verdict not in unwanted]
        found.sort(key=lambda tracked: not tracked.owner)
        return [(tracked.cgroup.id, tracked.cgroup.path) for tracked in found]

    def everything(self) -> list[tuple[int, str]]:
        """Returns id and path of all cgroups but those below containers."""
        return [(tracked.cgroup.id, tracked.cgroup.path) for tracked in self._tracked.values()]

    def wanted_containers(self) -> list[tuple[int, str]]:
        """Returns id and path of wanted containers' own cgroups."""
        return [(id, path) for id, path in self.wanted() if self._tracked[id].owner == id]

    def some_below(self, id: int) -> list[int]:
        """Returns ids of cgroups that exist below a container's; of very many, only some."""
        tracked = self._tracked.get(id)
        if tracked is None or not tracked.owner:
            return []
        return [cgroup.id for cgroup in itertools.islice(cgroups.below(self._root, tracked.cgroup.path), MOST_BELOW)]

    def processes(self) -> dict[int, int]:
        """Returns the cgroup of each process on the node that is visible here: its container's, or one of the host."""
        found = {}
        own = cgroups.own_id()
        for pid in procfs.pids():
            if path := procfs.cgroup(pid):
                found[pid] = self._cgroup_at(path, own)
        return found

    def close(self) -> None:
        self._watcher.close()
        self._programs.close()

    def _walk(self, earlier: bool = False) -> None:
        self._top = os.stat(self._root).st_ino
        runc = {known.cgroup.strip("/"): known.id for known in self._bundles.known_to_runc()}
        found, new = set[int](), list[int]()
        # A container's cgroup is tracked, and then known as one, before the walk would go below it.
        for cgroup in cgroups.walk(self._root, lambda cgroup: not self._tracked[cgroup.id].owner):
            found.add(cgroup.id)
            if cgroup.id not in self._tracked:
                self._track(cgroup, 0, runc, earlier)
                new.append(cgroup.id)
        for id in self._tracked.keys() - found:
            self._on_removed(id)
        # Only now it is known which shims are in containers.
        for id in new:
            self._introduce_cgroup(id)

    def _on_made(self, cgroup: Cgroup, creator: int) -> None:
        if cgroup.id not in self._tracked:
            self._track(cgroup, creator)
            self._introduce_cgroup(cgroup.id)

    def _track(self, cgroup: Cgroup, creator: int, runc: dict[str, str] | None = None, earlier: bool = False) -> None:
        new = self._container_in(cgroup, creator, runc or {})
        self._tracked[cgroup.id] = _TrackedCgroup(cgroup, cgroup.id if new else 0)
        self._by_name.setdefault(_last_name(cgroup.path), set()).add(cgroup.id)
        if not new:
            return
        # The kernel now takes all that is below it for the container's.
        self._verdicts.add(cgroup.id, _CONTAINER | self.numbers.of(cgroup.id, None) << _NUMBER_SHIFT)
        new, user = new._replace(earlier=earlier), cgroups.maker(self._root, cgroup.path)
        if user:
            new = new._replace(id=f"{new.id}@{user}", pod_uid="")  # or it could have the id of another container
        self._unnamed[cgroup.id] = _Unnamed(new, creator, user)

    def _introduce_cgroup(self, id: int) -> None:
        """Names a container and reports the cgroup."""
        if unnamed := self._unnamed.get(id):
            if unnamed.user:
                self._give_up(id)
            else:
                self._name(id)
        elif id in self._tracked:
            self._publish(id)

    def _on_made_inside(self, id: int, owner: int) -> None:
        """A container has made a cgroup before the kernel knew of the container."""
        early = self._early.setdefault(owner, [])
        if id in self._early_owners:
            return
        if len(early) >= MOST_EARLY:
            self._unreported[owner] = self._unreported.get(owner, 0) + 1
            return
        early.append(id)
        self._early_owners[id] = owner
        if owner not in self._unnamed:
            self._report(id, owner)

    def _container_in(self, cgroup: Cgroup, creator: int, runc: dict[str, str]) -> ContainerIdentity | None:
        """Returns the container that this cgroup, which is not below a container, was made for, without names; None if
        there is none."""
        found = identity.container_id(cgroup.path)
        if not found and creator:
            found = self._bundles.created_by(creator, cgroup.path)
        if not found and runc:
            found = next((("runc", id) for path, id in runc.items() if path.endswith(f"/{cgroup.path}")), None)
        if not found:
            return None
        runtime, id = found
        title = id[:12] if len(id) == 64 else id
        return ContainerIdentity(id, cgroup.id, "", "", identity.pod_uid(cgroup.path), title, "", runtime, "container")

    def _container_at(self, path: str) -> int | None:
        """Returns the container that a process is in, by its path in /proc/PID/cgroup; None if it is in none.

        The path begins at the root of our own cgroup namespace, which may be above or below the node's. From the top
        down, the first name of a container counts: names below it are the container's choice.
        """
        names = path.split("/")
        for number, name in enumerate(names, 1):
            for id in self._by_name.get(name, ()):
                tracked = self._tracked[id]
                if tracked.owner and _is_same_place("/".join(names[:number]), tracked.cgroup.path):
                    return id
        return None

    def _cgroup_at(self, path: str, own: int) -> int:
        """Returns the container, as _container_at(), or a cgroup of the host. `own` is the cgroup at the root of our
        own cgroup namespace."""
        container = self._container_at(path)
        if container is not None:
            return container
        if not path.strip("/."):
            return own if own in self._tracked else self._top
        found = (id for id in self._named(_last_name(path)) if _is_same_place(path, self._tracked[id].cgroup.path))
        return next(found, self._top)

    def _named(self, name: str) -> set[int]:
        return self._by_name.get(name, set())

    def _name(self, id: int) -> bool:
        """Tries to name a container. Returns True if it now has its names."""
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
        self._publish(id)
        for early in self._early.get(id, ()):
            self._report(early, id)

    def _forget_kept(self) -> None:
        """Forgets containers that were kept for their processes elsewhere, when these have ended."""
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
        self._report(id, owner)

    def _report(self, id: int, owner: int) -> None:
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
            kind = _CONTAINER if tracked.owner else 0
            if container and container.kind == "sandbox":
                kind |= _SANDBOX
            if self._verdicts.add(id, verdict | kind | number << _NUMBER_SHIFT):
                tracked.verdict = verdict
        for follower in self._followers:
            follower.set_owner(id, container, verdict in (WANTED, WANTED_HOST))

    def _on_removed(self, id: int) -> None:
        tracked = self._tracked.get(id)
        if tracked is None:
            self._on_removed_inside(id)
            return
        if id in self._unnamed and not self._name(id):
            self._give_up(id)
        if tracked.owner == id and id not in self._kept and id in self._moved.origins():
            self._kept[id] = time.monotonic() + _CHECK_SECONDS
            return
        may_report = self._may_report(self._containers.get(tracked.owner))
        for early in self._early.pop(id, ()):
            self._on_removed_inside(early)
        self._unreported.pop(id, None)
        del self._tracked[id]
        name = _last_name(tracked.cgroup.path)
        self._by_name[name].discard(id)
        if not self._by_name[name]:
            del self._by_name[name]
        if tracked.owner == id:
            del self._containers[id]
            self.numbers.give_back(id)
            self._nameless.discard(id)
        self._verdicts.remove(id.to_bytes(8, "little"))
        for follower in self._followers:
            follower.forget(id)
        if may_report:
            self._removed.append(id)

    def _on_removed_inside(self, id: int) -> None:
        owner = self._early_owners.pop(id, 0)
        if owner and self._may_report(self._containers.get(owner)):
            self._removed.append(id)


def _last_name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_same_place(path: str, tracked: str) -> bool:
    """True if a path in /proc/PID/cgroup may belong to a tracked cgroup. It may begin above or below the node's root,
    or with one "/.." for each level that it goes up first."""
    while path.startswith("/.."):
        path = path[3:]
    path, tracked = f"/{path.strip('/')}", f"/{tracked}"
    return path.endswith(tracked) or tracked.endswith(path)
