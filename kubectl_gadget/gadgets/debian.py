"""Extracts libbpf and its dependencies from Debian's packages, for any architecture, with mmdebstrap and without root.

The trap: when mmdebstrap cannot write its whole archive, it sends SIGHUP to its process group, which may be that of
make and all tests.
"""

import io
import json
import os
import re
import signal
import subprocess
import tarfile
from pathlib import Path

from kubectl_gadget.errors import GadgetError

SUITE = "trixie"
PACKAGES = {
    "libz.so.1": "zlib1g",
    "libelf.so.1": "libelf1t64",
    "libbpf.so.1": "libbpf1",
}
"""Libraries in the order in which they are loaded: each needs only earlier ones, and libzstd (zstd_stub.py)."""
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
_VERSIONS = "versions"
_HOOK = (
    'for deb in "$1"/var/cache/apt/archives/*.deb; do '
    f'dpkg-deb -W --showformat=\'${{Package}} ${{Version}}\\n\' "$deb" >>"$1"/{_VERSIONS}; done'
)
_SECONDS = 600


def fetch(machine: str, folder: Path) -> None:
    """Writes the libraries, their packages' licences, and libraries.json with their versions into `folder`, which must
    not exist. Raises GadgetError."""
    members = _members(_archive(machine))
    versions = dict(line.split() for line in members[_VERSIONS].decode().splitlines())
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    libraries = []
    for soname, package in PACKAGES.items():
        path = next((name for name in members if re.search(rf"/{re.escape(soname)}$", name)), None)
        licence = members.get(f"usr/share/doc/{package}/copyright")
        if path is None or licence is None:
            raise GadgetError(f"Debian's {package} for {machine} has no {soname}, or no licence")
        (temporary / soname).write_bytes(members[path])
        (temporary / f"{package}.copyright").write_bytes(licence)
        libraries.append({"soname": soname, "package": package, "version": versions[package]})
    (temporary / "libraries.json").write_text(json.dumps(libraries, indent=1) + "\n")
    try:
        temporary.rename(folder)
    except OSError:  # another build has created it in the meantime
        if not folder.is_dir():
            raise


def _archive(machine: str) -> bytes:
    packages = ",".join(PACKAGES.values())
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={_DEBIAN[machine]}"]
    command += [f"--extract-hook={_HOOK}", f"--include={packages}", SUITE, "-"]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        ) as process:
            try:
                found, said = process.communicate(timeout=_SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGINT)
                raise
    except FileNotFoundError:
        raise GadgetError(
            "mmdebstrap, which takes libbpf from Debian, is not installed", "apt-get install mmdebstrap"
        ) from None
    except subprocess.TimeoutExpired:
        raise GadgetError(f"mmdebstrap did not finish within {_SECONDS} s") from None
    if process.returncode:
        last = (said.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        raise GadgetError(f"cannot get libbpf for {machine} from Debian: {last}", "check the network")
    return found


def _members(archive: bytes) -> dict[str, bytes]:
    """Files by path; links are included under their own names."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            name = member.name.removeprefix("./")
            if member.isfile() or (member.issym() and ".so" in name):
                try:
                    file = tar.extractfile(member)
                except KeyError:
                    continue  # a link to a missing file
                if file is not None:
                    found[name] = file.read()
    return found
