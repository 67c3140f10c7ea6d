"""A copy of the pod's payload with its modules compiled for this version of Python. The pod's main process makes it
once; otherwise each session would compile the modules that were not sent compiled for its Python.

The trap: it does not have the payload's hash. So it is used only if no other user can have written it (unpacking.py),
and it is made from the file that this process itself was imported from, whose hash was checked.
"""

import marshal
import os
import sys
from contextlib import suppress
from importlib._bootstrap_external import MAGIC_NUMBER
from typing import NoReturn

from kubectl_gadget.agent.payload import own_files

_HEAD = MAGIC_NUMBER + bytes(12)
"""The header of a compiled module without source: no flags, time or size."""
_IDLE = 19


def run() -> NoReturn:
    """Makes the copy if it does not exist, and ends the process."""
    try:
        os.nice(_IDLE)
        kept = _kept()
        if kept and not os.path.exists(_path(kept)):
            make(kept)
    except OSError as error:
        sys.stderr.write(f"each session here compiles its modules: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(0)


def make(kept: str) -> None:
    """Writes the copy beside the payload `kept`. Raises OSError."""
    from zipfile import ZipFile, ZipInfo

    new = f"{_path(kept)}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(new)  # left by an earlier main process with the same PID
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "wb") as written, ZipFile(kept) as source, ZipFile(written, "w") as copy:
        files = {info.filename: source.read(info) for info in source.infolist()}
        for name, data in files.items():
            if name.endswith(".py"):
                sent = files.get(f"{name}c", b"")  # compiled by the build's Python, which may have another version
                compiled = sent if sent.startswith(MAGIC_NUMBER) else _compiled(data, name)
                copy.writestr(ZipInfo(f"{name}c"), compiled)
            elif not name.endswith(".pyc"):
                copy.writestr(ZipInfo(name), data)
    os.replace(new, _path(kept))


def _compiled(data: bytes, name: str) -> bytes:
    return _HEAD + marshal.dumps(compile(data, name, "exec", dont_inherit=True))


def _kept() -> str:
    """Returns the pod's file that this process was imported from, with the payload's hash in its name; "" if there is
    no such file, or if this process was imported from the copy."""
    with suppress(OSError):
        path = os.readlink(own_files.payload() or "")
        return path if os.path.isfile(path) and not path.endswith(MAGIC_NUMBER.hex()) else ""
    return ""


def _path(kept: str) -> str:
    """Returns the copy's path, as in unpacking.py."""
    return f"{kept}.{MAGIC_NUMBER.hex()}"
