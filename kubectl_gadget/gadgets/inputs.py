"""Remembers what each built file was made from, so that a build does nothing when nothing changed.

Timestamps are useless here, since a checkout or an archive sets them at will; so contents are compared by hash.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kubectl_gadget.gadgets.compiler import find_clang, include_directory

_FILE = "inputs.json"
_HERE = Path(__file__).parent
_WITHOUT_LINES = " without lines"


class Inputs:
    """The inputs of the files below `built`. `source_lines`: whether objects keep the lines of their source."""

    def __init__(self, built: Path, source_lines: bool = True) -> None:
        self.source_lines = source_lines
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
        """True if `target` has to be built again."""
        return not target.is_file() or self._digests.get(self._key(target)) != self._digest(target, sources)

    def made(self, target: Path, sources: Iterable[Path]) -> None:
        """Records that `target` was built; saved at once."""
        self._digests.pop(self._key(target) + _WITHOUT_LINES, None)
        self._save(self._key(target), self._digest(target, sources))

    def has_lines(self, target: Path) -> bool:
        """True if the lines of an object are still to be removed."""
        return self._digests.get(self._key(target) + _WITHOUT_LINES) != self._digest_without_lines(target)

    def removed_lines(self, target: Path) -> None:
        """Records that they were; saved at once."""
        self._save(self._key(target) + _WITHOUT_LINES, self._digest_without_lines(target))

    def keep_only(self, targets: Iterable[Path]) -> None:
        """Forgets all other targets, and removes those that are there: they would be packed into the wheel."""
        kept = {self._key(target) for target in targets}
        for target in (*self._built.glob("objects/*/*.bpf.o"), *self._built.glob("gadgets/*.json")):
            if self._key(target) not in kept:
                target.unlink()
        self._digests = {key: value for key, value in self._digests.items() if key.removesuffix(_WITHOUT_LINES) in kept}
        self._write()

    def _save(self, key: str, digest: str) -> None:
        self._digests[key] = digest
        self._write()

    def _write(self) -> None:
        write(self._path, json.dumps(self._digests, indent=1, sort_keys=True).encode())

    def _key(self, target: Path) -> str:
        return target.relative_to(self._built).as_posix()

    def _digest(self, target: Path, sources: Iterable[Path]) -> str:
        """The hash of the sources, and of everything that each object, or each schema, depends on."""
        is_object = target.suffix == ".o"
        digest = hashlib.sha256((_of_objects() if is_object else _of_schemas()).encode())
        if is_object and self.source_lines:
            digest.update(b"with lines")
        for source in sources:
            digest.update(b"\0" + source.name.encode() + b"\0" + source.read_bytes())
        return digest.hexdigest()

    def _digest_without_lines(self, target: Path) -> str:
        return _joined(self._digests[self._key(target)], [_HERE / "source_lines.py"])


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


@cache
def _of_objects() -> str:
    return _joined(str(find_clang()), [*include_directory().rglob("*.h"), _HERE / "compiler.py"])


@cache
def _of_schemas() -> str:
    schema = _HERE / "schema.py"
    return _joined(_of_objects(), [*_HERE.glob("*.py"), *_HERE.glob("*.yaml"), schema])


def _joined(beginning: str, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(beginning.encode())
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
