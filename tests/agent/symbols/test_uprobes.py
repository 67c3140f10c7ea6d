"""Files that a container made to take long: the agent reads its rings before it examines the next one."""

import time
from typing import Any, cast

import pytest

from kubectl_gadget.agent.symbols import uprobes
from kubectl_gadget.agent.symbols.uprobes import MappedFile, Uprobes


@pytest.mark.parametrize(
    ("at_start", "seconds", "expected"),
    [(True, -1.0, [3, 3]), (False, 60.0, [0, 3, 3]), (False, -1.0, [0, 1, 2, 3, 3])],
)
def test_a_turn_that_takes_long_leaves_files_to_the_next_except_at_the_start(
    at_start: bool, seconds: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {(1, inode): MappedFile(1, inode, 1, "/lib/libssl.so.3") for inode in range(3)}
    examined: list[int] = []

    def examine(path: str, names: object) -> dict[str, int]:
        examined.append(len(examined))
        return {}

    monkeypatch.setattr(uprobes, "TURN_SECONDS", seconds)
    monkeypatch.setattr(uprobes, "SCAN_SECONDS", 0.0)
    monkeypatch.setattr(uprobes, "function_offsets", examine)
    monkeypatch.setattr(MappedFile, "open", lambda self: -1)
    followed = Uprobes(cast("Any", None), [], lambda cgroup: True, lambda text: None)
    counts: list[int] = []
    monkeypatch.setattr(followed._files, "look", lambda: files if at_start or counts else {})
    for _ in expected:
        followed.turn(time.monotonic())
        counts.append(len(examined))
    assert counts == expected
