"""Distributions that are built from a clean tree, and Debian roots in which they are installed.

Whatever takes long is kept in build/installation, by content, so a second run of the tests takes seconds. Several
processes run tests at once, so everything here is made under one lock.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.gadget_run import PROJECT

CACHE = PROJECT / "build" / "installation"
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
"""Debian's suites, and the Python that each has; 3.11 is the oldest that we support."""
KINDS = ("wheel", "sdist")
PACKAGES = ("ca-certificates", "pipx", "python3-venv")
USER = 1000
HOME = "/home/user"
AUTHORITIES = Path("etc/ssl/certs/ca-certificates.crt")
_OF_THE_SDIST = (
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "bpf",
    "gadgets",
    "hatch_build.py",
    "kubectl_gadget",
    "manifests",
)
_OF_PIP = ("index-url", "extra-index-url", "proxy", "trusted-host", "default-timeout", "retries")
_OF_THE_NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_NO_NETWORK = re.compile(
    r"NewConnectionError|Name or service not known|Temporary failure (?:in name resolution|resolving)|ReadTimeout"
)
_MOUNTS = """
root=$1; pip=$2; user=$3; shift 3
mount -t proc proc "$root/proc"
for folder in dev sys; do mount --rbind "/$folder" "$root/$folder"; done
mount --bind "$pip" "$root/var/cache/pip"
exec chroot --userspec="$user:$user" "$root" "$@"
"""
_INSTALL = {
    # README's own words, where the source is unpacked.
    "sdist": "cd $HOME/source && pipx install .",
    "wheel": "python3 -m venv $HOME/wheel && $HOME/wheel/bin/pip install --quiet /distributions/*.whl",
}
PROGRAMS = {"sdist": f"{HOME}/.local/bin", "wheel": f"{HOME}/wheel/bin"}
"""Where the programs of each are after that."""

IMPORT_ALL = """
import importlib, pkgutil, kubectl_gadget
from kubectl_gadget.errors import UsageError
for module in pkgutil.walk_packages(kubectl_gadget.__path__, "kubectl_gadget."):
    if not module.name.endswith(("__main__", "pod.bootstrap", "pod.unpacking")):  # programs
        try:
            importlib.import_module(module.name)
        except UsageError as error:  # it needs an extra
            assert module.name.startswith("kubectl_gadget.analysis."), module.name
            assert "kubectl-gadget[query]" in (error.remedy or ""), error.remedy
        except ModuleNotFoundError as error:  # export/run.py asks for the extra before it imports these
            assert module.name.startswith("kubectl_gadget.export."), module.name
            assert error.name.partition(".")[0] in ("google", "opentelemetry", "prometheus_client"), error.name
from kubectl_gadget.rows.stacks import demangle
assert demangle("_ZN3foo3barIiEEvT_") == "void foo::bar<int>(int)", demangle("_ZN3foo3barIiEEvT_")
assert demangle("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE") == "core::fmt::Formatter::pad"
assert demangle("_RNvCs1234_7mycrate3foo") == "mycrate::foo"
"""


@dataclass(frozen=True)
class Distributions:
    """What was built."""

    wheel: Path
    sdist: Path


