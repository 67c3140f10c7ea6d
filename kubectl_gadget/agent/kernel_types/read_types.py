"""Which of the kernel's types an object reads, according to the relocations in its .BTF.ext (CO-RE)."""

import struct
from typing import NamedTuple

from kubectl_gadget.agent.elf.elf_source import ElfFile, MemorySource
from kubectl_gadget.agent.kernel_types.btf_records import BtfRecords

_TARGET_ID = 7
"""BPF_CORE_TYPE_ID_TARGET"""
_FLAVOR = b"___"
"""Suffix of a type's name in an object, which libbpf ignores when it looks up the kernel's type."""


class ReadTypes(NamedTuple):
    """Types by name and kind."""

    types: frozenset[tuple[bytes, int]]
    numbers: frozenset[bytes]
    """the names of types whose id itself is read"""


def read_types(elf: bytes) -> ReadTypes:
    """Reads an object. Raises struct.error, ValueError, OverflowError and LookupError when it is malformed."""
    file = ElfFile(MemorySource(elf))
    found = {file.names.at(one.name): elf[one.offset : one.offset + one.size] for one in file.sections}
    records, extension = BtfRecords(found[b".BTF"]), found[b".BTF.ext"]
    head, *_, start, size = struct.unpack_from("<I6I", extension, 4)
    at, end = head + start, head + start + size
    types, numbers = set(), set()
    bytes_of_one = struct.unpack_from("<I", extension, at)[0] if size else 0
    at += 4
    while at < end:
        _, count = struct.unpack_from("<II", extension, at)
        at += 8
        for place in range(at, at + count * bytes_of_one, bytes_of_one):
            _, id, _, relocation = struct.unpack_from("<4I", extension, place)
            name, kind, _ = records.head(id)
            text = _essential(records.text(name))
            types.add((text, kind))
            if relocation == _TARGET_ID:
                numbers.add(text)
        at += count * bytes_of_one
    return ReadTypes(frozenset(types), frozenset(numbers))


def _essential(name: bytes) -> bytes:
    before, found, after = name.rpartition(_FLAVOR)
    if before.endswith(b"_") or after.startswith(b"_"):
        raise ValueError(f"the name {name!r} is ambiguous")
    return before if found else name
