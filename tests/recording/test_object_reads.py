"""Reads of objects that change or fail meanwhile, from a store in a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.recording import object_stores
from kubectl_gadget.recording.layout import file_header
from kubectl_gadget.recording.object_stores import StoredObjects
from kubectl_gadget.recording.recording_places import ObjectUrl

pytest.importorskip("obstore")
NAME = f"segment-{0:012}-{'00' * object_stores.SEGMENT_BYTES}"
BEGIN = len(file_header())


def stored(folder: Path, content: bytes) -> StoredObjects:
    """A recording with one segment whose header says nothing."""
    (folder / "a.kgr").mkdir()
    (folder / "a.kgr" / "recording").write_bytes(file_header())
    (folder / "a.kgr" / NAME).write_bytes(content)
    return StoredObjects(ObjectUrl(f"file://{folder}", "a.kgr"))


def test_an_object_that_has_become_larger_is_not_read(tmp_path: Path) -> None:
    made = stored(tmp_path, b"content")
    (tmp_path / "a.kgr" / NAME).write_bytes(b"content" * 1000)
    made.seek(BEGIN)
    assert made.read(100) == bytes(7)
    made.close()


def test_what_is_read_ahead_fails_early_and_is_tried_again_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real, asked = stored(tmp_path, b"content"), object_stores._Store.get, list[Mapping[str, Any]]()
    retries = {id(made._store): object_stores._RETRIES, id(made._store_ahead): object_stores._RETRIES_AHEAD}

    def get(store: object_stores._Store, name: str, size: int) -> bytes:
        asked.append(retries[id(store)])
        if len(asked) == 1:
            raise GadgetError("503 Slow Down")
        return real(store, name, size)

    monkeypatch.setattr(object_stores._Store, "get", get)
    made.seek(BEGIN)
    assert made.read(100) == b"content"
    made.seek(BEGIN)
    assert made.read(100) == b"content"
    assert asked == [object_stores._RETRIES_AHEAD, object_stores._RETRIES]
    made.close()
