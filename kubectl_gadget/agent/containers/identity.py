"""Identifies a container from cgroup names, OCI configurations and command lines. No I/O.

Runtimes on the node wrote these texts, but parts of them (names, annotations) come from anyone who may create a pod, so
nothing here trusts a type or a length. A pod may even choose names of annotations (CRI-O), and an image those of labels
(Docker) and annotations (Podman). So only the annotations of the runtime that wrote the file count, and the pod's UID
must be the one in the cgroup's path. Note: conmon has a cgroup of its own that also ends in the container's id.
"""

import re
from typing import NamedTuple

SANDBOX = "POD"
"""The container name of a pod's sandbox in kubelet, CRI-O and cAdvisor. No container of a pod can have it, since their
names have no capitals."""
_LONGEST = 1024
"""Characters of a name that are kept. Kubernetes names have at most 253."""

_ID = re.compile(r"(?:([a-z][a-z0-9_.-]*?)[-:])?([0-9a-f]{64})(?:\.scope|\.slice)?")
_RUNC_SCOPE = re.compile(r"(runc|crun|youki)-(.+)\.scope")
_POD = re.compile(r"(?:^|/)(?:[a-z-]*kubepods[a-z-]*-)?pod([0-9a-f][0-9a-f_-]{30,35})(?:\.slice)?(?=/|$)")
_RUNTIMES = {
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "docker": "docker",
    "libpod": "podman",
}
_PODMAN_POD = "libpod_parent"
"""The cgroup above those of Podman's pods, whose names are ids as well."""
_COMMANDS = {"runc", "crun", "youki", "runsc", "crun-wasm"}
_VERBS = {"create", "run", "restore"}
_CONTAINERD_SANDBOX_IMAGE = "io.kubernetes.cri.podsandbox.image-name"


class ContainerIdentity(NamedTuple):
    """As in the CONTAINERS frame."""

    id: str
    cgroup: int
    namespace: str
    pod: str
    pod_uid: str
    container: str
    image: str
    runtime: str
    kind: str
    earlier: bool = False
    """True if it existed when the session began"""


class RuntimeCommand(NamedTuple):
    """A runtime's command line. `bundle` None: its working directory."""

    runtime: str
    id: str
    bundle: str | None


def container_id(path: str) -> tuple[str, str] | None:
    """Returns runtime ("" when the name does not show it) and container id, if the last name of the cgroup's path is
    a container's name."""
    above, _, name = path.rpartition("/")
    if found := _ID.fullmatch(name):
        prefix, id = found[1] or "", found[2]
        if prefix.endswith("conmon") or (not prefix and above.rpartition("/")[2] == _PODMAN_POD):
            return None
        return _RUNTIMES.get(prefix, ""), id
    if found := _RUNC_SCOPE.fullmatch(name):
        return "runc", found[2]
    return None


def pod_uid(path: str) -> str:
    """Returns the pod's UID if the cgroup path has one: kubepods/burstable/podUID or
    kubepods-burstable-podUID.slice."""
    found = _POD.findall(path)
    return found[-1].replace("_", "-") if found else ""


def command(arguments: list[str]) -> RuntimeCommand | None:
    """Parses `runc … create --bundle DIR ID` and similar command lines. Returns None for any other process."""
    runtime = arguments[0].rpartition("/")[2] if arguments else ""
    if runtime not in _COMMANDS or _VERBS.isdisjoint(arguments):
        return None
    if arguments[-1].startswith("-") or "/" in arguments[-1] or not arguments[-1].strip("."):
        return None  # never a container's id, and it would become part of a path
    bundle = None
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if option in ("--bundle", "-b"):
            bundle = value
        elif option.startswith("--bundle="):
            bundle = option.partition("=")[2]
    return RuntimeCommand(runtime, arguments[-1], bundle)


def cgroup_belongs(path: str, id: str, config: object) -> bool:
    """True if the cgroup at `path` is the one that `config` (OCI) specifies or, without one, the default of `id`."""
    wanted = _text(_member(_member(config, "linux"), "cgroupsPath"))
    if not wanted:
        return path.rpartition("/")[2] == id
    return f"/{path}".endswith("/" + wanted.strip("/"))


