"""Finds and reads what container runtimes store about a container.

A runtime writes the OCI bundle before it makes the cgroup. The bundle's folder is known for the usual runtimes; others
are learnt from the process that made the cgroup (its --bundle, or its working directory) and from the shims of running
containers. The agent's pod does not mount a runtime's folder, since that would expose containerd's socket as well; it
reads the files through the root of the node's first process, or of the runtime that started the agent.

A name that is read here decides about filters and policies, so no container may have a say in it. A process is believed
only if it is one of the node's own (_Node). A container's process can have any command line and working directory, and
can be the parent of processes in any cgroup below its container's.
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kubectl_gadget.agent.containers import identity
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.host import cgroups, foreign_files, procfs, this_node

_TASKS = "io.containerd.runtime.v2.task"
"""Folder in containerd's state folder, with one folder per containerd namespace, which contains the bundles."""
_STATE_FOLDERS = (
    "/run/containerd",
    "/run/k3s/containerd",
    "/run/k0s/containerd",
    "/var/snap/microk8s/common/run/containerd",
    "/run/docker/containerd/daemon",
)
_STORAGES = tuple(
    f"{folder}/containers/storage/{driver}-containers"
    for folder in ("/var/lib", "/run")
    for driver in ("overlay", "vfs", "btrfs", "zfs")
)
_USERDATA = "/userdata"
"""CRI-O and Podman: ID/userdata is the bundle."""
_STORED = ("containers.json", "volatile-containers.json")
"""The second has containers that are removed when they end (podman run --rm)."""
_DOCKER = "/var/lib/docker"
_DOCKER_SETTINGS = "/etc/docker/daemon.json"
_STATES = ("/run/runc", "/run/crun", "/run/containerd/runc/*", "/run/docker/runtime-runc/moby")
"""runc's --root: one folder for each container, with its state.json."""
_MOST_BYTES = 4 << 20
_MOST_LEARNT = 64


class _Folder(NamedTuple):
    """`path`: below `root`, which is the root of a mount namespace of the node as the agent sees it; "": our own."""

    root: str
    path: str

    @property
    def seen(self) -> str:
        return self.root + self.path


class _Bundle(NamedTuple):
    """The bundle `name` in a folder. CRI-O's names have a part "userdata"."""

    folder: _Folder
    name: str

    def config(self) -> object:
        return read_json(self.folder.seen, f"{self.name}/config.json", self.folder.root)


class RuncContainer(NamedTuple):
    """A container with a state.json of runc. `cgroup` is the path as runc sees it, `bundle` None if it is unknown."""

    id: str
    cgroup: str
    bundle: _Bundle | None


class _Node:
    """The node's own processes and mount namespaces: of process 1, and of the runtime that started the agent, which may
    be another one, since a node may be a container itself."""

    def __init__(self, is_in_container: Callable[[str], bool]) -> None:
        self._is_in_container = is_in_container
        self._same = {kind: procfs.link(f"/proc/self/ns/{kind}") for kind in ("user", "pid")}
        host = this_node.host()
        runtime = _parent_outside() if host else 0
        roots: dict[str, str] = {} if runtime else {procfs.link("/proc/self/ns/mnt"): ""}
        for pid in (runtime, 1):
            if pid and (namespace := procfs.link(f"/proc/{pid}/ns/mnt")):
                roots.setdefault(namespace, f"/proc/{pid}/root")
        self._roots = roots
        """by mount namespace"""
        self.roots = list(dict.fromkeys([host, *roots.values()]))
        """paths that may be the node's root: the mounted one, and those of its mount namespaces"""

    def root_of(self, pid: int) -> str | None:
        """Returns the root of the process's mount namespace; None if it is not one of the node's own processes: it is
        in a container, or in a namespace that is not the node's."""
        if pid <= 1 or any(procfs.link(f"/proc/{pid}/ns/{kind}") != own for kind, own in self._same.items()):
            return None
        path = procfs.cgroup(pid)
        if not path or self._is_in_container(path):
            return None
        return self._roots.get(procfs.link(f"/proc/{pid}/ns/mnt"))


