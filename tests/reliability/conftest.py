"""The programs that tests of reliability run."""

import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def numbered_opens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """programs/numbered_opens.c, compiled."""
    target = tmp_path_factory.mktemp("programs") / "numbered_opens"
    command = ["gcc", "-O2", "-static", "-pthread", str(PROGRAMS / "numbered_opens.c"), "-o", str(target)]
    subprocess.run(command, check=True)
    return target
