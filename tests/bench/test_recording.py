"""bench.recording measures: a few of its runs, without their times."""

from pathlib import Path

import pytest

from bench.recording import OpensOfRun, write

pytestmark = pytest.mark.usefixtures("catalogue_built")
EVENTS = 20_000


def test_all_events_of_a_run_are_recorded(tmp_path: Path) -> None:
    source = OpensOfRun(EVENTS)
    _, size, dropped = write(source, tmp_path / "run.kgr", rows=False)
    assert EVENTS < size < 100 * EVENTS
    assert dropped == 0
    _, with_rows, dropped = write(source, tmp_path / "run.kgr")
    assert abs(with_rows - size) < size / 2
    assert dropped == 0
    assert write(source, None)[1] == 0
