"""The output of advisors: YAML documents with comments above them, or JSON; and the files of advisors.

A comment may contain text that a container chose, so line ends and control characters in it are escaped.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import yaml

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.kube.resources import Object


@dataclass(frozen=True)
class Document:
    """One object for `kubectl apply`, or one profile."""

    body: Object
    comments: tuple[str, ...] = ()
    name: str = ""
    """name of a file for it, without extension"""


class _Dumper(yaml.SafeDumper):
    """Indents lists below their key, like kubectl's own output and most manifests; writes no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def as_yaml(documents: Sequence[Document]) -> str:
    """All documents; each begins with `---` when there are several."""
    return "".join(("---\n" if len(documents) > 1 else "") + _yaml(document) for document in documents)


def _yaml(document: Document) -> str:
    comments = "".join(f"# {_printable(line)}".rstrip() + "\n" for line in document.comments)
    body = yaml.dump(document.body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)
    return comments + body


def as_json(documents: Sequence[Document]) -> str:
    """One object, or a List of several; JSON has no comments."""
    bodies = [document.body for document in documents]
    whole = bodies[0] if len(bodies) == 1 else {"apiVersion": "v1", "kind": "List", "items": bodies}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass
class ContainerPatch:
    """The fields to set for one container."""

    container: str
    init: bool = False
    fields: Object = field(default_factory=dict)


def patch(
    workload: Workload,
    containers: Sequence[ContainerPatch],
    comments: Iterable[str],
    name: str,
    pod_fields: Object | None = None,
) -> Document:
    """A part of the workload for `kubectl patch`, which leaves everything else unchanged. The comments end with how to
    apply it.

    It is not for `kubectl apply`: with --server-side, kubectl takes over the fields of an earlier apply, and then
    removes those that this part lacks.
    """
    pod: Object = dict(pod_fields or {})
    for key, init in (("initContainers", True), ("containers", False)):
        found = [{"name": item.container, **item.fields} for item in containers if item.init is init]
        if found:
            pod[key] = found
    spec: Object = pod
    if workload.kind != "Pod":
        spec = {"template": {"spec": pod}}
    if workload.kind == "CronJob":
        spec = {"jobTemplate": {"spec": spec}}
    body = {
        "apiVersion": workload.api_version,
        "kind": workload.kind,
        "metadata": {"name": workload.name, "namespace": workload.namespace},
        "spec": spec,
    }
    return Document(body, (*comments, _how_to_apply(workload)), name)


def _how_to_apply(workload: Workload) -> str:
    if workload.kind == "Pod":
        return "A pod's security context cannot be changed: put this into its manifest and recreate it."
    if workload.kind == "Job":
        return "A Job's pods cannot be changed: put this into its manifest and recreate it."
    what = f"{workload.kind.lower()} {workload.name} -n {workload.namespace}"
    return f"To apply this part, saved as FILE (--directory DIR): kubectl patch {what} --patch-file FILE"


# Files. A recording may have taken an hour, so a file is written completely or not at all, and whether it can be
# written is checked before.


def read_text(name: str) -> str:
    """The text of a file. Raises UsageError when it cannot be read."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: {_reason(error)}") from None


def check_writable(path: Path) -> None:
    """Raises UsageError when `path` cannot be written."""
    place = path if path.exists() else path.absolute().parent
    if not place.exists():
        raise UsageError(f"{path} cannot be written: the directory {place} does not exist")
    if not os.access(place, os.W_OK):
        raise UsageError(f"{path} cannot be written: permission denied")


def write_whole(path: Path, write: Callable[[TextIO], object]) -> None:
    """Writes a file, completely or not at all. Raises GadgetError."""
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            write(file)
        beside.replace(path)
    except OSError as error:
        raise GadgetError(f"{path} cannot be written: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text, completely or not at all. Raises GadgetError."""
    write_whole(path, lambda file: file.write(text))


def file_in(directory: Path, name: str) -> Path:
    """A file of this directory. The name may come from a recording or a baseline that anybody made."""
    return directory / (name.replace("/", "_").replace("\0", "_").lstrip(".") or "_")


def make_directory(directory: Path) -> None:
    """Creates a directory unless it exists. Raises GadgetError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GadgetError(f"the directory {directory} cannot be created: {error.strerror}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "is not UTF-8 text"
