"""Recorded runs of the workloads, made once for all tests here."""

import uuid
from pathlib import Path

import pytest

from kubectl_gadget.behavior.facts import Behavior
from tests.behavior.scenarios.image import NoImageError, image
from tests.behavior.scenarios.recording import behavior_of, record_changes, record_workloads
from tests.conftest import why_no_containers


@pytest.fixture(scope="session")
def namespace() -> str:
    """Other runs of these tests may be active on this machine."""
    if reason := why_no_containers():
        pytest.skip(reason)
    try:
        image()
    except NoImageError as error:
        pytest.skip(str(error))
    return f"shop-{uuid.uuid4().hex[:6]}"


@pytest.fixture(scope="session")
def recordings(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All workloads, twice."""
    first, second = (record_workloads(tmp_path_factory.mktemp("run"), namespace) for _ in range(2))
    return first, second


@pytest.fixture(scope="session")
def runs(recordings: tuple[Path, Path]) -> tuple[Behavior, Behavior]:
    return behavior_of(recordings[0]), behavior_of(recordings[1])


@pytest.fixture(scope="session")
def changed(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Behavior:
    """All changed workloads, each under the name of its change."""
    return behavior_of(record_changes(tmp_path_factory.mktemp("changes"), namespace))
