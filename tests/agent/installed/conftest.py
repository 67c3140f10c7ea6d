"""The process that keeps installed policies in force, for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.guards import RunningGuard, guard


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningGuard]:
    with guard(tmp_path) as found:
        yield found
