"""Finds and reads what container runtimes store about a container.

A runtime writes the OCI bundle before it makes the cgroup. The bundle's folder is known for the usual runtimes; others
are learnt from the process that made the cgroup (its --bundle, or its working directory) and from the shims of running
containers. The agent's pod does not mount a runtime's folder, since that would expose containerd's socket as well; it
reads the files through /proc/1/root, the node's root. The trap: runtimes may live in another mount namespace, so learnt
folders are accessed through /proc/PID/root.
"""

import json
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.agent.containers import identity
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.host import cgroups, procfs, this_node

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
"""CRI-O and Podman: ID/userdata is the bundle."""
_STORED = ("containers.json", "volatile-containers.json")
"""The second has containers that are removed when they end (podman run --rm)."""
_DOCKER = "/var/lib/docker"
_DOCKER_SETTINGS = "/etc/docker/daemon.json"
_STATES = ("/run/runc", "/run/crun", "/run/containerd/runc/*", "/run/docker/runtime-runc/moby")
"""runc's --root: one folder for each container, with its state.json."""
_MOST_BYTES = 4 << 20
_MOST_LEARNT = 64


class RuncContainer(NamedTuple):
    """A container with a state.json of runc. `cgroup` is the path as runc sees it, `bundle` as the agent sees it."""

    id: str
    cgroup: str
    bundle: str