def _parent_outside() -> int:
    """Returns the nearest of our ancestors in another mount namespace, which is the runtime; 0 if none is visible."""
    own = procfs.link("/proc/self/ns/mnt")
    pid = os.getppid()
    while pid > 1 and procfs.link(f"/proc/{pid}/ns/mnt") == own:
        pid = procfs.parent(pid)
    return pid if pid > 1 else 0


class Bundles:
    """Finds and reads descriptions of containers. The methods accept files with any content and raise nothing.
    `is_in_container` decides about a path in /proc/PID/cgroup."""

    def __init__(self, cgroup_root: str, is_in_container: Callable[[str], bool] = lambda _: False) -> None:
        self._node = _Node(is_in_container)
        self._cgroup_root = cgroup_root
        self._learnt: list[_Folder] = []

    def name(self, unnamed: ContainerIdentity, path: str, creator: int) -> ContainerIdentity | None:
        """Returns the container with its names; None when nothing that describes it was found (yet)."""
        for bundle in self._candidates(unnamed, path, creator):
            config = bundle.config()
            if config is not None:
                named = identity.named_by_config(unnamed, config, bundle.name.endswith(_USERDATA))
                if named is not None:
                    return self._with_engine_name(named)
        named = self._with_engine_name(unnamed)
        return named if named != unnamed else None

    def created_by(self, creator: int, path: str) -> tuple[str, str] | None:
        """Returns runtime and container id, if process `creator` is a runtime that made the cgroup at `path` for it."""
        asked, bundle = self._asked_by(creator)
        if asked is None or bundle is None:
            return None
        return (asked.runtime, asked.id) if identity.cgroup_belongs(path, asked.id, bundle.config()) else None

    def known_to_runc(self) -> list[RuncContainer]:
        """Returns containers that already exist, from the state.json files of runc and similar runtimes."""
        found = []
        for root, pattern in ((root, pattern) for root in self._node.roots for pattern in _STATES):
            for folder in _folders(_Folder(root, pattern)):
                for id in procfs.listed(folder.seen):
                    state = read_json(folder.seen, f"{id}/state.json", root)
                    paths = state.get("cgroup_paths") if isinstance(state, dict) else None
                    path = paths.get("") if isinstance(paths, dict) else None
                    if isinstance(path, str):
                        bundle = _bundle_label(state)
                        found.append(RuncContainer(id, path, _bundle(root, bundle) if bundle else None))
        return found

    def _candidates(self, unnamed: ContainerIdentity, path: str, creator: int) -> Iterator[_Bundle]:
        """Yields what may be the bundle: first in the runtimes' own folders, then where a runtime says."""
        id, roots = unnamed.id, self._node.roots
        for state in (_Folder(root, folder) for root in roots for folder in _STATE_FOLDERS):
            yield from (_Bundle(place, id) for place in _folders(_Folder(state.root, f"{state.path}/{_TASKS}/*")))
        yield from (_Bundle(_Folder(root, storage), f"{id}{_USERDATA}") for root in roots for storage in _STORAGES)
        asked, bundle = self._asked_by(creator)
        if asked and bundle and asked.id == id:
            self._remember(bundle)
            yield bundle
        if len(id) != 64:
            yield from (known.bundle for known in self.known_to_runc() if known.id == id and known.bundle)
        yield from (_Bundle(place, id) for place in self._learnt)
        before = set(self._learnt)
        self._learn(path)
        yield from (_Bundle(place, id) for place in self._learnt if place not in before)
        for state in (folder for root in roots for folder in _folders(_Folder(root, "/run/*"))):
            # /run also has folders of users, who must not decide a container's name.
            if _is_roots(f"{state.seen}/{_TASKS}"):
                yield from (_Bundle(place, id) for place in _folders(_Folder(state.root, f"{state.path}/{_TASKS}/*")))

    def _asked_by(self, creator: int) -> tuple[identity.RuntimeCommand | None, _Bundle | None]:
        """Returns what the creator of a cgroup was asked for, and the bundle, if it is a runtime on the node."""
        root = self._node.root_of(creator)
        asked = None if root is None else identity.command(procfs.command_line(creator))
        if root is None or asked is None:
            return None, None
        working = procfs.link(f"/proc/{creator}/cwd") or "/"
        return asked, _bundle(root, os.path.join(working, asked.bundle or ""))

    def _learn(self, path: str) -> None:
        """Learns bundle folders from the shim above a running container's processes."""
        pid = cgroups.first_process(self._cgroup_root, path)
        shim = procfs.parent(pid) if pid else 0
        root = self._node.root_of(shim)
        working = procfs.link(f"/proc/{shim}/cwd")
        if root is not None and working:
            self._remember(_bundle(root, working))

    def _remember(self, bundle: _Bundle) -> None:
        """Learns the folder of a bundle that exists, unless others than root may write to it."""
        if _is_roots(bundle.folder.seen) and bundle.config() is not None:
            others = [folder for folder in self._learnt if folder != bundle.folder]
            self._learnt = [bundle.folder, *others][:_MOST_LEARNT]

    def _with_engine_name(self, container: ContainerIdentity) -> ContainerIdentity:
        """Adds the names that Docker and Podman give to containers outside of Kubernetes."""
        if container.pod or len(container.id) != 64:
            return container
        for root in self._node.roots:
            for folder in _docker_folders(root):
                state = read_json(f"{root}{folder}/containers", f"{container.id}/config.v2.json", root)
                if state is not None:
                    return identity.named_by_docker(container, state)
            for storage in _STORAGES:
                if os.path.isdir(f"{root}{storage}/{container.id}"):
                    found = [read_json(f"{root}{storage}", name, root) for name in _STORED]
                    entries = [entry for known in found if isinstance(known, list) for entry in known]
                    return identity.named_by_storage(container, entries)
        return container


