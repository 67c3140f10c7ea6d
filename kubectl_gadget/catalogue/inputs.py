"""Remembers what each built file was made from, so that a build does nothing when nothing changed.

The trap: timestamps are useless here, since a checkout or an archive sets them at will; so contents are compared by
hash.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kubectl_gadget.catalogue.compiler import find_clang, include_directory

_FILE = "inputs.json"
_HERE = Path(__file__).parent


class Inputs:
    """The inputs of the files below `built`."""

    def __init__(self, built: Path) -> None:
        self._built = built
        self._path = built / _FILE
        self._digests: dict[str, str] = {}
        if self._path.is_file():
            try:
                self._digests = dict(json.loads(self._path.read_bytes()))
            except ValueError:
                # The file was truncated while it was written: everything is built again, and the file is rewritten.
                self._digests = {}

    def changed(self, target: Path, sources: Iterable[Path]) -> bool:
        """Whether `target` has to be built again."""
        return not target.is_file() or self._digests.get(self._key(target)) != _digest(target, sources)

    def made(self, target: Path, sources: Iterable[Path]) -> None:
        """Records that `target` was built; saved at once."""
        self._digests[self._key(target)] = _digest(target, sources)
        self._path.write_text(json.dumps(self._digests, indent=1), encoding="utf-8")

    def _key(self, target: Path) -> str:
        return target.relative_to(self._built).as_posix()


def write(path: Path, data: bytes) -> None:
    """Writes a file atomically, unless its content is the same already."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """The same for JSON."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def _digest(target: Path, sources: Iterable[Path]) -> str:
    """The hash of the sources, and of everything that each object, or each schema, depends on."""
    digest = hashlib.sha256((_of_objects() if target.suffix == ".o" else _of_schemas()).encode())
    for source in sources:
        digest.update(b"\0" + source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


@cache
def _of_objects() -> str:
    return _joined(str(find_clang()), [*include_directory().rglob("*.h"), _HERE / "compiler.py"])


@cache
def _of_schemas() -> str:
    schema = _HERE.parent / "events" / "schema.py"
    return _joined(_of_objects(), [*_HERE.glob("*.py"), *_HERE.glob("*.yaml"), schema])


def _joined(beginning: str, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(beginning.encode())
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
