"""BTF of a few of the kernel's types, with which libbpf relocates an object as it would with all of them.

For each type that an object reads, libbpf searches all 150,000 types of the kernel, which takes a millisecond. The
subset has the types with these names, the types of their members, and the types in function prototypes. A pointer in a
struct points to void, since relocations end there. The trap: a type whose id itself is read must keep its id, so unused
types fill the ids before it.
"""

import struct
from array import array
from collections.abc import Collection, Iterable
from typing import NamedTuple

from kubectl_gadget.agent.elf import ElfFile, MemorySource
from kubectl_gadget.agent.kernel_types.btf_records import (
    CONST,
    ENUM,
    ENUM64,
    FUNC,
    PTR,
    STRUCT,
    TYPEDEF,
    UNION,
    BtfRecords,
    places_of_names,
    places_of_types,
    section,
)

_TARGET_ID = 7
"""BPF_CORE_TYPE_ID_TARGET"""
_FLAVOR = b"___"
"""Suffix of a type's name in an object, which libbpf ignores when it looks up the kernel's type."""
_MOST_KEPT = 1 << 14
"""The largest id that may have to stay the same."""
_UNUSED = array("I", (0, CONST << 24, 0))
_CANDIDATES = {ENUM: (ENUM, ENUM64), ENUM64: (ENUM, ENUM64)}
"""Kinds that libbpf accepts in place of another one."""


class ReadTypes(NamedTuple):
    """Types by name and kind, that an object reads."""

    types: frozenset[tuple[bytes, int]]
    numbers: frozenset[bytes]
    """the names of types whose id itself is read"""


def read_types(elf: bytes) -> ReadTypes:
    """Returns which of the kernel's types an object reads, by the relocations in its .BTF.ext (CO-RE). Raises
    struct.error, ValueError, OverflowError and LookupError when it is malformed."""
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


class NoSubsetError(Exception):
    """The object needs all types."""


def subset(kernel: BtfRecords, read: ReadTypes, modules: Iterable[bytes]) -> bytes:
    """Returns the BTF. `modules`: the BTF of each module. Raises NoSubsetError when a type may be a module's, or when
    an id that has to be kept is too large."""
    found = _candidates(kernel, read.types)
    _check_modules(kernel, {name for name, kind in read.types if not found[name, kind]}, modules)
    whole = _reached(kernel, [id for ids in found.values() for id in ids], (PTR,))
    named = [id for (_, kind), ids in found.items() if kind == TYPEDEF for id in ids]
    outside = _reached(kernel, named, (STRUCT, UNION))
    kept = {id for (name, _), ids in found.items() if name in read.numbers for id in ids}
    if max(kept, default=0) > _MOST_KEPT:
        raise NoSubsetError
    return _written(kernel, kept, whole, outside - whole)


def _candidates(kernel: BtfRecords, types: Collection[tuple[bytes, int]]) -> dict[tuple[bytes, int], list[int]]:
    if any(kind == FUNC for _, kind in types):
        raise NoSubsetError
    places = {name: kernel.strings.find(b"\0" + name + b"\0") + 1 for name, _ in types}
    found = {}
    for name, kind in types:
        kinds = _CANDIDATES.get(kind, (kind,))
        found[name, kind] = [id for id in kernel.named.get(places[name], ()) if kernel.head(id)[1] in kinds]
    return found


def _check_modules(kernel: BtfRecords, missing: set[bytes], modules: Iterable[bytes]) -> None:
    """Raises NoSubsetError if a module may have a type that the kernel lacks, since libbpf then searches modules. The
    type's name may be in the module's strings, or in the kernel's."""
    if not missing:
        return
    texts = [b"\0" + name + b"\0" for name in missing]
    for module in modules:
        if any(text in module or text in kernel.strings for text in texts):
            raise NoSubsetError


def _reached(kernel: BtfRecords, ids: Iterable[int], limits: Collection[int]) -> set[int]:
    """Returns these types and all types that they refer to, except through types of the kinds in `limits`."""
    found, left = {0}, list(ids)
    while left:
        if (id := left.pop()) not in found:
            found.add(id)
            if kernel.head(id)[1] not in limits:
                record = kernel.record(id)
                left += [record[place] for place in places_of_types(record)]
    return found


def _written(kernel: BtfRecords, kept: set[int], whole: set[int], outside: set[int]) -> bytes:
    """Returns the BTF section. `outside`: types of which only the kind matters."""
    free = (id for id in range(1, len(kernel.starts)) if id not in kept)
    new = {0: 0} | {id: id if id in kept else next(free) for id in sorted((whole | outside) - {0})}
    old = {id: before for before, id in new.items()}
    types, strings, offsets = array("I"), bytearray(b"\0"), {0: 0}
    for id in range(1, max(old) + 1):
        record = _UNUSED if id not in old else kernel.record(old[id])[:]
        if old.get(id) in outside and kernel.head(old[id])[1] in (STRUCT, UNION):
            record = array("I", (0, record[1] & ~0xFFFF, record[2]))
        for place in places_of_names(record):
            if (offset := record[place]) not in offsets:
                offsets[offset] = len(strings)
                strings += kernel.text(offset) + b"\0"
            record[place] = offsets[offset]
        for place in places_of_types(record):
            record[place] = new.get(record[place], 0)
        types += record
    return section(types, bytes(strings))