def named_by_config(unnamed: ContainerIdentity, config: object, by_crio: bool) -> ContainerIdentity | None:
    """Adds names from an OCI config.json: annotations of containerd, CRI-O and nerdctl. `by_crio`: the file is where
    CRI-O and Podman keep theirs. Returns None if it describes a container of another pod than the cgroup's path."""
    notes = _member(config, "annotations")
    found = _named_by_crio(unnamed, notes) if by_crio else _named_by_containerd(unnamed, notes)
    if found is None and unnamed.pod_uid and _member(notes, "io.kubernetes.pod.name") is not None:
        found = _kubernetes_labels(unnamed, notes)
    if found is None:
        return unnamed
    return found if found.pod_uid == (unnamed.pod_uid or found.pod_uid) else None


def _named_by_containerd(unnamed: ContainerIdentity, notes: object) -> ContainerIdentity | None:
    if _member(notes, "io.kubernetes.cri.container-type") is None:
        name = _text(_member(notes, "nerdctl/name"))
        return unnamed._replace(container=name, runtime="containerd") if name else None
    kind = _kind(_member(notes, "io.kubernetes.cri.container-type"))
    image = _member(notes, "io.kubernetes.cri.image-name") or _member(notes, _CONTAINERD_SANDBOX_IMAGE)
    return unnamed._replace(
        namespace=_text(_member(notes, "io.kubernetes.cri.sandbox-namespace")),
        pod=_text(_member(notes, "io.kubernetes.cri.sandbox-name")),
        pod_uid=_text(_member(notes, "io.kubernetes.cri.sandbox-uid")) or unnamed.pod_uid,
        container=_text(_member(notes, "io.kubernetes.cri.container-name")) if kind == "container" else SANDBOX,
        image=_text(image),
        runtime="containerd",
        kind=kind,
    )


def _named_by_crio(unnamed: ContainerIdentity, notes: object) -> ContainerIdentity | None:
    # Podman copies annotations of images, and keeps its bundles in the same folder.
    if _member(notes, "io.kubernetes.cri-o.ContainerType") is None or unnamed.runtime == "podman":
        return None
    image = _member(notes, "io.kubernetes.cri-o.ImageName") or _member(notes, "io.kubernetes.cri-o.Image")
    kind = _kind(_member(notes, "io.kubernetes.cri-o.ContainerType"))
    return _kubernetes_labels(unnamed, notes, kind)._replace(image=_text(image), runtime="cri-o")


def named_by_docker(unnamed: ContainerIdentity, state: object) -> ContainerIdentity:
    """Adds names from Docker's config.v2.json, including the labels that kubelet set through cri-dockerd. Compose's
    project and service take the places of namespace and pod. An image has labels, too, so those of a pod count only in
    that pod's cgroup."""
    settings = _member(state, "Config")
    labels = _member(settings, "Labels")
    name = _text(_member(state, "Name")).lstrip("/")
    container = unnamed._replace(image=_text(_member(settings, "Image")), runtime="docker")
    if unnamed.pod_uid:
        kind = "sandbox" if _member(labels, "io.kubernetes.docker.type") == "podsandbox" else "container"
        of_pod = _kubernetes_labels(container, labels, kind)
        return of_pod if of_pod.pod_uid == unnamed.pod_uid else container
    project, service = (_text(_member(labels, f"com.docker.compose.{label}")) for label in ("project", "service"))
    return container._replace(container=name or container.container, namespace=project, pod=service)


def named_by_storage(unnamed: ContainerIdentity, containers: object) -> ContainerIdentity:
    """Adds names from containers/storage's containers.json (Podman)."""
    for entry in containers if isinstance(containers, list) else []:
        if _member(entry, "id") == unnamed.id:
            names = _member(entry, "names")
            name = _text(names[0]) if isinstance(names, list) and names else ""
            return unnamed._replace(container=name or unnamed.container, runtime="podman")
    return unnamed


def _kubernetes_labels(container: ContainerIdentity, labels: object, kind: str = "container") -> ContainerIdentity:
    name = _text(_member(labels, "io.kubernetes.container.name")) or container.container
    return container._replace(
        namespace=_text(_member(labels, "io.kubernetes.pod.namespace")),
        pod=_text(_member(labels, "io.kubernetes.pod.name")),
        pod_uid=_text(_member(labels, "io.kubernetes.pod.uid")) or container.pod_uid,
        container=SANDBOX if kind == "sandbox" else name,
        kind=kind,
    )


def _kind(value: object) -> str:
    return "sandbox" if value in ("sandbox", "podsandbox") else "container"


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: object) -> str:
    """Returns a string that can be encoded, truncated if too long; "" for anything else."""
    if not isinstance(value, str):
        return ""
    return value[:_LONGEST].encode(errors="replace").decode()
