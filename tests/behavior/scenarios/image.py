"""The root file system of the programs in these scenarios: Debian's packages, unpacked once below build/.

apt resolves what the programs depend on, as if nothing were installed, so the result does not depend on this machine's
packages. Nothing is configured: no maintainer script runs, so it takes seconds and cannot touch the machine. A package
that is left out is missing at run time only, so LEFT_OUT has what the programs here were seen to do without.
"""

import fcntl
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.gadget_run import PROJECT

CACHE = PROJECT / "build" / "scenarios"
PROGRAMS = (
    *("base-files", "base-passwd", "dash", "coreutils", "libc-bin", "util-linux"),
    *("nginx", "redis-server", "postgresql-17", "gunicorn", "python3-flask", "python3-redis", "nodejs"),
    *("curl", "dpkg"),
)
MORE_PROGRAMS = (
    *("apache2-bin", "haproxy", "memcached", "mariadb-server-core", "mariadb-client-core", "dnsmasq-base"),
    *("etcd-server", "etcd-client", "exim4-daemon-light", "sed"),
)
"""of the scenarios that are only run by hand"""
LEFT_OUT = re.compile(
    r"libllvm\d+|libz3-.*|perl.*|libperl.*|lib.*-perl|locales|libc-l10n|openssl|postgresql-(client-)?common.*"
    r"|iproute2|procps|passwd|login.*|adduser|debconf|ucf|node-corepack|readline-common|sysvinit-utils|libpam-.*"
    r"|ssl-cert|sensible-utils|libsemanage.*|libsepol.*|libgdbm.*|.*-config|.*-doc"
)
"""for compiling queries, for maintainer scripts, and what only tools of the shell need: a third of the bytes"""
_USELESS = (
    *(f"usr/share/{name}" for name in ("doc", "man", "locale", "info", "lintian", "bash-completion")),
    *("usr/lib/postgresql/*/lib/bitcode", "usr/lib/*/gconv"),
)
_USERS = {
    **{"postgres": 101, "redis": 102, "nginx": 103, "app": 1000},
    **{"www-data": 33, "haproxy": 104, "mysql": 105, "Debian-exim": 106, "mail": 8, "nobody": 65534},
}
_PACKAGES = "packages"
_LINE = re.compile(r"^Inst (\S+)", re.MULTILINE)


class NoImageError(Exception):
    """The packages are not available here; the message says why."""


def image(more: bool = False) -> Path:
    """The folder of the root file system, made if it is missing; `more`: the one that has MORE_PROGRAMS, too. Raises
    NoImageError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name = "more" if more else "root"
    root = CACHE / name
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = CACHE / f"{name}-stamp"
        wanted = Path(__file__).read_text()
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            _make(root, (*PROGRAMS, *(MORE_PROGRAMS if more else ())))
            stamp.write_text(wanted)
    return root


def versions(root: Path) -> dict[str, str]:
    """The packages that were unpacked, with their versions."""
    names = (line.split("_") for line in (root / _PACKAGES).read_text().splitlines())
    return {name: f"{name} {version.replace('%3a', ':')}" for name, version, _ in names}


def _make(root: Path, programs: Sequence[str]) -> None:
    if not shutil.which("apt-get"):
        raise NoImageError("the programs come from Debian's packages, and there is no apt-get here")
    with tempfile.TemporaryDirectory(dir=CACHE) as text:
        folder = Path(text)
        (folder / "status").touch()
        (folder / "packages").mkdir()
        try:
            packages = _packages(folder, programs)
            _apt(folder, "download", *packages)
        except subprocess.CalledProcessError:  # the lists are missing, or older than the archive
            try:
                subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True, text=True)
                packages = _packages(folder, programs)
                _apt(folder, "download", *packages)
            except subprocess.CalledProcessError as error:
                raise NoImageError(f"{' '.join(error.cmd[:2])}: {error.stderr.strip()[-500:]}") from error
        root.mkdir()
        (root / _PACKAGES).write_text("".join(f"{path.stem}\n" for path in sorted((folder / "packages").glob("*.deb"))))
        # base-files has the links /bin → usr/bin and so on, which must exist before the rest.
        found = sorted((folder / "packages").glob("*.deb"), key=lambda path: not path.name.startswith("base-files"))
        for package in found:
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    _finish(root)


def _packages(folder: Path, programs: Sequence[str]) -> list[str]:
    """The programs and what they depend on."""
    shown = _apt(folder, "install", "--simulate", "--no-install-recommends", *programs)
    return [name for name in _LINE.findall(shown) if not LEFT_OUT.fullmatch(name)]


def _apt(folder: Path, *words: str) -> str:
    own = [f"Dir::State::status={folder}/status", "Dir::Etc::preferences=/dev/null"]
    own += ["Dir::Etc::preferencesparts=/dev/null", "APT::Sandbox::User=root"]
    command = ["apt-get", "-q", *(f"-o{option}" for option in own), *words]
    return subprocess.run(command, cwd=folder / "packages", check=True, capture_output=True, text=True).stdout


def _finish(root: Path) -> None:
    """What maintainer scripts would do, and what an image of a registry has left out, too."""
    for pattern in _USELESS:
        for path in root.glob(pattern):
            shutil.rmtree(path)
    for name in ("dev", "proc", "sys", "tmp", "root", "run", "home/app", "var/lib/redis", "data"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, uid in (("var/lib/redis", 102), ("home/app", 1000)):
        shutil.chown(root / name, uid, uid)
    users = "".join(f"{name}:x:{uid}:{uid}:{name}:/home/{name}:/bin/sh\n" for name, uid in _USERS.items())
    groups = "".join(f"{name}:x:{uid}:\n" for name, uid in _USERS.items())
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/sh\n{users}")
    (root / "etc/group").write_text(f"root:x:0:\n{groups}")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    subprocess.run(["ldconfig", "-r", str(root)], check=True)
    # The paths in the bytecode are those of the container, and its Python may be another one than ours.
    subprocess.run(["chroot", str(root), "python3", "-m", "compileall", "-q", "/usr/lib/python3"], check=True)
    subprocess.run(["chroot", str(root), "sh", "-c", "python3 -m compileall -q /usr/lib/python3.*"], check=True)
