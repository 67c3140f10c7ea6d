"""Files that policies name are found in each root, and their table holds what all roots have."""

import errno
import os
import subprocess
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.host import foreign_files
from kubectl_gadget.agent.policies.files import SameFiles, UprobeTargets, _File, identity_of
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.policy_messages import ProbePlace, SameFile

PIDS = [os.getpid()]


class Table:
    """A map from keys to values."""

    value_size = 8

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def remove(self, key: bytes) -> None:
        del self.entries[key]


def entry(test: int, path: Path, selectors: int) -> SameFile:
    return SameFile(test=test, path=str(path), selectors=selectors.to_bytes(8, "little"))


def test_a_link_has_the_identity_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    found = identity_of(PIDS, str(tmp_path / "link"))
    assert found is not None
    assert found[1] == os.stat(tmp_path / "file").st_ino


def test_a_path_without_a_file_has_no_identity(tmp_path: Path) -> None:
    assert identity_of(PIDS, str(tmp_path / "nothing")) is None


def test_two_names_of_one_file_are_one_entry_with_the_selectors_of_both(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "hard").hardlink_to(tmp_path / "file")
    table = Table()
    files = SameFiles(table, [entry(3, tmp_path / "file", 1), entry(3, tmp_path / "hard", 4)], [].append)  # type: ignore[arg-type]
    files.turn({(1, 2, 3): PIDS})
    assert list(table.entries.values()) == [(5).to_bytes(8, "little")]


def test_a_replaced_file_stays_a_match_until_its_root_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_files, "INTERVALS", (0.0,))
    table = Table()
    files = SameFiles(table, [entry(0, tmp_path / "file", 1)], [].append)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    files.turn({(1, 2, 3): PIDS})
    (tmp_path / "other").touch()
    (tmp_path / "file").rename(tmp_path / "renamed")
    (tmp_path / "other").rename(tmp_path / "file")
    files.turn({(1, 2, 3): PIDS})
    assert len(table.entries) == 2
    files.turn({})
    assert table.entries == {}


def test_an_entry_that_the_table_refused_is_written_as_soon_as_there_is_room(tmp_path: Path) -> None:
    class FullTable(Table):
        room = 0

        def put(self, key: bytes, value: bytes) -> None:
            if len(self.entries) >= self.room:
                raise Failure("bpf_map_update_elem", errno.E2BIG, [])
            super().put(key, value)

    (tmp_path / "file").touch()
    table, warnings = FullTable(), list[str]()
    files = SameFiles(table, [entry(0, tmp_path / "file", 1)], warnings.append)  # type: ignore[arg-type]
    files.turn({(1, 2, 3): PIDS})
    assert not table.entries
    assert "not compared in some containers" in warnings[0]
    table.room = 1
    files.turn({(1, 2, 3): PIDS})
    assert len(table.entries) == 1


def test_a_file_is_found_through_the_next_process_if_one_has_ended(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert identity_of([ended.pid, *PIDS], str(tmp_path / "file")) == identity_of(PIDS, str(tmp_path / "file"))
    assert identity_of([ended.pid], str(tmp_path / "file")) is None


# Probes in files of containers, which may be wrong in any way.


class Faults:
    """In place of RealFiles: each look finds another fault."""

    def __init__(self) -> None:
        self._numbers = count()

    def identity(self, file: int) -> tuple[int, int]:
        raise AgentError(f"fault {next(self._numbers)}")


def test_a_container_cannot_flood_the_user_with_warnings(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.touch()
    warnings: list[str] = []
    place = ProbePlace(path=str(path))
    targets = UprobeTargets(cast(Any, None), [], place, cast(Any, Faults()), warnings.append)
    targets.turn({(1, 2, number): [os.getpid()] for number in range(40)})
    assert warnings == [f"fault {number}" for number in range(16)]


class OneFile:
    """In place of RealFiles: every file is the same."""

    def identity(self, file: int) -> tuple[int, int]:
        return 1, 2


def test_a_probe_stays_where_the_process_that_was_asked_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "program"
    path.touch()
    ended = subprocess.Popen(["true"])
    ended.wait()
    attached: list[str] = []

    def attach(self: UprobeTargets, path: str, file: int) -> _File:
        attached.append(path)
        return _File()

    monkeypatch.setattr(foreign_files, "INTERVALS", (0.0,))
    monkeypatch.setattr(UprobeTargets, "_attach", attach)
    monkeypatch.setattr(UprobeTargets, "_detach", lambda self, file: attached.pop())
    targets = UprobeTargets(cast(Any, None), [], ProbePlace(path=str(path)), cast(Any, OneFile()), [].append)
    root = (1, 2, 3)
    targets.turn({root: [ended.pid, os.getpid()]})
    assert len(attached) == 1
    targets.turn({root: [ended.pid]})
    assert len(attached) == 1
    path.unlink()
    targets.turn({root: [ended.pid, os.getpid()]})
    assert not attached
