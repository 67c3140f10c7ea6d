"""Functions by address, in programs compiled here; the addresses are those that nm prints."""

import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.elf import ElfFile, FileSource, MemorySource, build_id, open_file
from kubectl_gadget.agent.symbols import elf_functions
from kubectl_gadget.agent.symbols.elf_functions import ElfFunctions, function_offsets, is_go, matching_functions
from tests.agent.burners import WAYS, addresses, compile_burner
from tests.examples import examples

NAMES = ("spin", "heavy", "light", "burn", "main")


OPEN: list[FileSource] = []
"""Files of the test that runs: names are read from them when they are asked for."""


@pytest.fixture(scope="module", params=WAYS)
def burner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_burner(tmp_path_factory.mktemp(request.param) / "burner", *WAYS[request.param])


def functions_of(path: Path) -> ElfFunctions:
    source = open_file(lambda: os.open(path, os.O_RDONLY))
    assert source
    OPEN.append(source)
    return ElfFunctions(source)


@pytest.fixture(autouse=True)
def _files_are_closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def test_each_address_of_a_function_has_its_name(burner: Path) -> None:
    functions, places = functions_of(burner), addresses(burner)
    for name in NAMES:
        found = functions.find(places[name] + 3)
        assert found == (name, 3)


def test_an_offset_in_the_file_becomes_an_address(burner: Path) -> None:
    functions = functions_of(burner)
    headers = subprocess.run(["readelf", "-lW", str(burner)], check=True, capture_output=True, text=True).stdout
    line = next(line.split() for line in headers.splitlines() if "LOAD" in line and " R E " in line)
    offset, address, size = (int(line[place], 16) for place in (1, 2, 4))
    assert functions.address_at(offset + 5) == address + 5
    assert functions.address_at(offset + size) is None


def test_a_stripped_program_has_no_names_but_those_that_it_exports(burner: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, burner], check=True)
    functions, places = functions_of(stripped), addresses(burner)
    assert functions.is_elf
    assert [functions.find(places[name]) for name in NAMES] == [None] * len(NAMES)


