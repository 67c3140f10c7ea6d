"""Remembers from what each built file was made, so that a build does nothing when nothing changed.

The trap: times do not help, since a checkout or an archive sets them at will; contents are compared by their hash.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kubectl_gadget.catalogue.compiler import find_clang, include_directory

_FILE = "inputs.json"
_HERE = Path(__file__).parent


class Inputs:
    """Of the files below `built`."""

    def __init__(self, built: Path) -> None:
        self._built = built
        self._path = built / _FILE
        self._digests: dict[str, str] = {}
        if self._path.is_file():
            try:
                self._digests = dict(json.loads(self._path.read_bytes()))
            except ValueError:
                # Cut off while it was written: all is built again, and the file with it.
                self._digests = {}

    def changed(self, target: Path, sources: Iterable[Path]) -> bool:
        """Whether `target` has to be made anew."""
        return not target.is_file() or self._digests.get(self._key(target)) != _digest(target, sources)

    def made(self, target: Path, sources: Iterable[Path]) -> None:
        """To be called when `target` was made; remembered at once."""
        self._digests[self._key(target)] = _digest(target, sources)
        self._path.write_text(json.dumps(self._digests, indent=1), encoding="utf-8")

    def _key(self, target: Path) -> str:
        return target.relative_to(self._built).as_posix()


def _digest(target: Path, sources: Iterable[Path]) -> str:
    """Of the sources, and of all that every object, or every schema, depends on."""
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
