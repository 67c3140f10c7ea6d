"""Files that were made to take much memory or time: tables are read only as far as those of real files are long."""

import os
import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from kubectl_gadget.agent.elf.build_ids import build_id
from kubectl_gadget.agent.elf.elf_source import ElfFile
from kubectl_gadget.agent.elf.elf_symbols import function_offsets, is_go, matching_functions

SEGMENT, SECTION = 56, 64
MOST_ENTRIES = 0xFFFF
NOTE, LOAD = 4, 1
SYMTAB, STRTAB = 2, 3
FUNCTION = 2


def elf_head(segments: int, segment_bytes: int, sections: int, section_bytes: int, section_start: int = 0) -> bytes:
    """Returns the header of a file whose program headers follow it."""
    ident = b"\x7fELF\x02\x01".ljust(16, b"\0")
    numbers = (2, 62, 1, 0, 64, section_start, 0, 64, segment_bytes, segments, section_bytes, sections, 0)
    return ident + struct.pack("<HHIQQQIHHHHHH", *numbers)


class Reads:
    """A file of zeros, without an end, after its header."""

    def __init__(self, head: bytes) -> None:
        self.sizes: list[int] = []
        self._head = head

    def read(self, offset: int, size: int) -> bytes:
        self.sizes.append(size)
        return (self._head[offset:] if size <= len(self._head) else b"")[:size]


def test_entries_of_a_false_size_are_not_read() -> None:
    source = Reads(elf_head(MOST_ENTRIES, 0xFFFF, MOST_ENTRIES, 0xFFFF))
    file = ElfFile(source)
    assert file.is_elf
    assert (file.segments, file.sections) == ([], [])
    assert max(source.sizes) <= MOST_ENTRIES * SECTION


def test_only_the_first_segments_are_searched_for_a_build_id(tmp_path: Path) -> None:
    note = struct.pack("<III4s4s", 4, 4, 3, b"GNU\0", b"\x12\x34\x56\x78")
    for empty, expected in ((3, "12345678"), (1000, "")):
        start = 64 + (empty + 1) * SEGMENT
        places = [(start + len(note), 16)] * empty + [(start, len(note))]
        headers = [struct.pack("<IIQQQQQQ", NOTE, 4, at, 0, 0, size, size, 4) for at, size in places]
        path = tmp_path / str(empty)
        path.write_bytes(elf_head(empty + 1, SEGMENT, 0, 0) + b"".join(headers) + note + b"\xff" * 16)
        with path.open("rb") as file:
            assert build_id(file.fileno()) == expected


def test_a_symbol_table_that_is_listed_many_times_is_read_once(tmp_path: Path) -> None:
    """Only the first of 1,000 tables has the function."""
    strings, name = b"\0wanted\0", 1
    start = 64 + SEGMENT
    symbols = start + len(strings)
    sections_at = symbols + 48
    empty, wanted = bytes(24), struct.pack("<IBBHQQ", name, 2, 0, 1, start, 8)
    headers = [struct.pack("<IIQQQQIIQQ", 0, STRTAB, 0, 0, start, len(strings), 0, 0, 0, 0)]
    headers += [struct.pack("<IIQQQQIIQQ", 0, SYMTAB, 0, 0, symbols, 24, 0, 0, 0, 24)]
    headers += [struct.pack("<IIQQQQIIQQ", 0, SYMTAB, 0, 0, symbols + 24, 24, 0, 0, 0, 24)] * 1000
    load = struct.pack("<IIQQQQQQ", LOAD, 5, 0, 0, 0, 4096, 4096, 4096)
    for first, second, expected in ((wanted, empty, {"wanted": start}), (empty, wanted, {})):
        path = tmp_path / f"{len(expected)}"
        head = elf_head(1, SEGMENT, len(headers), SECTION, sections_at)
        path.write_bytes(head + load + strings + first + second + b"".join(headers))
        assert function_offsets(str(path), ["wanted"]) == expected


def test_a_large_program_is_searched_for_the_mark_of_go_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 64 << 20)
        file.seek((5 << 20) - 4)
        file.write(b"\xff Go buildinf:")
    tracemalloc.start()
    try:
        assert is_go(str(path))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def write_elf(path: Path, strings: bytes, string_bytes: int, places: Sequence[int]) -> None:
    """Writes a file with a function at each of these places in its strings, after which zeros follow."""
    strings_at = 4096
    symbols_at = strings_at + string_bytes
    sections_at = symbols_at + 24 * len(places)
    with path.open("wb") as file:
        file.write(elf_head(1, SEGMENT, 2, SECTION, sections_at))
        file.write(struct.pack("<IIQQQQQQ", LOAD, 5, 0, 0, 0, 1 << 40, 1 << 40, 4096))
        file.seek(strings_at)
        file.write(strings)
        file.seek(symbols_at)
        file.write(b"".join(struct.pack("<IBBHQQ", place, FUNCTION, 0, 1, 0x1000 + place, 8) for place in places))
        file.write(struct.pack("<IIQQQQIIQQ", 0, STRTAB, 0, 0, strings_at, string_bytes, 0, 0, 0, 0))
        file.write(struct.pack("<IIQQQQIIQQ", 0, SYMTAB, 0, 0, symbols_at, 24 * len(places), 0, 0, 0, 24))


def test_a_table_of_strings_takes_little_memory_however_long_it_is(tmp_path: Path) -> None:
    path = tmp_path / "large"
    crossing = (1 << 20) - 3
    """a string that begins in one of the pieces that are read, and ends in the next"""
    for strings, place in ((b"\0" * crossing + b"wanted\0", crossing), (b"wanted\0" * 500_000, 7)):
        write_elf(path, strings, 100 << 20, [place])
        tracemalloc.start()
        try:
            assert function_offsets(str(path), ["wanted", "other"]) == {"wanted": 0x1000 + place}
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_names_that_have_no_end_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    write_elf(path, b"a" * (4 << 20), 4 << 20, range(0, 400, 4))
    assert [len(name) for name in matching_functions(str(path), "a*")] == [4096]
