"""What programs get for unwinding: ranges of memory, and the index of a file that has none."""

import struct
from pathlib import Path

import pytest

from kubectl_gadget.agent.elf import ElfFile, MemorySource
from kubectl_gadget.agent.symbols.unwinding import Ranges, UnwindSections
from kubectl_gadget.agent.symbols.user_symbols import Mapping
from tests.agent.burners import compile_burner


def test_ranges_that_are_given_back_are_joined() -> None:
    ranges = Ranges(10)
    taken = [ranges.take(3) for _ in range(4)]
    assert taken == [0, 3, 6, None]
    for start in (0, 6, 3):
        ranges.give_back(start, 3)
    assert ranges.used == 0
    assert ranges.take(10) == 0
    assert ranges.take(1) is None


@pytest.fixture
def program(tmp_path: Path) -> bytes:
    return compile_burner(tmp_path / "burner").read_bytes()


def test_the_index_of_a_file_without_one_is_made_from_its_entries(program: bytes) -> None:
    def addresses(sections: UnwindSections) -> list[int]:
        return [start + sections.base for start, _ in struct.iter_unpack("<ii", sections.index)]

    def entries(sections: UnwindSections) -> list[int]:
        return [place + sections.distance for _, place in struct.iter_unpack("<ii", sections.index)]

    header = next(place for place, one in enumerate(ElfFile(MemorySource(program)).segments) if one.kind == 0x6474E550)
    without = bytearray(program)
    struct.pack_into("<I", without, 64 + header * 56, 0)
    usual, made = UnwindSections(MemorySource(program)), UnwindSections(MemorySource(bytes(without)))
    assert usual.frames == made.frames
    assert usual.entries == made.entries > 3
    assert addresses(usual) == addresses(made)
    assert entries(usual) == entries(made)


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", b"\x7fELF\x02\x01" + b"\xff" * 500])
def test_a_file_that_is_none_has_no_sections(content: bytes) -> None:
    sections = UnwindSections(MemorySource(content))
    assert sections.entries == 0
    assert sections.load_address(Mapping(0, 1, 0, 0, 0, "")) is None


def test_damaged_entries_end_the_index(program: bytes) -> None:
    section = next(one for one in ElfFile(MemorySource(program)).segments if one.kind == 0x6474E550)
    damaged = bytearray(program)
    damaged[section.offset : section.offset + 4] = bytes(4)  # the version and kinds of the header
    for step in range(0, 400, 7):
        at = section.offset + section.size + step
        damaged[at : at + 3] = b"\xff\x7f\x80"
        UnwindSections(MemorySource(bytes(damaged)))
