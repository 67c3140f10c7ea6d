"""Identifies the contents of a program's file: by its build id, or by digests of the whole file.

The trap: the file comes from a container, so every number in it may be false. A malformed file has no build id, and
only the first segments are searched.
"""

import os
import struct
from itertools import islice

from kubectl_gadget.agent.elf.elf_source import ElfFile, FileSource

_NOTE = struct.Struct("<III")
_PT_NOTE, _NT_GNU_BUILD_ID = 4, 3
_MOST_NOTES = 1 << 16
"""Bytes of a segment of notes."""
_MOST_SEGMENTS = 16


def build_id(file: int) -> str:
    """Returns the build id in hex; "" when there is none."""
    elf = ElfFile(FileSource(file))
    notes = islice((one for one in elf.segments if one.kind == _PT_NOTE), _MOST_SEGMENTS)
    found = (_in_notes(elf.source.read(one.offset, min(one.size, _MOST_NOTES))) for one in notes)
    return next(filter(None, found), "")


def _in_notes(data: bytes) -> str:
    at = 0
    while at + _NOTE.size <= len(data):
        name_bytes, bytes, kind = _NOTE.unpack_from(data, at)
        name = at + _NOTE.size
        start = name + (name_bytes + 3) // 4 * 4
        if kind == _NT_GNU_BUILD_ID and data[name : name + 4] == b"GNU\0":
            return data[start : start + bytes].hex()
        at = start + (bytes + 3) // 4 * 4
    return ""


def matches(file: int, digests: list[str]) -> bool:
    """Whether one of `sha256:…`, `build-id:…`, … matches the file. Raises OSError."""
    import hashlib  # loads libcrypto, 4 MB that few sessions need

    wanted = {(kind, text) for kind, _, text in (digest.partition(":") for digest in digests)}
    for kind in {kind for kind, _ in wanted}:
        if kind == "build-id":
            found = build_id(file)
        else:
            os.lseek(file, 0, os.SEEK_SET)
            with open(file, "rb", closefd=False) as stream:
                found = hashlib.file_digest(stream, kind).hexdigest()
        if (kind, found) in wanted:
            return True
    return False
