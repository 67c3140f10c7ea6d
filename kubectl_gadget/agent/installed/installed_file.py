"""The policies that should be in force on this node: a file in a ConfigMap, written by the client.

The file is a zip with set.json and the engine's object for each architecture (docs/protocol.md, "Installed policies").
The trap: a kubelet replaces a ConfigMap's files by swapping a symbolic link, so a file is never seen half written, but
it may be missing.
"""

import io
import os
import re
import zipfile

from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.message import parse
from kubectl_gadget.wire.policy_messages import InstalledFile, PolicySpec
from kubectl_gadget.wire.policy_record import FORMAT

FILE = "policies.zip"
_MOST_BYTES = 64 << 20
_OWNER = re.compile("[0-9A-Za-z-]{0,100}")
"""It becomes part of a folder's name."""


NOTHING = InstalledFile(
    format=FORMAT, digest="", policies=(), spec=PolicySpec(name="policy", kind="policy", scopes=(), hooks=())
)


def stamp(folder: str) -> tuple[int, ...] | None:
    """Returns a value that changes when the file does; None when there is no file."""
    try:
        found = os.stat(f"{folder}/{FILE}")
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def read_installed(folder: str) -> tuple[InstalledFile, bytes]:
    """Reads the file: its set.json, and the object for this machine. Without policies, or without a file, returns
    NOTHING and no object. Raises AgentError when it is invalid."""
    try:
        with open(f"{folder}/{FILE}", "rb") as file:
            data = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return NOTHING, b""
    except OSError as error:
        raise AgentError(f"the installed policies cannot be read: {error.strerror}") from None
    remedy = "install them again with a client of the agents' version"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            value = parse(archive.read("set.json"))
            if value.get("format") != FORMAT:
                what = f"the installed policies have the format {value.get('format')!r}, not {FORMAT}"
                raise AgentError(what, remedy)
            found = InstalledFile.from_json(value, "set.json")
            if not found.policies:
                return NOTHING, b""
            if not _OWNER.fullmatch(found.owner):
                raise FrameError(f"`owner` {found.owner!r} is not a UID")
            return found, archive.read(f"{os.uname().machine}.bpf.o")
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, FrameError) as error:
        raise AgentError(f"the installed policies cannot be decoded: {error}", remedy) from None
