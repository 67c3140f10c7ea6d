"""All tests here load real programs, of the catalogue as the sources are now."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _built(catalogue_built: Path) -> None:
    """The tracer reads the compiled catalogue."""
