"""BTF of the few of the kernel's types that an object reads, with which libbpf relocates it as with all of them.

For each type that an object reads, libbpf searches all 150,000 types of the kernel, which takes a millisecond. The
subset has the types with these names, the types of their members, and the types in function prototypes. A pointer in a
struct points to void, since relocations end there. Subsets are kept for later sessions until the machine is rebooted.
"""

import os
import struct
from array import array
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from kubectl_gadget.agent.elf import ElfFile, MemorySource, digest
from kubectl_gadget.agent.host import procfs, this_node

# The types in a BTF section, as numbers (Documentation/bpf/btf.rst). Little-endian machines only. A type has three
# words, and more if it is of certain kinds: name, information (kind, number of members), and a size or another type.

INT, PTR, ARRAY, STRUCT, UNION, ENUM = range(1, 7)
TYPEDEF, VOLATILE, CONST, RESTRICT = range(8, 12)
FUNC, FUNC_PROTO, VAR, DATASEC = range(12, 16)
DECL_TAG, TYPE_TAG, ENUM64 = range(17, 20)
_WORDS = {INT: (4, 0), ARRAY: (6, 0), STRUCT: (3, 3), UNION: (3, 3), ENUM: (3, 2), FUNC_PROTO: (3, 2)}
_WORDS |= {VAR: (4, 0), DATASEC: (3, 3), DECL_TAG: (4, 0), ENUM64: (3, 3)}
"""By kind: the number of a type's own words, and of each of its members. 3 and 0 for other kinds."""
_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F


class _Lengths(dict[int, int]):
    """The number of a type's words, by its information."""

    def __missing__(self, information: int) -> int:
        own, of_member = _WORDS.get(kind(information), (3, 0))
        self[information] = found = own + of_member * (information & 0xFFFF)
        return found


class BtfRecords:
    """Raises ValueError and struct.error when the data is not BTF, and IndexError when it is truncated."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, head, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not valid BTF")
        self.words = array("I", data[head + types : head + types + types_size])
        self.strings = data[head + strings : head + strings + strings_size]
        self.starts = array("I", [0])
        """the index in `words` at which each type begins, by its id; 0 is void, which has no words"""
        self.named: dict[int, list[int]] = {}
        """ids by name, which is an offset in the strings; without functions, which are half of all types"""
        words, lengths, add = self.words, _Lengths(), self.starts.append
        at, end = 0, len(words)
        while at < end:
            information = words[at + 1]
            if (name := words[at]) and information >> 24 & 0x1F != FUNC:
                self.named.setdefault(name, []).append(len(self.starts))
            add(at)
            at += lengths[information]

    def head(self, id: int) -> tuple[int, int, int]:
        """Returns a type's name (an offset in the strings), kind, and size or other type."""
        name, information, last = self.words[(at := self.starts[id]) : at + 3]
        return name, kind(information), last

    def record(self, id: int) -> "array[int]":
        """Returns a type's words."""
        at = self.starts[id]
        return self.words[at : at + _Lengths()[self.words[at + 1]]]

    def text(self, offset: int) -> bytes:
        return self.strings[offset : self.strings.index(b"\0", offset)]


def kind(information: int) -> int:
    return information >> 24 & 0x1F


def places_of_types(record: "array[int]") -> Iterator[int]:
    """Yields the indexes of a type's words that are ids of other types."""
    its_kind = kind(record[1])
    if its_kind in (PTR, TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG):
        yield 2
    elif its_kind == ARRAY:
        yield from (3, 4)
    elif its_kind in (STRUCT, UNION):
        yield from range(4, len(record), 3)
    elif its_kind == FUNC_PROTO:
        yield from (2, *range(4, len(record), 2))


def places_of_names(record: "array[int]") -> Iterator[int]:
    """Yields the indexes of a type's words that are offsets in the strings."""
    yield 0
    own, of_member = _WORDS.get(kind(record[1]), (3, 0))
    if of_member:
        yield from range(own, len(record), of_member)


def section(types: "array[int]", strings: bytes) -> bytes:
    """Returns a BTF section."""
    words = types.tobytes()
    return _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(words), len(words), len(strings)) + words + strings


# The subset. The trap: a type whose id itself is read must keep its id, so unused types fill the ids before it.

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
    """Returns the BTF section. `outside`: types whose kind alone matters."""
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


# The kept subsets.
#
# A file decides where programs read in the kernel's memory, so it is used only if no other user can have written it;
# and modules that are loaded later may have a type that the kernel lacks.

_HERE = "/run/kubectl-gadget"
"""Outside of pods. Our pods name their own folder, which may be missing."""
_FOLDER = os.environ.get("KUBECTL_GADGET_RUN", _HERE)
_KERNEL = "/sys/kernel/btf"
"""Has a file for the kernel, and one for each module that has BTF."""
_MOST = 1000
"""Files that are kept, of some 40 KB each, in memory. Each new object that a client sends adds one."""


def open_subset(elf: bytes, folder: str = _FOLDER) -> int | None:
    """Returns a file descriptor of BTF with which this object is relocated as with the kernel's; None when the kernel's
    has to be used."""
    # Another one with each boot, and when modules are loaded.
    kernel = "/".join((this_node.boot_id(), *procfs.listed(_KERNEL))).encode()
    path = f"{folder}/types.{digest(elf + kernel)}"
    if folder == _HERE:
        with suppress(OSError):
            os.mkdir(folder, 0o700)
    try:
        fd = _opened(path)
    except FileNotFoundError:
        fd = _made(path, elf)
    except OSError:
        fd = None
    if fd is None or os.fstat(fd).st_size:
        return fd
    os.close(fd)
    return None


def forget_kernel() -> None:
    """Frees the kernel's types, 6 MB, which are kept when a subset is made, for the next one."""
    _kernel.cache_clear()


def _opened(path: str) -> int | None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return fd
    os.close(fd)
    return None


def _made(path: str, elf: bytes) -> int | None:
    """Makes the file; it is empty when the object needs all types."""
    new = f"{path}.{os.getpid()}"
    try:
        if len(os.listdir(os.path.dirname(path))) >= _MOST:
            return None
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:  # the folder is missing, or we may not write to it
        return None
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(_subset(elf))
        os.replace(new, path)
    except OSError:
        os.close(fd)
        with suppress(OSError):
            os.unlink(new)
        return None
    return fd


def _subset(elf: bytes) -> bytes:
    modules = (procfs.read(f"{_KERNEL}/{name}") for name in procfs.listed(_KERNEL) if name != "vmlinux")
    with suppress(NoSubsetError, struct.error, ValueError, OverflowError, LookupError):
        return subset(_kernel(), read_types(elf), modules)
    return b""


@cache
def _kernel() -> BtfRecords:
    return BtfRecords(procfs.read(f"{_KERNEL}/vmlinux"))
