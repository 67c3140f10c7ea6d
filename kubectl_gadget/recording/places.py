"""Places of recordings: a file, or objects below a URL of an object store (s3://bucket/night.kgr).

A Path makes s3:/bucket of s3://bucket, so what a user typed becomes a Path only here.
"""

import bisect
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from kubectl_gadget.errors import GadgetError, UsageError, require
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.layout import FILE_BYTES, MAGIC, MOST_CONTROL, MOST_EVENTS, SEGMENT_BYTES, DamagedError

SCHEMES = ("s3", "gs", "az")
_SPECIAL = re.compile(r"[#%?*\\]")
"""Characters that URLs or patterns interpret: with one, a recording could be written to another place, or not be read
again."""


@dataclass(frozen=True)
class ObjectUrl:
    """The URL of a recording. Its objects are found by recording/places.py."""

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
    """A target for writing a recording. Its methods raise OSError and GadgetError."""

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
    """Return the place that a user typed. With `is_pattern`, the last part of a URL may have * and ?. Raises UsageError
    for a URL that cannot name a recording."""
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
    return StoredObjects(place)


def is_recording(place: PathOrUrl) -> bool:
    """True if a file can be read and begins as a recording does. A URL of an object store names nothing else."""
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
    remove_objects(place)


def names_near(place: PathOrUrl) -> Iterable[str]:
    """The names of what is in the same directory. Raises GadgetError."""
    if isinstance(place, Path):
        try:
            return os.listdir(place.parent)
        except OSError:
            return ()  # creating the file will fail, with the reason
    return names_beside(place)


# Object stores, by obstore: an object for the file header, and one for each segment. URL/recording is the file
# header, URL/segment-NUMBER-HEADER a segment; HEADER is its header in hex. So a list of the names is an index by
# time, each object is whole or missing, and all objects in the order of their names make a file. Anybody may have
# put objects there, so names are checked as headers are, and sizes before anything is read.


_FILE_HEADER = "recording"
_SEGMENT = re.compile(rf"segment-(\d{{12,20}})-([0-9a-f]{{{2 * SEGMENT_BYTES}}})")
_MOST_BYTES = SEGMENT_BYTES + MOST_CONTROL + MOST_EVENTS
_MOST_SEGMENTS = 10_000_000
_AHEAD_BYTES, AHEAD = 32 << 20, 16
"""Bytes and objects that are read ahead, since each answer takes tens of milliseconds."""
RETRIES = {"max_retries": 10, "retry_timeout": timedelta(seconds=60)}
RETRIES_AHEAD = {"max_retries": 2, "retry_timeout": timedelta(seconds=3)}
"""For reading ahead: closing waits for these requests, needed or not."""
_STATUS = re.compile(r"status code: (\d+ [\w -]+)(?:.*?<Code>(\w+)</Code>)?", re.DOTALL)

T = TypeVar("T")


class _Part(NamedTuple):
    """One object, in the order of the file."""

    name: str
    size: int
    header: bytes


class Store:
    """The objects below one URL."""

    def __init__(self, url: str, retries: Mapping[str, Any] = RETRIES) -> None:
        """Connects to nothing yet. Raises UsageError."""
        self._obstore = require("obstore", url.partition("://")[0] + "://", "stores")
        stores = require("obstore.store", "object stores", "stores")
        self.url = url
        self._store = self._try(lambda: stores.from_url(url, retry_config=retries))

    def put(self, name: str, data: bytes, *, is_new: bool) -> None:
        """Creates an object. Raises UsageError when it exists and `is_new`."""
        mode = "create" if is_new else "overwrite"
        self._try(lambda: self._obstore.put(self._store, name, data, mode=mode, use_multipart=False))

    def get(self, name: str, size: int) -> bytes:
        """The contents; empty when it has gone since, or is larger than it was."""

        def content() -> bytes:
            found = self._obstore.get(self._store, name)
            return bytes(found.bytes()) if found.meta["size"] <= size else b""

        try:
            return self._try(content)
        except FileNotFoundError:
            return b""

    def names(self) -> Iterator[tuple[str, int]]:
        pages = iter(self._try(lambda: self._obstore.list(self._store)))
        while (page := self._try(lambda: next(pages, None))) is not None:
            yield from ((str(item["path"]), int(item["size"])) for item in page)

    def folders(self) -> list[str]:
        """The first part of the names of all objects that have several."""
        found = self._try(lambda: self._obstore.list_with_delimiter(self._store))
        return [str(name).rstrip("/").rpartition("/")[2] for name in found["common_prefixes"]]

    def remove(self, names: Iterable[str]) -> None:
        wanted = list(names)
        self._try(lambda: self._obstore.delete(self._store, wanted))

    def _try(self, call: Callable[[], T]) -> T:
        """Raises FileNotFoundError, UsageError and GadgetError."""
        exceptions = require("obstore.exceptions", "object stores", "stores")
        try:
            return call()
        except exceptions.AlreadyExistsError:
            raise UsageError(f"{self.url}: the recording exists", "another name, or remove it") from None
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise UsageError(f"{self.url}: there is no such bucket") from None
            raise
        except (exceptions.BaseError, ValueError) as error:
            raise GadgetError(
                f"{self.url}: {_why(error)}", "credentials and endpoint from the environment: docs/recording.md"
            ) from None


