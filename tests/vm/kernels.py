"""Other kernels for the virtual machine: Debian's cloud kernels from its other suites, oldest first.

They are downloaded like that of this machine's own suite (machine.py), with separate package lists. Older ones have
virtiofs as a module, so they boot an initramfs that loads it and then switches to the root.
"""

import lzma
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.vm import machine
from tests.vm.machine import CACHE, Kernel, NoMachineError

SUITES = ("bullseye", "bookworm", "trixie", "trixie-backports")
_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "fuse", "virtiofs")
_SOURCE = """Types: deb
URIs: http://deb.debian.org/debian
Suites: {suite}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp
"""
_INIT = """#!/bin/busybox sh
for module in {modules}; do /bin/busybox insmod /$module.ko; done
/bin/busybox mount -t virtiofs -o ro host /root
exec /bin/busybox switch_root /root {init} "$@"
"""


def kernel(suite: str) -> Kernel:
    """The kernel of a suite, downloaded once. Raises NoMachineError if it is not available."""
    if suite == "trixie":
        return Kernel(machine.kernel())
    folder = CACHE / suite
    try:
        if not list(folder.rglob("vmlinuz*")):
            _download(suite, folder)
        image = next(folder.rglob("vmlinuz*"))
        # /boot/vmlinuz-RELEASE, or /usr/lib/modules/RELEASE/vmlinuz.
        release = image.name.removeprefix("vmlinuz").lstrip("-") or image.parent.name
        return Kernel(image, _initramfs(folder, release))
    except (subprocess.CalledProcessError, OSError, StopIteration) as error:
        raise NoMachineError(f"the kernel of {suite} cannot be had: {getattr(error, 'stderr', error)}") from error


def _download(suite: str, folder: Path) -> None:
    apt = folder / "apt"
    for name in ("parts", "lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "parts" / "suite.sources").write_text(_SOURCE.format(suite=suite))
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": apt / "parts",
        "Dir::State::lists": apt / "lists",
        "Dir::Cache": apt / "cache",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    machine.output("apt-get", *options, "-q", "update")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for package in _packages(options, machine.KERNEL):
            machine.output("apt-get", *options, "download", package, cwd=name)
        for deb in Path(name).glob("*.deb"):
            machine.output("dpkg", "-x", str(deb), str(folder / "root"), cwd=name)


def _packages(options: list[str], package: str) -> list[str]:
    """The packages with the kernel and its modules: the dependencies of the package without a version."""
    found = [package]
    for known in found:
        for line in machine.output("apt-cache", *options, "depends", known).splitlines():
            kind, _, other = line.strip().partition(": ")
            if kind == "Depends" and other.startswith("linux-") and other[-6:] == "-amd64" and other not in found:
                found.append(other)
    return found[1:]


def _initramfs(folder: Path, release: str) -> Path | None:
    """The initramfs; None: the kernel needs none."""
    modules = {path.name.partition(".")[0]: path for path in folder.rglob("*.ko*") if release in path.parts}
    if "virtiofs" not in modules:
        return None
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        for directory in ("bin", "root"):
            (root / directory).mkdir()
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        wanted = [module for module in _MODULES if module in modules]
        for module in wanted:
            data = modules[module].read_bytes()
            data = lzma.decompress(data) if modules[module].suffix == ".xz" else data
            (root / f"{module}.ko").write_bytes(data)
        init = root / "init"
        init.write_text(_INIT.format(modules=" ".join(wanted), init=machine.INIT))
        init.chmod(0o755)
        return machine.pack(root, folder / "initramfs")