def test_addresses_after_a_function_do_not_get_its_name(tmp_path: Path) -> None:
    source = tmp_path / "two.c"
    source.write_text("int a(int x) { return x * 3; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "two.so", source], check=True)
    subprocess.run(["strip", tmp_path / "two.so"], check=True)
    functions = functions_of(tmp_path / "two.so")
    lines = subprocess.run(["nm", "-DS", tmp_path / "two.so"], check=True, capture_output=True, text=True).stdout
    start, size = next(
        (int(line.split()[0], 16), int(line.split()[1], 16)) for line in lines.splitlines() if " a" in line
    )
    assert functions.find(start + size - 1) == ("a", size - 1)
    assert functions.find(start + size) is None


def with_mini_debug_info(program: Path, packed: bytes) -> Path:
    """Returns the stripped program with this content of .gnu_debugdata."""
    made = program.with_name(f"{program.name}.packed")
    (program.parent / "inner.xz").write_bytes(packed)
    add = f".gnu_debugdata={program.parent / 'inner.xz'}"
    subprocess.run(["objcopy", "-S", "--add-section", add, program, made], check=True)
    return made


def symbols_of(program: Path) -> bytes:
    inner = program.with_name(f"{program.name}.inner")
    subprocess.run(["objcopy", "--only-keep-debug", program, inner], check=True)
    return inner.read_bytes()


def test_mini_debug_info_names_what_was_stripped(burner: Path) -> None:
    functions = functions_of(with_mini_debug_info(burner, lzma.compress(symbols_of(burner))))
    assert functions.find(addresses(burner)["heavy"] + 1) == ("heavy", 1)


def test_mini_debug_info_that_unpacks_to_too_much_or_is_cut_is_refused(
    burner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, data = addresses(burner)["heavy"], symbols_of(burner)
    monkeypatch.setattr(elf_functions, "MOST_DEBUGDATA", 8 << 20)
    bomb = lzma.compress(data + bytes(elf_functions.MOST_DEBUGDATA), preset=0)
    assert len(bomb) < 4 << 20
    tracemalloc.start()
    try:
        assert functions_of(with_mini_debug_info(burner, bomb)).find(place) is None
        assert tracemalloc.get_traced_memory()[0] < 2 << 20
    finally:
        tracemalloc.stop()
    for packed in (lzma.compress(data)[:-20], lzma.compress(data, lzma.FORMAT_ALONE), b"", b"\xfd7zXZ\0" + bytes(100)):
        assert functions_of(with_mini_debug_info(burner, packed)).find(place) is None


def test_all_mini_debug_info_together_is_bounded(burner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file takes half of the room at most, and gives it back when it is closed."""
    place, data = addresses(burner)["heavy"], symbols_of(burner)
    packed = with_mini_debug_info(burner, lzma.compress(data))
    in_use = sum(other._unpacked_bytes for other in elf_functions._unpacked)
    monkeypatch.setattr(elf_functions, "MOST_DEBUGDATA_IN_ALL", in_use + 2 * len(data) + 100)
    first = functions_of(packed)
    assert first.find(place) == ("heavy", 0)
    assert functions_of(packed).find(place) is None
    first.forget()
    assert functions_of(packed).find(place) == ("heavy", 0)


def test_a_python_without_lzma_leaves_mini_debug_info_out(burner: Path) -> None:
    packed = with_mini_debug_info(burner, lzma.compress(symbols_of(burner)))
    program = """if True:
        import os, sys
        if sys.argv[3] == "lacks":
            sys.modules["lzma"] = sys.modules["_lzma"] = None
        from kubectl_gadget.agent.elf import FileSource
        from kubectl_gadget.agent.symbols.elf_functions import ElfFunctions
        functions = ElfFunctions(FileSource(os.open(sys.argv[1], os.O_RDONLY)))
        print(functions.is_elf, functions.find(int(sys.argv[2])))"""
    place = str(addresses(burner)["heavy"])
    found = [
        subprocess.run([sys.executable, "-c", program, packed, place, each], capture_output=True, text=True, check=True)
        for each in ("lacks", "has")
    ]
    assert [each.stdout for each in found] == ["True None\n", "True Function(name='heavy', offset=0)\n"]


def test_a_name_without_underscores_is_preferred(tmp_path: Path) -> None:
    source = tmp_path / "names.c"
    source.write_text('int __inner(void) { return 3; }\nint outer(void) __attribute__((alias("__inner")));\n')
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "names.so", source], check=True)
    places = addresses(tmp_path / "names.so")
    found = functions_of(tmp_path / "names.so").find(places["__inner"])
    assert found
    assert found.name == "outer"


def test_a_file_that_is_cut_short_while_it_is_read_has_no_names(burner: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(burner.read_bytes())
    functions, places = functions_of(copy), addresses(burner)
    os.truncate(copy, 100)
    assert functions.find(places["main"]) is None


def test_a_path_that_is_not_a_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert open_file(lambda: os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)) is None
    assert open_file(lambda: os.open(tmp_path / "nothing", os.O_RDONLY)) is None
    assert not ElfFunctions(MemorySource(b"#!/bin/sh\n")).is_elf


def test_a_stripped_go_program_has_the_names_of_its_own_stack_traces(tmp_path: Path) -> None:
    """runc is one, without .symtab, and its sections tell where Go's code lies."""
    program = shutil.which("runc")
    if program is None:
        pytest.skip("no runc here")
    functions = functions_of(Path(program))
    table = functions._go
    assert table is not None
    starts = [table.base + offset for offset in table.offsets[:-1]]
    names = {found.name for start in starts[::50] if (found := functions.find(start + 1))}
    assert len(starts) > 5000
    assert any(name.startswith("runtime.") for name in names)
    assert any(name.startswith("github.com/opencontainers/runc/") for name in names)
    entry = next(start for start in starts if (found := functions.find(start)) and found.name == "main.main")
    assert functions.find(entry) == ("main.main", 0)
    assert functions.find(table.base + table.offsets[-1]) is None


@settings(max_examples=examples(200), deadline=None)
@given(place=st.integers(0, 4000), data=st.binary(max_size=64), size=st.integers(0, 20000))
def test_no_content_of_a_file_breaks_the_reader(burner_bytes: bytes, place: int, data: bytes, size: int) -> None:
    broken = bytearray(burner_bytes[: max(size, 64)])
    broken[place : place + len(data)] = data
    functions = ElfFunctions(MemorySource(bytes(broken)))
    for address in (0, 0x1140, 0x401140, 1 << 63):
        functions.find(address)
        functions.address_at(address)


@pytest.fixture(scope="module")
def burner_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_burner(tmp_path_factory.mktemp("bytes") / "burner").read_bytes()


def test_a_closed_file_does_not_read_the_file_that_reuses_its_descriptor(burner: Path) -> None:
    source = FileSource(os.open(burner, os.O_RDONLY))
    source.close()
    assert source.read(0, 4) == b""


def test_a_file_that_lists_its_symbols_many_times_takes_bounded_memory(
    burner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sections of a crafted file are the same table of symbols."""
    data = bytearray(burner.read_bytes())
    (sections,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    headers = [bytes(data[sections + number * size :][:size]) for number in range(count)]
    symbols = next(header for header in headers if struct.unpack_from("<4xI", header)[0] == 2)
    for number in range(1, count):
        if struct.unpack_from("<4xI", headers[number])[0] != 3:  # the names
            data[sections + number * size : sections + (number + 1) * size] = symbols
    listed = struct.unpack_from("<32xQ", symbols)[0] // 24
    monkeypatch.setattr(elf_functions, "MOST_SYMBOLS", listed + 1)
    functions = ElfFunctions(MemorySource(bytes(data)))
    assert len(functions._addresses) == listed + 1
    assert functions.find(addresses(burner)["main"] + 3) == ("main", 3)


def test_a_function_at_address_0_is_not_one(burner: Path) -> None:
    """Such as one that the linker has dropped: it would seem to reach up to the first real one."""
    data, places = bytearray(burner.read_bytes()), addresses(burner)
    symbol = re.compile(rb"....[\x02\x12]...(" + re.escape(struct.pack("<Q", places["light"])) + b")", re.DOTALL)
    found = symbol.search(data)
    assert found
    data[found.start(1) : found.end(1)] = bytes(8)
    functions = ElfFunctions(MemorySource(bytes(data)))
    assert functions.find(1) is None
    assert functions.find(places["main"]) == ("main", 0)


# Files that were made to take much memory or time: tables are read only as far as those of real files are long.


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