def read_json(folder: str, path: str, root: str = "") -> object:
    """Returns the parsed JSON of a file in or below a folder, or None. Never waits, and never reads more than a few
    MiB. `root` is the part of `folder` inside which links in its path are resolved."""
    try:
        fd = foreign_files.open_beneath(root, folder.removeprefix(root), path)
    except (OSError, ValueError):
        return None
    try:
        size = os.fstat(fd).st_size
        return None if size > _MOST_BYTES else json.loads(os.read(fd, size + 1))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)


def _bundle(root: str, path: str) -> _Bundle:
    """Returns the bundle in this folder, an absolute path."""
    path = path.rstrip("/")
    folder, _, name = path.removesuffix(_USERDATA).rpartition("/")
    return _Bundle(_Folder(root, folder), name + path[len(folder) + 1 + len(name) :])


def _docker_folders(root: str) -> Iterator[str]:
    """Yields paths below the root."""
    yield _DOCKER
    folder, _, name = _DOCKER_SETTINGS.rpartition("/")
    settings = read_json(root + folder, name, root)
    data = settings.get("data-root") if isinstance(settings, dict) else None
    if isinstance(data, str) and data.startswith("/"):
        yield data


def _is_roots(path: str) -> bool:
    """True if the path exists, belongs to root, or to the user who runs this, and nobody else may write to it."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def _folders(pattern: _Folder) -> list[_Folder]:
    """Returns `pattern` itself, or with "/*" at its end all entries of that folder."""
    path, star, _ = pattern.path.partition("/*")
    if not star:
        return [pattern]
    return [_Folder(pattern.root, f"{path}/{name}") for name in procfs.listed(pattern.root + path)]


def _bundle_label(state: object) -> str:
    config = state.get("config") if isinstance(state, dict) else None
    labels = config.get("labels") if isinstance(config, dict) else None
    for label in labels if isinstance(labels, list) else []:
        if isinstance(label, str) and label.startswith("bundle="):
            return label.removeprefix("bundle=")
    return ""
