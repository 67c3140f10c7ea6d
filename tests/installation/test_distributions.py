"""A wheel and a source distribution, built in isolation from a clean tree, equal each time, and installed with their
dependencies in Debian 12 and 13 by a user who is not root."""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.gadget_run import PROJECT
from tests.installation.clean import (
    HOME,
    IMPORT_ALL,
    KINDS,
    PROGRAMS,
    SUITES,
    DebianRoot,
    differences,
    distributions,
)

# A build takes 90 seconds of CPU time, and much longer beside others.
pytestmark = [pytest.mark.network, pytest.mark.compiled, pytest.mark.timeout(2400)]


def members(archive: Path) -> dict[str, object]:
    """Everything that each member of a distribution consists of, by name."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {one.filename: (one.date_time, one.external_attr, wheel.read(one)) for one in wheel.infolist()}
    found: dict[str, object] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            found[member.name] = (member.mtime, member.mode, member.uid, member.uname, file.read() if file else b"")
    return found


def test_two_builds_of_the_same_sources_are_equal_byte_for_byte(tmp_path: Path) -> None:
    """One in this tree, where everything was compiled at some time before, and one in a clean tree at another place,
    whose wheel was built from the source distribution."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)]
    subprocess.run(command, cwd=PROJECT, capture_output=True, check=True)
    built = distributions()
    for other in (built.sdist, built.wheel):
        here = tmp_path / other.name
        assert differences(members(here), members(other)) == []
        assert hashlib.sha256(here.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_where_only_debians_python_is_installed(installed: DebianRoot, kind: str) -> None:
    program = f"{PROGRAMS[kind]}/kubectl-gadget"
    assert installed.run("id", "-u") != "0\n"
    assert "Usage" in installed.run(program, "--help")
    assert "trace open" in installed.run(program, "list")
    assert "Usage" in installed.run(program, "trace", "open", "--help")
    version = installed.run(program, "version", "--client")
    assert f"Python {SUITES[installed.suite]}." in version
    assert "trace\t" in installed.run(f"{PROGRAMS[kind]}/kubectl_complete-gadget", "tr")


def test_its_dependencies_are_complete_and_every_module_can_be_imported(installed: DebianRoot) -> None:
    python = f"{HOME}/wheel/bin/python"
    installed.run(python, "-m", "pip", "check")
    installed.run(python, "-c", IMPORT_ALL)
