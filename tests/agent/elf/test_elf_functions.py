"""Functions by address, in programs compiled here; the addresses are those that nm prints."""

import lzma
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.elf import elf_functions
from kubectl_gadget.agent.elf.elf_functions import ElfFunctions
from kubectl_gadget.agent.elf.elf_source import FileSource, MemorySource, open_file
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


def test_mini_debug_info_names_what_was_stripped(burner: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    subprocess.run(["objcopy", "--only-keep-debug", burner, inner], check=True)
    (tmp_path / "inner.xz").write_bytes(lzma.compress(inner.read_bytes()))
    packed = tmp_path / "packed"
    add = f".gnu_debugdata={tmp_path / 'inner.xz'}"
    subprocess.run(["objcopy", "-S", "--add-section", add, burner, packed], check=True)
    functions, places = functions_of(packed), addresses(burner)
    assert functions.find(places["heavy"] + 1) == ("heavy", 1)


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
    monkeypatch.setattr(elf_functions, "_MOST_SYMBOLS", listed + 1)
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
