"""An arm64 machine: Debian's arm64 kernel, with a root unpacked from Debian's arm64 packages and PyPI's wheels.

    CACHE/arm64/root         packages, and this project's dependencies for Debian's Python
    CACHE/arm64/initramfs    mounts them as the root, and the project at the path that it has here

Nothing foreign runs before it boots: packages are extracted, not installed. So no package has run its scripts, and what
they would have made is missing (users, alternatives), or made below.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.vm import machine
from tests.vm.machine import CACHE, PROJECT, Kernel, NoMachineError, one_downloads

FOLDER = CACHE / "arm64"
ARCHITECTURE = "aarch64"
_SUITE = "trixie"
_PACKAGES = (
    *(
        "linux-image-cloud-arm64",
        "base-files",
        "bash",
        "busybox-static",
        "coreutils",
        "dash",
        "gcc",
        "grep",
        "iproute2",
    ),
    *(
        "libbpf1",
        "libc-bin",
        "libc6-dev",
        "libpcap0.8t64",
        "libssl3t64",
        "mount",
        "openssl",
        "procps",
        "python3",
        "sed",
    ),
    *("util-linux", "runc"),
)
_PYTHON = "/usr/bin/python3"
_SITE = "usr/local/lib/python3.13/dist-packages"
_PLATFORMS = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 42)))
"""Up to Debian 13's glibc."""
_INIT = """#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t virtiofs -o ro host /host
$bb mount -t tmpfs tmpfs /root
for folder in dev mnt proc run sys tmp var/tmp root; do $bb mkdir -p /root/$folder; done
for folder in bin sbin lib; do $bb ln -s usr/$folder /root/$folder; done
for folder in usr etc; do $bb mkdir /root/$folder; $bb mount --bind /host{root}/$folder /root/$folder; done
for folder in {project} {cache}; do $bb mkdir -p /root$folder; $bb mount --bind /host$folder /root$folder; done
$bb ln -s {project} /root/project
exec $bb switch_root /root {init} "$@"
"""


def kernel() -> Kernel:
    """The arm64 kernel with its root, downloaded once. Raises NoMachineError if it is not available."""
    root = FOLDER / "root"
    with one_downloads():
        if not root.is_dir():
            _download(root)
    try:
        image = next((root / "boot").glob("vmlinuz-*"))
        return Kernel(image, _initramfs(root), ARCHITECTURE, _PYTHON)
    except (subprocess.CalledProcessError, OSError, StopIteration) as error:
        raise NoMachineError(f"the arm64 machine cannot be had: {getattr(error, 'stderr', error)}") from error


def _download(root: Path) -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        made = Path(name) / "root"
        packages = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64"]
        wheels = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        wheels += ["--only-binary=:all:", "--implementation=cp", "--python-version=3.13", "--require-hashes"]
        wheels += [f"--platform={platform}_{ARCHITECTURE}" for platform in _PLATFORMS]
        try:
            machine.output(*packages, f"--include={','.join(_PACKAGES)}", _SUITE, str(made))
            machine.output(*wheels, f"--target={made / _SITE}", "-r", str(PROJECT / "requirements-dev.txt"))
            # Bytecode is the same for all architectures, and takes minutes to make there.
            compiled = [str(made / folder) for folder in ("usr/lib/python3.13", _SITE)]
            compiling = [sys.executable, "-m", "compileall", "-q", *compiled]
            subprocess.run(compiling, stdout=subprocess.DEVNULL, check=False)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            raise NoMachineError(f"the arm64 machine cannot be had: {getattr(error, 'stderr', error)}") from error
        (made / _SITE / "project.pth").write_text("/project\n")
        (made / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
        (made / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (made / "etc" / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        made.rename(root)


def _initramfs(root: Path) -> Path:
    """Made anew for each worktree that uses the same cache."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as name:
        content = Path(name)
        for directory in ("bin", "host", "root"):
            (content / directory).mkdir()
        shutil.copy(root / "usr" / "bin" / "busybox", content / "bin" / "busybox")
        init = content / "init"
        paths = {"root": root.resolve(), "project": PROJECT, "cache": CACHE.resolve(), "init": machine.INIT}
        init.write_text(_INIT.format(**paths))
        init.chmod(0o755)
        return machine.pack(content, PROJECT / "build" / "arm64-initramfs")