def run(*command: str | Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Returns the output. Fails the test with what the command said, or skips it if the network is missing."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        if _NO_NETWORK.search(done.stderr):
            pytest.skip("no package registry can be reached")
        raise AssertionError(f"{command}: {done.returncode}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


@contextmanager
def locked() -> Iterator[None]:
    """Lets one process at a time make something here."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def files() -> list[str]:
    """The files that a clone of this tree would have, with those that git does not know yet and does not ignore."""
    found = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=PROJECT).split("\0")
    return sorted(name for name in found if name and (PROJECT / name).is_file())


def copy_clean(folder: Path) -> None:
    """Copies them: nothing that a build has made is among them."""
    for name in files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, target)


def pins() -> str:
    """The versions of requirements-dev.txt as constraints: two builds with other tools may differ."""
    text = (PROJECT / "requirements-dev.txt").read_text()
    return "".join(f"{line}\n" for line in re.findall(r"^([a-z0-9].*?) \\$", text, re.MULTILINE))


def distributions() -> Distributions:
    """Builds both in isolation, as pip does: the source distribution from a clean tree, the wheel from that one."""
    wanted = hashlib.sha256(pins().encode())
    for name in files():
        if name.startswith(_OF_THE_SDIST):
            wanted.update(name.encode() + b"\0" + (PROJECT / name).read_bytes() + b"\0")
    folder = CACHE / f"built-{wanted.hexdigest()[:20]}"
    with locked():
        if not folder.is_dir():
            for old in CACHE.glob("built-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory() as name:
                _build(Path(name), folder)
        return Distributions(next(folder.glob("*.whl")), next(folder.glob("*.tar.gz")))


def _build(work: Path, folder: Path) -> None:
    """Also with another umask, time zone and language than usual."""
    tree, built = work / "a folder with a longer name than usual", work / "built"
    copy_clean(tree)
    (work / "constraints.txt").write_text(pins())
    more = {"PIP_CONSTRAINT": str(work / "constraints.txt"), "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = ("sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "build", "--outdir", built, tree)
    run(*command, environment=environment | more)
    shutil.copytree(built, folder.with_suffix(".new"))
    folder.with_suffix(".new").rename(folder)


class DebianRoot:
    """A root of Debian with nothing but Python, in which both distributions are installed by a user who is not root."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.path = CACHE / suite

    def command(self, *words: str, user: int = USER, environment: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs words in it, with this machine's network, /dev and /sys."""
        given = {"HOME": HOME, "PATH": f"{HOME}/.local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8", **pip_settings()}
        words = ("env", "-i", *(f"{name}={value}" for name, value in (given | dict(environment or {})).items()), *words)
        mounts = ("unshare", "--mount", "sh", "-ec", _MOUNTS, "sh", str(self.path), str(CACHE / "pip"), str(user))
        return [*mounts, *words]

    def run(self, *words: str, user: int = USER) -> str:
        """Returns the output. Fails the test if it fails."""
        return run(*self.command(*words, user=user))

    def make(self, built: Distributions) -> None:
        """Installs both, unless they are. Skips the test where no root can be made."""
        if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
            pytest.skip("a root of Debian needs root and mmdebstrap here")
        with locked():
            mark = self.path / "installed"
            if not mark.is_file() or mark.read_text() != built.wheel.parent.name:
                shutil.rmtree(self.path, ignore_errors=True)
                self._unpack(built)
                for kind in KINDS:
                    self.run("sh", "-c", _INSTALL[kind])
                mark.write_text(built.wheel.parent.name)

    def _unpack(self, built: Distributions) -> None:
        archive = CACHE / f"{self.suite}.tar"
        if not archive.is_file():
            options = ("--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}")
            made = archive.with_suffix(".new.tar")
            run("mmdebstrap", *options, self.suite, made)
            made.rename(archive)
        self.path.mkdir()
        run("tar", "xf", archive, "-C", self.path)
        for name in (AUTHORITIES, Path("etc/resolv.conf"), Path("etc/hosts")):
            if (Path("/") / name).is_file():
                (self.path / name).unlink(missing_ok=True)
                shutil.copy(Path("/") / name, self.path / name)
        shutil.copytree(built.wheel.parent, self.path / "distributions")
        home = self.path / HOME[1:]
        home.mkdir(parents=True)
        run("tar", "xzf", built.sdist, "-C", home)
        (home / built.sdist.name.removesuffix(".tar.gz")).rename(home / "source")
        for folder in (CACHE / "pip", self.path / "var/cache/pip"):
            folder.mkdir(exist_ok=True)
        run("chmod", "-R", "a+rX", self.path / "distributions")
        run("chown", "-R", f"{USER}:{USER}", home, CACHE / "pip")
        with (self.path / "etc/passwd").open("a") as users:
            users.write(f"user:x:{USER}:{USER}::{HOME}:/bin/sh\n")


@cache
def pip_settings() -> dict[str, str]:
    """How pip reaches its registry: as this machine's pip does, with the authorities that this machine trusts."""
    told = run(sys.executable, "-m", "pip", "config", "list")
    found = dict(re.findall(r"^(?:global|install|:env:)\.(\S+?)='(.*)'$", told, re.MULTILINE))
    settings = {f"PIP_{name.upper().replace('-', '_')}": found[name] for name in _OF_PIP if name in found}
    settings |= {name: os.environ[name] for name in _OF_THE_NETWORK if name in os.environ}
    if (Path("/") / AUTHORITIES).is_file():
        settings["PIP_CERT"] = f"/{AUTHORITIES}"
    return settings | {"PIP_CACHE_DIR": "/var/cache/pip", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def differences(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    """Names of what is in one only, or differs."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
