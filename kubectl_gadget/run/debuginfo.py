"""Finds names of functions that nodes could not name, by build id: in a folder, or on a debuginfod server.

Agents send build id and address of such functions. Files of a server are kept in the user's cache. The pipeline's
thread waits for downloads, as it does for a slow reader of its output, but for a limited time in all: a profile needs
its names only at its end, and may then not be shown for lack of a server.
"""

import contextlib
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kubectl_gadget import __version__
from kubectl_gadget.agent.elf import ElfFile, FileSource, build_id_of, open_file
from kubectl_gadget.agent.symbols.elf_functions import ElfFunctions
from kubectl_gadget.rows.stacks import UNKNOWN

_BUILD_ID = re.compile(r"[0-9a-f]{8,128}")
_ADDRESS = re.compile(r"0x[0-9a-f]{1,16}")
_FIELDS = 5
"""Of a frame that may be named: function, file, offset, build id and address."""
_SYMTAB = 2
_MOST_SYMBOLS = 10_000_000
"""Of all files; each takes 20 bytes."""
_MOST_BUILD_IDS = 4096
_MOST_IN_FOLDER = 20_000
"""Files of a folder that are looked at."""
MOST_BYTES = 1 << 30
"""Of one file from a server."""
MOST_CACHED = 2 << 30
"""Of all files in the cache."""
MOST_SECONDS = 60.0
"""For so long, a run waits for servers in all."""
SAID_AFTER = 2.0
"""Seconds of waiting after which the user is told."""
_SILENT_SECONDS = 10.0
_AT_ONCE = 4
_PIECE = 1 << 18
_OLD = 3600.0
"""Seconds after which an unfinished download is removed."""


def debug_names(place: str, warn: Callable[[str], object]) -> "DebugNames":
    """Returns the names of a folder or of a debuginfod server. `warn` gets a text for the user, from any thread."""
    if "://" in place:
        return DebugNames(_Server(place, warn))
    return DebugNames(_Folder(Path(place)))


class DebugNames:
    """Names of functions by build id and address."""

    def __init__(self, files: "_Folder | _Server") -> None:
        self._files = files
        self._functions: dict[str, ElfFunctions | None] = {}
        self._symbols = 0

    def named(self, frames: Sequence[str]) -> list[str]:
        """Returns the elements of `frames` in a STACKS frame, with names where there are any."""
        codes = [_code(text) for text in frames]
        self._read({code[0] for code in codes if code})
        return [self._named(text, *code) if code else text for text, code in zip(frames, codes, strict=True)]

    def _named(self, text: str, build_id: str, address: int) -> str:
        functions = self._functions.get(build_id)
        found = functions.find(address) if functions else None
        return f"{found.name}\t{text.split(chr(9), 2)[1]}\t".replace("\n", " ") if found else text

    def _read(self, build_ids: set[str]) -> None:
        new = sorted(build_ids - self._functions.keys())[: _MOST_BUILD_IDS - len(self._functions)]
        if not new:
            return
        for build_id, source in self._files.find(new).items():
            self._functions[build_id] = functions = ElfFunctions(source) if source else None
            self._symbols += functions.symbols if functions else 0
            if functions and source and self._symbols > _MOST_SYMBOLS:
                self._symbols -= functions.symbols
                functions.forget()
                source.close()


def _code(text: str) -> tuple[str, int] | None:
    """Returns build id and address of an unknown function."""
    if not text.startswith(f"{UNKNOWN}\t"):
        return None
    parts = text.split("\t")
    if len(parts) != _FIELDS or not _BUILD_ID.fullmatch(parts[3]) or not _ADDRESS.fullmatch(parts[4]):
        return None
    return parts[3], int(parts[4], 16)


class _Folder:
    """A folder as gdb reads it, with .build-id/xx/….debug, or with any files."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._by_build_id: dict[str, str] | None = None

    def find(self, build_ids: Sequence[str]) -> dict[str, FileSource | None]:
        """Returns the files that have these build ids; None where there is none."""
        return {each: self._find(each) for each in build_ids}

    def _find(self, build_id: str) -> FileSource | None:
        name = f"{build_id[:2]}/{build_id[2:]}.debug"
        for path in (self._top / ".build-id" / name, self._top / name):
            if found := _opened(path, build_id):
                return found
        if self._by_build_id is None:
            self._by_build_id = dict(self._listed())
        path_of = self._by_build_id.get(build_id)
        return _opened(path_of, build_id) if path_of else None

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Yields build id and path of the files that have symbols."""
        left = _MOST_IN_FOLDER
        for folder, _, names in os.walk(self._top):
            for name in names[:left]:
                left -= 1
                source = _open(path := os.path.join(folder, name))
                if source is None:
                    continue
                elf = ElfFile(source)
                if any(one.kind == _SYMTAB for one in elf.sections) and (found := build_id_of(elf)):
                    yield found, path
                source.close()


