"""The package as installed by pip on the supported Pythons that Debian 12 and 13 do not have, if this machine has them.

For every supported Python, each dependency must have a wheel.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.gadget_run import PROJECT
from tests.installation.clean import IMPORT_ALL, SUITES, distributions, run

METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
_CLASSIFIER = "Programming Language :: Python :: "
VERSIONS = [name.removeprefix(_CLASSIFIER) for name in METADATA["classifiers"] if name.startswith(_CLASSIFIER)]
_MAC = ((10, 9), (10, 12), (10, 13), (10, 15), (11, 0), (12, 0), (13, 0), (14, 0))
ELSEWHERE = {
    "Windows": ("win_amd64",),
    "macOS": tuple(f"macosx_{a}_{b}_{kind}" for a, b in _MAC for kind in ("arm64", "universal2")),
}
"""Platforms, and pip's names of them."""


def interpreters(version: str) -> Iterator[str]:
    """All interpreters of this version on PATH and in pyenv, whose own commands may fail to start."""
    for path in [shutil.which(f"python{version}", path="/usr/bin:/usr/local/bin"), shutil.which(f"python{version}")]:
        if path:
            yield path
    yield from map(str, sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")))


def interpreter(version: str) -> str | None:
    """An interpreter that can make a virtual environment."""
    question = "import ensurepip, venv"
    for path in interpreters(version):
        if not subprocess.run([path, "-c", question], capture_output=True, check=False).returncode:
            return path
    return None


def test_classifiers_list_every_version_of_requires_python() -> None:
    lowest = re.fullmatch(r">=3\.(\d+)", METADATA["requires-python"])
    assert lowest
    assert VERSIONS[0] == f"3.{lowest[1]}"
    assert [int(version.partition(".")[2]) for version in VERSIONS] == list(
        range(int(lowest[1]), int(lowest[1]) + len(VERSIONS))
    )


@pytest.mark.network
@pytest.mark.parametrize("version", VERSIONS)
def test_all_dependencies_have_wheels(version: str, tmp_path: Path) -> None:
    platforms = [f"--platform={name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
    options = ["--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", str(tmp_path)]
    run(
        sys.executable,
        *("-m", "pip", "install", *options, *platforms, f"--python-version={version}", "--implementation=cp"),
        *(line for line in METADATA["dependencies"] if is_for(version, line)),
    )


@pytest.mark.network
@pytest.mark.parametrize("platform", ELSEWHERE)
def test_all_dependencies_have_wheels_elsewhere(platform: str, tmp_path: Path) -> None:
    """In the fixed versions, so that nothing is searched for."""
    options = ["--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", str(tmp_path)]
    options += [f"--platform={name}" for name in ELSEWHERE[platform]]
    options += ["--no-deps", f"--python-version={sys.version_info[0]}.{sys.version_info[1]}", "--implementation=cp"]
    run(sys.executable, "-m", "pip", "install", *options, "-r", PROJECT / "requirements.txt")


def is_for(version: str, dependency: str) -> bool:
    """pip takes the marks of a dependency for this Python, not for --python-version."""
    marker = Requirement(dependency).marker
    return marker is None or marker.evaluate({"python_version": version})


@pytest.mark.network
@pytest.mark.compiled
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("version", [version for version in VERSIONS if version not in SUITES.values()])
def test_the_wheel_installs_and_runs(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version} that can make virtual environments")
    run(python, "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", distributions().wheel)
    run(programs / "python", "-m", "pip", "check")
    run(programs / "python", "-c", IMPORT_ALL, cwd=tmp_path)
    assert "trace open" in run(programs / "kubectl-gadget", "list")
    assert "Usage" in run(programs / "kubectl-gadget", "trace", "open", "--help")
    assert "trace\t" in run(programs / "kubectl_complete-gadget", "tr")


def test_every_import_of_another_package_is_declared() -> None:
    run(Path(sys.executable).parent / "deptry", "kubectl_gadget", cwd=PROJECT)
