"""The self-contained program as an archive: `python3 release/binary_archive.py WHEEL [--output FOLDER]`.

It is made for the platform that runs this: Linux, macOS or Windows, with Python 3.11 or newer. On Linux, the program
needs the C library of the system that built it or a newer one, so `make release` builds it in Debian 12. Debian 12's
Python runs this, so it imports the standard library only; and krew refuses archives with symbolic links.
"""

import argparse
import gzip
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
TOOLS = (
    "altgraph",
    "macholib",
    "packaging",
    "pefile",
    "pyinstaller",
    "pyinstaller-hooks-contrib",
    "pywin32-ctypes",
    "setuptools",
)
_INPUTS = ("LICENSE", "bpf/LICENSE", "requirements.txt", "requirements-dev.txt", "release")
_ROOT_PACKAGES = "python3-venv,libpython3.11,binutils,ca-certificates"
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_SYSTEMS = {"win32": "windows"}
_MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "ARM64": "arm64"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="release/binary_archive.py", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, default=PROJECT / "dist")
    arguments = parser.parse_args()
    version = arguments.wheel.name.split("-")[1]
    folder = program_folder(arguments.wheel.resolve())
    run(str(folder / "kubectl-gadget"), "version", "--client")
    arguments.output.mkdir(parents=True, exist_ok=True)
    date = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    (arguments.output / binary_name(version, platform_name())).write_bytes(packed(folder, date))


def platform_name() -> str:
    """This platform, in the words of krew: linux-amd64, darwin-arm64."""
    machine = platform.machine()
    return f"{_SYSTEMS.get(sys.platform, sys.platform)}-{_MACHINES.get(machine, machine)}"


def binary_name(version: str, platform: str) -> str:
    """The archive's name, such as kubectl-gadget-0.1.0-linux-amd64.tar.gz."""
    return f"kubectl-gadget-{version}-{platform}.tar.gz"


def pinned(requirements: str, names: Iterable[str]) -> str:
    """The entries of `names` in a lock file, with their hashes."""
    entries = re.split(r"\n(?=\S)", requirements)
    return "\n".join(entry for name in names for entry in entries if entry.startswith(f"{name}==")) + "\n"


def program_folder(wheel: Path) -> Path:
    """A folder with the program, Python and all packages. Not one file: that would be unpacked at each start."""
    work = PROJECT / "build" / "binary"
    shutil.rmtree(work, ignore_errors=True)
    run(sys.executable, "-m", "venv", str(work / "venv"))
    python = str(work / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    tools = work / "requirements.txt"
    tools.write_text(pinned((PROJECT / "requirements-dev.txt").read_text("utf-8"), TOOLS), "utf-8")
    run(*pip, "--require-hashes", "-r", str(PROJECT / "requirements.txt"), "-r", str(tools))
    run(*pip, "--no-deps", str(wheel))
    os.environ["PYTHONHASHSEED"] = "1"
    options = (
        "--noconfirm",
        "--log-level=ERROR",
        "--name=kubectl-gadget",
        f"--specpath={work}",
        f"--workpath={work}/parts",
    )
    package = ("--collect-data=kubectl_gadget", "--collect-submodules=kubectl_gadget")
    entry = str(PROJECT / "release" / "binary.py")
    run(python, "-m", "PyInstaller", *options, *package, f"--distpath={work}/made", entry)
    folder = work / "made" / "kubectl-gadget"
    for name in ("LICENSE", "bpf/LICENSE"):
        shutil.copy(PROJECT / name, folder / name.replace("/", "-"))
    return folder


def packed(folder: Path, date: int) -> bytes:
    """The folder as an archive without links, the same bytes each time."""

    def fixed(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.mtime, info.uid, info.gid, info.uname, info.gname = date, 0, 0, "", ""
        return info

    archive = io.BytesIO()
    with tempfile.TemporaryDirectory() as name, tarfile.open(fileobj=archive, mode="w") as tar:
        copy = shutil.copytree(folder, Path(name) / folder.name)  # follows links
        for path in sorted(copy.rglob("*")):
            tar.add(path, path.relative_to(name).as_posix(), recursive=False, filter=fixed)
    return gzip.compress(archive.getvalue(), 9, mtime=0)


def on_debian_12(wheel: Path, output: Path) -> None:
    """Runs this file in a root of Debian 12, whose C library (2.36) is older than that of the machine for releases."""
    inputs = PROJECT / "build" / "binary-inputs"
    shutil.rmtree(inputs, ignore_errors=True)
    for name in _INPUTS:
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, inputs / name)
    shutil.copy(wheel, inputs)
    command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={_ROOT_PACKAGES}"]
    if Path(_AUTHORITIES).exists():  # pip in the root trusts what this machine trusts
        command.append(f"--customize-hook=upload {_AUTHORITIES} {_AUTHORITIES}")
    program = f"python3 /source/release/binary_archive.py /source/{wheel.name} --output /source/made"
    hooks = (f"sync-in '{inputs}' /source", f'chroot "$1" {program}', f"sync-out /source/made '{output}'")
    made = (f"--customize-hook={hook}" for hook in ('mkdir "$1/source"', *hooks))
    run(*command, *made, "bookworm", "/dev/null")


def run(*command: str) -> None:
    """Runs a step of the build. Raises SystemExit if it fails."""
    done = subprocess.run(command, cwd=PROJECT, check=False, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"release: {' '.join(command)} failed with exit code {done.returncode}")


if __name__ == "__main__":
    main()
