"""All tests here load real programs, of the catalogue as the sources are now."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.tracer import close_kept


@pytest.fixture(autouse=True)
def _built(catalogue_built: Path) -> None:
    """The tracer reads the compiled catalogue."""


@pytest.fixture(scope="module", autouse=True)
def _kept_tracers() -> Iterator[None]:
    yield
    close_kept()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike those of tmp_path."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)
