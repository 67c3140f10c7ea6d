"""Where a recording is: a file, or objects below a URL of an object store (s3://bucket/night.kgr).

The trap: a Path makes s3:/bucket of s3://bucket, so what a user typed becomes a Path only here.
"""

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kubectl_gadget.errors import UsageError
from kubectl_gadget.recording.layout import MAGIC

SCHEMES = ("s3", "gs", "az")
_SPECIAL = re.compile(r"[#%?*\\]")
"""Characters that URLs or patterns interpret: with one, a recording could be written to another place, or not be read
again."""


@dataclass(frozen=True)
class ObjectUrl:
    """The URL of a recording. Its objects are found by recording/object_stores.py."""

    parent: str
    """s3://bucket/folder"""
    name: str

    def __str__(self) -> str:
        return f"{self.parent}/{self.name}"

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    def with_name(self, name: str) -> "ObjectUrl":
        return ObjectUrl(self.parent, name)


PathOrUrl = Path | ObjectUrl


class NewFile(Protocol):
    """What a recording is written to. Its methods raise OSError and GadgetError."""

    def write(self, data: bytes) -> None:
        """Takes all of it: the file header, or one segment."""

    def close(self) -> None:
        """All was written."""


class _LocalFile:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]

    def close(self) -> None:
        os.close(self._handle)


def place_of(text: str, *, is_pattern: bool = False) -> PathOrUrl:
    """What a user typed. With `is_pattern`, the last part of a URL may have * and ?. Raises UsageError for a URL
    that cannot be that of a recording."""
    scheme, separator, rest = text.partition("://")
    if not separator or "/" in scheme:
        return Path(text)
    parent, _, name = rest.rstrip("/").rpartition("/")
    if scheme not in SCHEMES:
        raise UsageError(f"{text}: recordings are in files, or in s3://, gs:// or az://")
    if not parent or parent.startswith("/") or not name or not text.isprintable():
        raise UsageError(f"{text} does not name a recording in a bucket", f"{scheme}://BUCKET/night.kgr")
    plain = re.sub("[*?]", "", name) if is_pattern else name
    if special := _SPECIAL.search(f"{parent}/{plain}"):
        raise UsageError(f"{text}: the name of a recording in a bucket cannot have {special[0]!r}", "another name")
    if {"", ".", ".."} & {*parent.split("/"), name}:
        raise UsageError(f"{text}: a part of the name of a recording in a bucket cannot be empty, '.' or '..'")
    return ObjectUrl(f"{scheme}://{parent}", name)


def places_of(texts: Iterable[str]) -> list[PathOrUrl]:
    """Recordings to be read. In the last part of a URL, * and ? match, as the shell does for files. Raises
    GadgetError."""
    return [each for text in texts for each in _expanded(place_of(text, is_pattern=True))]


def _expanded(place: PathOrUrl) -> Iterator[PathOrUrl]:
    if isinstance(place, Path) or not any(each in place.name for each in "*?"):
        yield place
        return
    found = sorted(
        name for name in names_near(place) if fnmatch.fnmatchcase(name, place.name) and not _SPECIAL.search(name)
    )
    if not found:
        raise UsageError(f"{place}: no recording has such a name")
    yield from map(place.with_name, found)


def create(place: PathOrUrl) -> NewFile:
    """Creates a recording. Raises UsageError when it exists or cannot be created."""
    if isinstance(place, ObjectUrl):
        from kubectl_gadget.recording.object_stores import NewObjects

        return NewObjects(place)
    try:
        # Rows contain programs' arguments, so nobody else may read them.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        return _LocalFile(os.open(place, flags, 0o600))
    except FileExistsError:
        raise UsageError(f"{place}: the file exists", "another name, or remove it") from None
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}") from None


class StoredBytes(Protocol):
    """A recording that is read: a part of BinaryIO. Its methods raise OSError and GadgetError."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As in BinaryIO."""

    def read(self, size: int, /) -> bytes:
        """As in BinaryIO."""

    def close(self) -> None:
        """As in BinaryIO."""


def open_place(place: PathOrUrl) -> StoredBytes:
    """Opens a recording to be read. Raises OSError and GadgetError."""
    if isinstance(place, Path):
        return open(place, "rb")
    from kubectl_gadget.recording.object_stores import StoredObjects

    return StoredObjects(place)


def is_recording(place: PathOrUrl) -> bool:
    """Whether a file can be read and begins as a recording does. A URL of an object store names nothing else."""
    if isinstance(place, ObjectUrl):
        return True
    try:
        with open(place, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def size_of(file: StoredBytes) -> int:
    return file.seek(0, os.SEEK_END)


def remove(place: PathOrUrl) -> None:
    """Removes a recording, if there is one. Raises OSError and GadgetError."""
    if isinstance(place, Path):
        place.unlink(missing_ok=True)
        return
    from kubectl_gadget.recording.object_stores import remove_objects

    remove_objects(place)


def names_near(place: PathOrUrl) -> Iterable[str]:
    """The names of what is in the same directory. Raises GadgetError."""
    if isinstance(place, Path):
        try:
            return os.listdir(place.parent)
        except OSError:
            return ()  # creating the file will fail, with the reason
    from kubectl_gadget.recording.object_stores import names_beside

    return names_beside(place)
