"""`advise filesystem`: whether readOnlyRootFilesystem can be set, and which volumes that needs.

A write is an open for writing, or a call that creates, removes, renames or changes a file. For an open, the kernel
reports the mount. For other calls, it is the longest mount above the path that is known from opens or from the pod's
description. An emptyDir hides what the image has at its path, so no volume can go on folders that hold programs and
settings; whatever was written there has to move first.
"""

import posixpath
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.advise.documents import ContainerPatch, Document, patch
from kubectl_gadget.advise.uses import (
    RUNC,
    ContainerOf,
    Recipe,
    SeenUses,
    Use,
    UseKind,
    by_container,
    by_workload,
    start_note,
    start_unseen,
)
from kubectl_gadget.kube.inventory import Inventory
from kubectl_gadget.wording import some

KIND = UseKind(
    ("namespace", "pod", "container", "operation", "directory", "mount", "fstype", "refused", "comm"), ("count",)
)
_ALWAYS_MOUNTED = (
    "/proc",
    "/dev",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/run/secrets/kubernetes.io/serviceaccount",
    "/var/run/secrets/kubernetes.io/serviceaccount",
)
"""Mounts that runtimes and the kubelet add to each container."""
_IMAGE_TEXT = (
    "/ /bin /etc /lib /lib64 /opt /sbin /usr /usr/bin /usr/lib /usr/local /usr/local/bin /usr/local/lib /usr/sbin "
    "/usr/share /var /var/lib"
)
_IMAGE_FOLDERS = frozenset(_IMAGE_TEXT.split())
"""Folders whose content the image needs, so that an empty volume cannot hide them."""
_READ_ONLY_ERROR = "EROFS"
_MOST_EXAMPLES = 3


def uses_of(row: Mapping[str, Any]) -> Iterator[Use]:
    """The uses in a row of `trace open --write --resolve`, or of `trace file`. Only calls that may have succeeded
    count, and those that a read-only file system refused."""
    comm, errno = row["comm"] or "", row["error"]
    if not row.get("container") or comm.startswith(RUNC) or errno not in ("", None, _READ_ONLY_ERROR):
        return
    opened = "operation" not in row
    paths = [row["resolved"] or row["path"]] if opened else [row["path"], _new_name(row)]
    for path in paths:
        if path and path.startswith("/"):
            yield {
                **{name: row[name] for name in ("namespace", "pod", "container")},
                "operation": "open" if opened else row["operation"],
                "directory": _folder_for(posixpath.normpath(path), "open" if opened else row["operation"]),
                "mount": (row["mount"] or "") if opened else "",
                "fstype": (row["fstype"] or "") if opened else "",
                "refused": errno == _READ_ONLY_ERROR,
                "comm": comm,
                "path": posixpath.normpath(path),
                "count": 1,
            }


RECIPE = Recipe(
    "filesystem",
    KIND,
    uses_of,
    (("trace_open", {"write": True, "resolve": True, "runtime": True}), ("trace_file", {})),
)


def _folder_for(path: str, operation: str) -> str:
    """The folder that has to be writable. A new folder directly in one of the image's folders may itself be the
    volume."""
    parent = posixpath.dirname(path)
    return path if operation == "mkdir" and parent in _IMAGE_FOLDERS else parent


def _new_name(row: Mapping[str, Any]) -> str | None:
    """The new name of a renamed file; the target of a link is not written."""
    return row["to"] if row["operation"] == "rename" else None


@dataclass(frozen=True)
class Writes:
    """The writes of one container to its root file system."""

    folders: tuple[str, ...]
    """folders that one volume each makes writable"""
    obstacles: tuple[str, ...]
    """folders on which no volume can be mounted"""
    examples: Mapping[str, tuple[str, ...]]
    """for both: which program wrote which file there"""
    elsewhere: tuple[str, ...]
    """other mounts that are written to and stay as they are"""