class _Server:
    """A debuginfod server, and the cache of its files."""

    def __init__(self, url: str, warn: Callable[[str], object]) -> None:
        self._url, self._warn = url.rstrip("/"), warn
        self._left = MOST_SECONDS
        self._failed = self._said = False
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        self._cache = Path(base, "kubectl-gadget", "debuginfod")

    def find(self, build_ids: Sequence[str]) -> dict[str, FileSource | None]:
        """Returns the files that have these build ids; None where there is none, or time is over."""
        found = {each: _opened(self._path(each), each) for each in build_ids}
        for each in (each for each, source in found.items() if source):
            with contextlib.suppress(OSError):
                os.utime(self._path(each))
        missing = [each for each, source in found.items() if source is None]
        if not missing or self._left <= 0:
            return found
        began = time.monotonic()
        until = began + self._left
        wanted = deque(missing)
        threads = [threading.Thread(target=self._fetch, args=(wanted, until), daemon=True) for _ in range(_AT_ONCE)]
        for thread in threads:
            thread.start()
        for end in (min(began + SAID_AFTER, until), until):
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
            if not self._said and any(thread.is_alive() for thread in threads) and end < until:
                self._said = True
                self._warn(f"--debuginfo {self._url}: waiting for debug files, {MOST_SECONDS:.0f} s at most")
        self._left -= time.monotonic() - began
        if any(thread.is_alive() for thread in threads):
            self._fail(f"waited for {MOST_SECONDS:.0f} s in all")
        return {**found, **{each: _opened(self._path(each), each) for each in missing}}

    def _path(self, build_id: str) -> Path:
        return self._cache / f"{build_id}.debug"

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._warn(f"--debuginfo {self._url}: {why}; some functions have no names")

    def _fetch(self, wanted: "deque[str]", until: float) -> None:
        """Puts files into the cache, and takes them from `wanted`. Several threads do so."""
        from http.client import HTTPException
        from urllib.error import HTTPError

        while time.monotonic() < until:
            try:
                self._download(wanted.popleft(), until)
            except IndexError:
                return
            except HTTPError as error:
                if error.code not in (404, 410):
                    self._fail(f"HTTP {error.code} {error.reason}")
                error.close()
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                self._fail(str(getattr(reason, "strerror", None) or reason))

    def _download(self, build_id: str, until: float) -> None:
        """Raises OSError, HTTPException and ValueError."""
        from urllib.request import Request, urlopen

        asked = Request(f"{self._url}/buildid/{build_id}/debuginfo")
        asked.add_header("User-Agent", f"kubectl-gadget/{__version__}")
        seconds = min(_SILENT_SECONDS, max(0.1, until - time.monotonic()))
        with urlopen(asked, timeout=seconds) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            if size > MOST_BYTES:
                raise ValueError(f"a file has {size:,} bytes; at most {MOST_BYTES:,} are read")
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._cache, suffix=".part", delete=False) as file:
                try:
                    got = 0
                    while piece := answer.read1(_PIECE):
                        got += len(piece)
                        if got > MOST_BYTES:
                            raise ValueError(f"a file has more than {MOST_BYTES:,} bytes")
                        if time.monotonic() > until:
                            return
                        file.write(piece)
                    if size and got != size:
                        raise ValueError(f"a file was cut after {got:,} of {size:,} bytes")
                    file.flush()
                    if (checked := _opened(Path(file.name), build_id)) is None:
                        raise ValueError("it sent something else than the file with the build id")
                    checked.close()
                    self._make_room(got)
                    os.replace(file.name, self._path(build_id))
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(file.name)

    def _make_room(self, size: int) -> None:
        """Removes the files that were not used for longest, and unfinished ones of runs that were killed."""
        now, kept = time.time(), []
        for path in self._cache.iterdir():
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == ".debug":
                    kept.append((status.st_mtime, status.st_size, path))
                elif path.suffix == ".part" and now - status.st_mtime > _OLD:
                    path.unlink()
        total = size + sum(each for _, each, _ in kept)
        for _, each, path in sorted(kept):
            if total <= MOST_CACHED:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= each


def _opened(path: "Path | str", build_id: str) -> FileSource | None:
    """Returns the file if it has this build id."""
    source = _open(path)
    if source and build_id_of(ElfFile(source)) != build_id:
        source.close()
        return None
    return source


def _open(path: "Path | str") -> FileSource | None:
    return open_file(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