class Bundles:
    """Finds and reads descriptions of containers. The methods accept files with any content and raise nothing."""

    def __init__(self, cgroup_root: str) -> None:
        self._host = this_node.host()
        self._cgroup_root = cgroup_root
        self._learnt: list[str] = []

    def name(self, unnamed: ContainerIdentity, path: str, creator: int) -> ContainerIdentity | None:
        """Returns the container with its names; None when nothing that describes it was found (yet)."""
        for folder in self._candidates(unnamed, path, creator):
            config = read_json(f"{folder}/config.json")
            if config is not None:
                return self._with_engine_name(identity.named_by_config(unnamed, config))
        named = self._with_engine_name(unnamed)
        return named if named != unnamed else None

    def created_by(self, creator: int, path: str) -> tuple[str, str] | None:
        """Returns runtime and container id, if process `creator` is a runtime that made the cgroup at `path` for it."""
        asked = identity.command(procfs.command_line(creator))
        if asked is None:
            return None
        config = read_json(f"{self._bundle_of(creator, asked)}/config.json")
        return (asked.runtime, asked.id) if identity.cgroup_belongs(path, asked.id, config) else None

    def known_to_runc(self) -> list[RuncContainer]:
        """Returns containers that already exist, from the state.json files of runc and similar runtimes."""
        found = []
        for root, pattern in ((root, pattern) for root in self._roots() for pattern in _STATES):
            for folder in _folders(root + pattern):
                for id in procfs.listed(folder):
                    state = read_json(f"{folder}/{id}/state.json")
                    paths = state.get("cgroup_paths") if isinstance(state, dict) else None
                    path = paths.get("") if isinstance(paths, dict) else None
                    if isinstance(path, str):
                        bundle = _bundle_label(state)
                        found.append(RuncContainer(id, path, bundle and root + bundle))
        return found

    def learn(self, path: str) -> None:
        """Learns bundle folders from the shim above a running container's processes."""
        pid = cgroups.first_process(self._cgroup_root, path)
        shim = procfs.parent(pid) if pid else 0
        # A shim inside the container could choose where the agent looks for names, so it is ignored.
        if shim <= 1 or path.rpartition("/")[2] in procfs.cgroup(shim).split("/"):
            return
        bundle = procfs.link(f"/proc/{shim}/cwd")
        if bundle and os.path.exists(f"/proc/{shim}/root{bundle}/config.json"):
            self._remember(f"/proc/{shim}/root{os.path.dirname(bundle)}")

    def _candidates(self, unnamed: ContainerIdentity, path: str, creator: int) -> Iterator[str]:
        """Yields folders that may be the bundle, the most certain and cheapest first."""
        id = unnamed.id
        asked = identity.command(procfs.command_line(creator)) if creator else None
        if asked and asked.id == id:
            bundle = self._bundle_of(creator, asked)
            self._learn_from_runtime(creator, bundle)
            yield bundle
        if len(id) != 64:
            yield from (known.bundle for known in self.known_to_runc() if known.id == id and known.bundle)
        yield from (f"{place}/{id}" for place in self._learnt)
        roots = self._roots()
        for state in (root + folder for root in roots for folder in _STATE_FOLDERS):
            yield from (f"{place}/{id}" for place in _folders(f"{state}/{_TASKS}/*"))
        yield from (f"{root}{storage}/{id}/userdata" for root in roots for storage in _STORAGES)
        before = set(self._learnt)
        self.learn(path)
        yield from (f"{place}/{id}" for place in self._learnt if place not in before)
        for state in (folder for root in roots for folder in _folders(f"{root}/run/*")):
            # /run also has folders of users, who must not decide a container's name.
            if _is_roots(f"{state}/{_TASKS}"):
                yield from (f"{place}/{id}" for place in _folders(f"{state}/{_TASKS}/*"))

    def _roots(self) -> list[str]:
        """Returns paths that may be the node's root: the mounted one, process 1's (with hostPID), those of shims."""
        learnt = [folder.partition("/root/")[0] + "/root" for folder in self._learnt]
        return list(dict.fromkeys([self._host, *(["/proc/1/root"] if self._host else []), *learnt]))

    def _bundle_of(self, pid: int, asked: identity.RuntimeCommand) -> str:
        working = procfs.link(f"/proc/{pid}/cwd") or "/"
        return f"/proc/{pid}/root" + os.path.join(working, asked.bundle or "")

    def _learn_from_runtime(self, pid: int, bundle: str) -> None:
        # The runtime itself ends in a moment; the shim that started it stays and shares its mount namespace.
        shim = procfs.parent(pid)
        folder = os.path.dirname(bundle.rstrip("/")).removeprefix(f"/proc/{pid}/root")
        if shim > 1 and os.path.isdir(f"/proc/{shim}/root{folder}"):
            self._remember(f"/proc/{shim}/root{folder}")

    def _remember(self, folder: str) -> None:
        same = folder.partition("/root/")[2]
        alive = [old for old in self._learnt if os.path.isdir(old)]
        # One entry per folder, even if many shims lead to it; the same path in another mount namespace is another one.
        others = [old for old in alive if not (old.partition("/root/")[2] == same and _is_same(old, folder))]
        self._learnt = [folder, *others][:_MOST_LEARNT]

    def _with_engine_name(self, container: ContainerIdentity) -> ContainerIdentity:
        """Adds the names that Docker and Podman give to containers outside of Kubernetes."""
        if container.pod or len(container.id) != 64:
            return container
        for root in self._roots():
            for folder in _docker_folders(root):
                state = read_json(f"{folder}/containers/{container.id}/config.v2.json")
                if state is not None:
                    return identity.named_by_docker(container, state)
            for storage in _STORAGES:
                if os.path.isdir(f"{root}{storage}/{container.id}"):
                    found = [read_json(f"{root}{storage}/{name}") for name in _STORED]
                    entries = [entry for known in found if isinstance(known, list) for entry in known]
                    return identity.named_by_storage(container, entries)
        return container


def read_json(path: str) -> object:
    """Returns the file's parsed JSON, or None. Never hangs on a FIFO and never reads more than a few MiB."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return None
        return json.loads(os.read(fd, status.st_size + 1))
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(fd)


def _docker_folders(root: str) -> Iterator[str]:
    yield root + _DOCKER
    settings = read_json(root + _DOCKER_SETTINGS)
    folder = settings.get("data-root") if isinstance(settings, dict) else None
    if isinstance(folder, str) and folder.startswith("/"):
        yield root + folder


def _is_roots(path: str) -> bool:
    """Whether the path exists and belongs to root."""
    try:
        return os.stat(path).st_uid == 0
    except OSError:
        return False


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _folders(pattern: str) -> list[str]:
    """Returns `pattern` itself, or with "/*" at its end all entries of that folder."""
    folder, star, _ = pattern.partition("/*")
    return [f"{folder}/{name}" for name in procfs.listed(folder)] if star else [folder]


def _bundle_label(state: object) -> str:
    config = state.get("config") if isinstance(state, dict) else None
    labels = config.get("labels") if isinstance(config, dict) else None
    for label in labels if isinstance(labels, list) else []:
        if isinstance(label, str) and label.startswith("bundle="):
            return label.removeprefix("bundle=")
    return ""