def writes(uses: Sequence[Use], mounted: Iterable[str]) -> Writes:
    """The container's writes. `mounted`: the mount paths of its volumes."""
    mounts = {use["mount"] for use in uses if use["mount"]} | set(mounted) | set(_ALWAYS_MOUNTED)
    folders: dict[str, dict[str, None]] = {}
    elsewhere: dict[str, None] = {}
    for use in uses:
        mount = use["mount"] or _mount_of(use["path"], mounts)
        if mount == "/":
            example = f"{use['path']} ({use['comm'] or '-'}, {use['operation']}{', refused' * use['refused']})"
            folders.setdefault(use["directory"], {})[example] = None
        else:
            elsewhere[mount] = None
    obstacles = sorted(folders.keys() & _IMAGE_FOLDERS)
    places = [folder for folder in sorted(folders) if folder not in _IMAGE_FOLDERS]
    tops = [folder for folder in places if not any(_is_below(folder, other) for other in places if other != folder)]
    return Writes(
        tuple(tops),
        tuple(obstacles),
        {
            place: tuple(text for folder in sorted(folders) if _belongs(folder, place) for text in folders[folder])
            for place in (*tops, *obstacles)
        },
        tuple(sorted(elsewhere)),
    )


def _belongs(folder: str, place: str) -> bool:
    return folder == place or (place not in _IMAGE_FOLDERS and _is_below(folder, place))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _mount_of(path: str, mounts: Iterable[str]) -> str:
    return max((mount for mount in mounts if _is_below(path, mount)), key=len, default="/")


def advise(recording: SeenUses) -> list[Document]:
    found = {
        item: writes(uses, _mounted(recording.inventory, uses, item))
        for item, uses in by_container(recording.uses, recording.inventory, recording.watched).items()
    }
    documents, unseen = [], start_unseen(recording)
    for workload, items in by_workload(found).items():
        patches = [_set(item, found[item]) for item in items]
        volumes = [
            {"name": mount["name"], "emptyDir": {}} for item in patches for mount in item.fields.get(_MOUNTS, ())
        ]
        comments = (line for item in items for line in (*_comments(item, found[item]), *start_note(item, unseen)))
        pod_fields = {"volumes": volumes} if volumes else {}
        documents.append(patch(workload, patches, comments, items[0].file_name, pod_fields))
    return documents


_MOUNTS = "volumeMounts"


def _mounted(inventory: Inventory, uses: Sequence[Use], item: ContainerOf) -> list[str]:
    pods = (inventory.pod(namespace, pod) for namespace, pod in {(use["namespace"], use["pod"]) for use in uses})
    return [mount.path for pod in pods if pod for mount in pod.mounts if mount.container == item.container]


def _set(item: ContainerOf, found: Writes) -> ContainerPatch:
    fields: dict[str, object] = {"securityContext": {"readOnlyRootFilesystem": not found.obstacles}}
    if found.folders and not found.obstacles:
        fields[_MOUNTS] = [{"name": _volume_name(item, folder), "mountPath": folder} for folder in found.folders]
    return ContainerPatch(item.container, item.init, fields)


def _volume_name(item: ContainerOf, folder: str) -> str:
    """A DNS label (RFC 1123) that describes the volume's purpose."""
    text = "".join(c if c.isascii() and c.isalnum() else "-" for c in f"{item.container}{folder}".lower())
    if len(text) <= 63:
        return text.strip("-")
    return f"{text[:54].strip('-')}-{zlib.crc32(folder.encode()):08x}"


def _comments(item: ContainerOf, found: Writes) -> Iterator[str]:
    if found.obstacles:
        yield f"{item}: the root file system cannot be read-only yet; first move the files written to"
    elif found.folders:
        yield f"{item}: the root file system can be read-only, with a volume at"
    else:
        yield f"{item}: nothing was written to the root file system."
    for place in found.obstacles or found.folders:
        yield f"  {place}: {some(found.examples[place], _MOST_EXAMPLES)}"
    if found.obstacles and found.folders:
        yield f"  volumes would suffice for {', '.join(found.folders)}"
    elif found.folders:
        yield "  An emptyDir starts empty: it hides the image's files there, and is deleted with the pod."
    if found.elsewhere:
        yield f"  written to, but not part of the root file system: {', '.join(found.elsewhere)}"
