"""Finds the separate file with the symbols of a stripped one, as gdb does.

By build id in /usr/lib/debug/.build-id, of the process's own root and then of the node, or by the name in
.gnu_debuglink, in the process's root only. Note: a container may have crafted the file, so what it names is not shared
with other containers (user_symbols.py). Its build id or its checksum only shows that it is for this program.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.agent.elf import ElfFile, FileSource, build_id_of, open_file
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.foreign_files import open_inside

NODE = 1
"""The process whose root is the node's."""
_FOLDER = "/usr/lib/debug"
_LINK = b".gnu_debuglink"
_MOST_SECTIONS = 256
_MOST_LINK_BYTES = 4096
_CHECKSUM = struct.Struct("<I")
_PIECE = 1 << 20
MOST_SUMMED = 64 << 20
"""Bytes of a file whose checksum is computed; larger ones need a build id."""


class DebugFile(NamedTuple):
    """The file that was found."""

    source: FileSource
    is_of_node: bool
    """False: it is of the process's own root, and may be crafted"""


def find(pid: int, path: str, elf: ElfFile) -> DebugFile | None:
    """Returns the file for an ELF file that a process has mapped from this path; None if there is none."""
    wanted = build_id_of(elf)
    if len(wanted) > 2:
        place = f"{_FOLDER}/.build-id/{wanted[:2]}/{wanted[2:]}.debug"
        for root in (pid, NODE):
            source = _opened(root, place)
            if source and _has(source, wanted, None):
                return DebugFile(source, root == NODE)
    name, checksum = _link_of(elf)
    top = procfs.link(f"/proc/{pid}/root")
    if top != "/" and path.startswith(f"{top}/"):
        path = path[len(top) :]  # after a chroot(), the mappings have the path in the mount namespace
    for place in _places(path, name):
        source = _opened(pid, place)
        if source and _has(source, wanted, checksum):
            return DebugFile(source, is_of_node=False)
    return None


def _places(path: str, name: str) -> Iterator[str]:
    """Yields where a file of this name is searched for."""
    folder = os.path.dirname(path)
    if name and folder.startswith("/"):
        if name != os.path.basename(path):
            yield f"{folder}/{name}"
        yield f"{folder}/.debug/{name}"
        yield f"{_FOLDER}{folder}/{name}"


def _opened(pid: int, path: str) -> FileSource | None:
    return open_file(lambda: open_inside(pid, path))


def _has(source: FileSource, wanted: str, checksum: int | None) -> bool:
    """True if the file has this build id, or has none and this checksum. Else closes it."""
    found = build_id_of(ElfFile(source))
    matches = found == wanted if found and wanted else checksum is not None and _checksum(source) == checksum
    if not matches:
        source.close()
    return matches


def _link_of(elf: ElfFile) -> tuple[str, int]:
    """Returns name and checksum in .gnu_debuglink; an empty name if there is none."""
    for one in elf.sections[:_MOST_SECTIONS]:
        if elf.names.at(one.name) == _LINK and one.size <= _MOST_LINK_BYTES:
            data = elf.source.read(one.offset, one.size)
            name = data.partition(b"\0")[0]
            at = (len(name) + 4) // 4 * 4
            if name and b"/" not in name and name not in (b".", b"..") and at + _CHECKSUM.size <= len(data):
                return os.fsdecode(name), _CHECKSUM.unpack_from(data, at)[0]
    return "", 0


def _checksum(source: FileSource) -> int | None:
    """Returns the CRC-32 of the file; None if it is too large."""
    from zlib import crc32  # few files have no build id

    size = os.fstat(source.fd).st_size
    if size > MOST_SUMMED:
        return None
    found = 0
    for start in range(0, size, _PIECE):
        found = crc32(source.read(start, min(_PIECE, size - start)), found)
    return found