class NewObjects:
    """A recording that is written. See NewFile."""

    def __init__(self, url: ObjectUrl) -> None:
        """Creates the object of the file header. Raises GadgetError when there is one already, or none can be made."""
        self._store = Store(str(url))
        try:
            self._store.put(_FILE_HEADER, layout.file_header(), is_new=True)
        except FileNotFoundError:
            raise UsageError(f"{url}: there is no such bucket") from None

    def write(self, data: bytes) -> None:
        """See NewFile. The file header is there already."""
        if data == layout.file_header():
            return
        number, header = layout.decode_header(data).number, data[:SEGMENT_BYTES].hex()
        self._store.put(f"segment-{number:012}-{header}", data, is_new=False)

    def close(self) -> None:
        """See NewFile. Each object is complete already."""


class StoredObjects:
    """The objects of a recording as one file. See StoredBytes."""

    def __init__(self, url: ObjectUrl) -> None:
        """Lists the objects. Raises GadgetError."""
        self._store, self._store_ahead = Store(str(url)), Store(str(url), RETRIES_AHEAD)
        self._parts = _parts(self._store)
        self._begins = list(accumulate((part.size for part in self._parts), initial=0))
        self._at = 0
        self._threads = ThreadPoolExecutor(AHEAD, "objects")
        self._contents: dict[int, Future[bytes]] = {}

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._begins[-1])[whence]
        return self._at

    def read(self, size: int) -> bytes:
        """See StoredBytes. Headers are known without asking for the objects."""
        end = min(self._at + size, self._begins[-1])
        found = list[bytes]()
        while self._at < end:
            place = bisect.bisect_right(self._begins, self._at) - 1
            part, offset = self._parts[place], self._at - self._begins[place]
            length = min(end - self._at, part.size - offset)
            is_known = offset + length <= len(part.header)
            data = part.header if is_known else self._content(place)
            found.append(data[offset : offset + length])
            if len(found[-1]) < length:  # it has gone, or is another one now
                found[-1] = found[-1].ljust(length, b"\0")
            self._at += length
        return b"".join(found)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _content(self, place: int) -> bytes:
        if place not in self._contents:
            self._contents.clear()  # not the next one: a reader that looks for a time
        self._contents = {number: future for number, future in self._contents.items() if number >= place}
        left = _AHEAD_BYTES
        for number in range(place, min(place + AHEAD, len(self._parts))):
            name, size, _ = self._parts[number]
            left -= size
            if number not in self._contents and (number == place or left >= 0):
                self._contents[number] = self._threads.submit(self._store_ahead.get, name, size)
        try:
            return self._contents[place].result()
        except GadgetError:
            patient = self._contents[place] = Future[bytes]()
            patient.set_result(self._store.get(self._parts[place].name, self._parts[place].size))
            return patient.result()


def _parts(store: Store) -> list[_Part]:
    """The objects of a recording. Raises UsageError when there are none."""
    segments, is_there = list[tuple[int, _Part]](), False
    for name, size in store.names():
        found = _SEGMENT.fullmatch(name)
        if name == _FILE_HEADER and size == FILE_BYTES:
            is_there = True
        elif found and size <= _MOST_BYTES and len(segments) < _MOST_SEGMENTS:
            header = bytes.fromhex(found[2])
            try:
                number = layout.decode_header(header).number
            except DamagedError:
                header, number = b"", int(found[1])
            segments.append((number, _Part(name, size, header)))
    if not is_there and not segments:
        raise UsageError(f"{store.url}: there is no recording")
    segments.sort()
    first = _Part(_FILE_HEADER, FILE_BYTES, b"" if is_there else layout.file_header())
    return [first, *(part for _, part in segments)]


def names_beside(url: ObjectUrl) -> list[str]:
    """The names of what is in the same folder. Raises GadgetError."""
    return Store(url.parent).folders()


def remove_objects(url: ObjectUrl) -> None:
    """Removes a recording. Raises GadgetError."""
    store = Store(str(url))
    store.remove([name for name, _ in store.names() if name == _FILE_HEADER or _SEGMENT.fullmatch(name)])


def _why(error: Exception) -> str:
    """An error of obstore without the addresses and structures that it prints for its developers."""
    text = str(error).partition("Debug source:")[0].strip()
    if status := _STATUS.search(text):
        return " ".join(filter(None, (status[1].strip(), status[2] and f"({status[2]})")))
    return " ".join(text.split())[:300]
