"""This version and an earlier one, each installed from its wheel as users have it, to be measured in turns.

A version's own bench modules need its source tree, and packages that a wheel does not bring. So they run in that tree
with the Python of this benchmark (`module`), and only the command line runs from the wheel (`command`).
"""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
NOW = "now"
_CACHE = HERE / "build" / "bench"


@dataclass(frozen=True)
class Version:
    """A source tree with its compiled programs, and an environment in which its wheel is installed."""

    name: str
    tree: Path
    folder: Path
    """of its wheel and its environment"""

    def command(self, *words: str, program: str = "kubectl-gadget") -> list[str]:
        """Its command line, from the wheel."""
        return [str(self.folder / "venv" / "bin" / program), *words]

    def environment(self) -> dict[str, str]:
        """In which its own bench and test modules are imported."""
        return {**os.environ, "PYTHONPATH": str(self.tree)}

    def module(self, *words: str) -> None:
        """Runs a module of its tree. Raises CalledProcessError."""
        command = [sys.executable, "-m", *words]
        subprocess.run(command, cwd=self.tree, env=self.environment(), check=True, capture_output=True, text=True)

    def installed(self) -> dict[str, float]:
        """Megabytes of the installed packages, bytecode included, and their number, without pip; and of the wheel."""
        (packages,) = self.folder.glob("venv/lib/python*/site-packages")
        files = [
            file
            for file in packages.rglob("*")
            if file.is_file() and not file.relative_to(packages).parts[0].startswith("pip")
        ]
        return {
            "install": sum(file.stat().st_size for file in files) / 1e6,
            "packages": float(len([*packages.glob("*.dist-info")]) - len([*packages.glob("pip-*.dist-info")])),
            "wheel": next(self.folder.glob("*.whl")).stat().st_size / 1e6,
        }


def this_version() -> Version:
    """The version in this tree. Its wheel is always built anew."""
    folder = _CACHE / NOW
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    return _install(Version(NOW, HERE, folder))


def earlier_version(commit: str) -> Version:
    """The version of a commit, in build/bench/COMMIT; built once, which compiles for minutes."""
    name = _run("git", "rev-parse", "--short=7", f"{commit}^{{commit}}", cwd=HERE)
    version = Version(name, _CACHE / name / "tree", _CACHE / name)
    if not version.tree.is_dir():
        print(f"building {name}, once …", file=sys.stderr)
        _run("git", "worktree", "add", "--force", "--detach", str(version.tree), commit, cwd=HERE)
    return _install(version)


def _install(version: Version) -> Version:
    if not [*version.folder.glob("*.whl")]:
        build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(version.folder))
        _run(*build, cwd=version.tree, environment=version.environment())
    (wheel,) = version.folder.glob("*.whl")
    venv, stamp = version.folder / "venv", version.folder / "requirements"
    required = _requirements(wheel)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
    if not stamp.exists() or stamp.read_text() != required:
        shutil.rmtree(venv, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(venv), cwd=version.tree)
        _run(*pip, cwd=version.tree)
        stamp.write_text(required)
    elif version.name == NOW:
        _run(*pip, "--no-deps", "--force-reinstall", cwd=version.tree)
    return version


def _requirements(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    return "\n".join(line for line in lines if line.startswith("Requires-Dist"))


def _run(*words: str, cwd: Path, environment: dict[str, str] | None = None) -> str:
    run = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{' '.join(words)} failed in {cwd}:\n{run.stderr or run.stdout}")
    return run.stdout.strip()


def commit_here() -> str:
    """The commit of this tree, and whether files differ from it."""
    changed = _run("git", "status", "--porcelain", "--untracked-files=no", cwd=HERE)
    return _run("git", "rev-parse", "--short=8", "HEAD", cwd=HERE) + (" with changes" if changed else "")
