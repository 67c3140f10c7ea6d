"""The lower layer of the agent's image: Python, libbpf and what these need, from Debian, without installing anything.

mmdebstrap's variant `extract` unpacks packages and runs none of their scripts, so this works for a foreign architecture too and
takes seconds. What the agent cannot use is left out. The trap: the agent's root is read-only, so Python could never
keep what it compiles; every module is compiled here, and the Python that compiles must be the image's.
"""

import fnmatch
import importlib.util
import marshal
import re
import subprocess
import sys
import tarfile
from importlib import _bootstrap_external  # type: ignore[attr-defined]  # the only maker of hash-based .pyc bytes
from pathlib import Path

from archive import Layer

PACKAGES = {
    "default": ["base-files", "python3-minimal", "libpython3-stdlib", "libbpf1"],
    "bcc": ["base-files", "python3-minimal", "libpython3-stdlib", "libbpf1", "python3-bpfcc", "bpfcc-tools"],
}
SUITE = "trixie"

# A read-only pod without network, shell or package manager: no tools, no documentation but licences, no time zones, no
# TLS, databases or terminals, none of the standard library's own tests and development tools.
LEFT_OUT = """
dev/* boot/* home/* media/* mnt/* opt/* root/* srv/* var/* tmp/*
etc/apt* etc/cron* etc/alternatives* etc/dpkg* etc/debconf.conf etc/skel* etc/profile* etc/logrotate* etc/update-motd* etc/rmt
etc/resolv.conf etc/hostname etc/fstab etc/default* usr/games* usr/include* usr/local/* usr/src*
usr/bin/deb* usr/bin/dpkg* usr/bin/mawk usr/bin/py3* usr/bin/tar usr/bin/update-alternatives usr/bin/wget
usr/bin/openssl usr/bin/c_rehash usr/sbin/dpkg* usr/sbin/rmt-tar usr/sbin/tarcat usr/sbin/start-stop-daemon
usr/lib/binfmt.d* usr/lib/mime* usr/lib/systemd* usr/lib/tmpfiles.d* usr/lib/*-linux-gnu*/gconv*
usr/lib/*-linux-gnu*/engines-3* usr/lib/*-linux-gnu*/ossl-modules*
usr/lib/*-linux-gnu*/libcrypto.so* usr/lib/*-linux-gnu*/libssl.so* usr/lib/*-linux-gnu*/libsqlite3.so*
usr/lib/*-linux-gnu*/libdb-5* usr/lib/*-linux-gnu*/libncurses* usr/lib/*-linux-gnu*/libformw* usr/lib/*-linux-gnu*/libmenuw*
usr/lib/*-linux-gnu*/libpanelw* usr/lib/*-linux-gnu*/libreadline* usr/lib/*-linux-gnu*/libhistory*
usr/lib/*-linux-gnu*/libtic.so* usr/lib/*-linux-gnu*/libmvec* usr/lib/*-linux-gnu*/lib*pcprofile* usr/lib/*-linux-gnu*/libmemusage*
usr/share/base-files* usr/share/bash-completion* usr/share/binfmts* usr/share/bug* usr/share/debconf* usr/share/dict* usr/share/info*
usr/share/lintian* usr/share/locale* usr/share/man* usr/share/misc* usr/share/perl* usr/share/pixmaps* usr/share/polkit*
usr/share/readline* usr/share/zoneinfo* usr/share/doc/*/changelog* usr/share/doc/*/NEWS* usr/share/doc/*/README*
usr/share/doc/*/examples* usr/share/doc/*/*.gz usr/share/ieee-data/* usr/share/python3*
usr/lib/python3*/test* usr/lib/python3*/idlelib* usr/lib/python3*/tkinter* usr/lib/python3*/turtle* usr/lib/python3*/ensurepip*
usr/lib/python3*/pydoc* usr/lib/python3*/venv* usr/lib/python3*/unittest* usr/lib/python3*/doctest* usr/lib/python3*/sqlite3*
usr/lib/python3*/curses* usr/lib/python3*/dbm* usr/lib/python3*/_pyrepl* usr/lib/python3*/wsgiref* usr/lib/python3*/xmlrpc*
usr/lib/python3*/lib-dynload/_*test* usr/lib/python3*/lib-dynload/xx* usr/lib/python3*/lib-dynload/_ssl*
usr/lib/python3*/lib-dynload/_hashlib* usr/lib/python3*/lib-dynload/_sqlite3* usr/lib/python3*/lib-dynload/_dbm*
usr/lib/python3*/lib-dynload/_curses* usr/lib/python3*/lib-dynload/readline* usr/lib/python3*/lib-dynload/_codecs_*
""".split()
_left_out = re.compile("|".join(fnmatch.translate(pattern) for pattern in LEFT_OUT))


def root_layer(architecture: str, variant: str, date: int) -> bytes:
    """The layer as an uncompressed tar. Raises SystemExit with one line when mmdebstrap is missing or fails."""
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}"]
    command += [f"--include={','.join(PACKAGES[variant])}", SUITE, "-"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
    except FileNotFoundError:
        sys.exit("image: mmdebstrap is missing. try: apt-get install mmdebstrap")
    layer = Layer(date)
    assert process.stdout is not None
    with process.stdout as pipe, tarfile.open(fileobj=pipe, mode="r|") as tar:
        for member in tar:
            path = member.name = member.name.removeprefix("./").rstrip("/")
            if path in {"", "."} or member.isdev() or _left_out.match(path):
                continue
            file = tar.extractfile(member) if member.isreg() else None
            data = file.read() if file else b""
            layer.add(member, data)
            if path.endswith(".py") and path.startswith("usr/lib/python3"):
                add_compiled(layer, path, data)
    if process.wait():
        sys.exit(f"image: mmdebstrap ended with {process.returncode}")
    return layer.finish()


def add_compiled(layer: Layer, path: str, source: bytes) -> None:
    """Adds the .pyc of a module, of the kind that Python never checks against its source (PEP 552, unchecked hash)."""
    version = re.match(r"usr/lib/python(3\.\d+)/", path)
    if version and version[1] != f"{sys.version_info[0]}.{sys.version_info[1]}":
        sys.exit(f"image: {SUITE} has Python {version[1]}, this is {sys.version.split()[0]}. try: /usr/bin/python3 on {SUITE}")
    try:
        code = compile(source, "/" + path, "exec", dont_inherit=True)
    except SyntaxError as error:
        sys.exit(f"image: /{path} does not compile: {error}")
    pyc = _bootstrap_external._code_to_hash_pyc(code, importlib.util.source_hash(source), checked=False)
    assert pyc[16:] == marshal.dumps(code)
    layer.add_file(str(Path(importlib.util.cache_from_source(path))), pyc)
