"""Probes in files of containers, which may be wrong in any way."""

import os
from itertools import count
from pathlib import Path
from typing import Any, cast

from kubectl_gadget.agent.policies.hooks.uprobe_targets import UprobeTargets
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
    targets.turn(dict.fromkeys(range(40), os.getpid()))
    assert warnings == [f"fault {number}" for number in range(16)]
