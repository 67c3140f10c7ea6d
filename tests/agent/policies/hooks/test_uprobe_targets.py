"""Probes in files of containers, which may be wrong in any way."""

import os
import subprocess
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from kubectl_gadget.agent.host import foreign_files
from kubectl_gadget.agent.policies.hooks.uprobe_targets import UprobeTargets, _File
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.policy_messages import ProbePlace


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

    monkeypatch.setattr(foreign_files, "_INTERVALS", (0.0,))
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
