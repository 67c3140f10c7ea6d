"""The rows that programs compute from .eh_frame are those that readelf prints."""

import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.elf import ElfFile, FileSource
from kubectl_gadget.agent.symbols.unwinding import Unwinding
from kubectl_gadget.agent.symbols.user_symbols import Mapping, identity_of
from kubectl_gadget.gadgets.compiler import compile_object, find_clang
from tests.agent.burners import PROGRAMS, compile_c

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86-64 is unwound"),
    pytest.mark.skipif(not find_clang() or not shutil.which("readelf"), reason="needs clang and readelf"),
]

SOURCE = Path(__file__).parent / "programs" / "unwound_rows.bpf.c"
UNCHANGED, AT_CFA, AT_FRAME, GONE, NOT_FOLLOWED = range(5)
NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
FOLLOWED = {3, 6, 7, 10}
"""The registers to which a frame may be relative."""
POINTS, PLT, SIGNAL, FRAME_POINTER, OTHER = 32, 64, 65, 66, 255
ROW = struct.Struct("<BBBBiii")
MOST = 262_144
_ENTRY = re.compile(
    r"^[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) (?:FDE cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)|CIE \"(\w*)\")"
)


class Row(NamedTuple):
    """A line of readelf: from this address on, where things are, by their names."""

    address: int
    is_signal: bool
    where: dict[str, str]


def printed(path: Path) -> Iterator[Row]:
    """All rows in .eh_frame, and after each entry one for the first address that is not in it."""
    text = subprocess.run(["readelf", "--debug-dump=frames-interp", path], capture_output=True, text=True, check=False)
    assert text.stdout
    signals: set[str] = set()
    is_signal, names = False, list[str]()
    for line in text.stdout.partition("Contents of the .eh_frame section")[2].splitlines():
        words = re.sub(r" \(\w+\)", "", line).split()
        if found := _ENTRY.match(line):
            _, cie, start, _, augmentation = found.groups()
            names = []
            if start is None:
                if "S" in augmentation:
                    signals.add(words[0])
            else:
                is_signal = cie.lstrip("0") in {one.lstrip("0") for one in signals}
                in_entry = True
            if start is None:
                in_entry = False
        elif words[:1] == ["LOC"]:
            names = words[1:]
        elif names and words and in_entry and re.fullmatch("[0-9a-f]{16}", words[0]):
            yield Row(int(words[0], 16), is_signal, dict(zip(names, words[1:], strict=True)))


def offset_rule(text: str) -> tuple[int, int] | None:
    """The rule and offset of a saved register; None if readelf does not say."""
    if text == "u":
        return UNCHANGED, 0
    if text.startswith("c"):
        return AT_CFA, int(text[1:])
    return None


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BpfObject]:
    target = tmp_path_factory.mktemp("rows") / "rows.bpf.o"
    compile_object(SOURCE, "x86_64", target)
    object = BpfObject(target.read_bytes(), "rows", ["unwound_rows"])
    object.load()
    yield object
    object.close()


def computed(object: BpfObject, path: Path, addresses: Sequence[int]) -> list[tuple[int, ...]]:
    """The program's rows for addresses of the file's symbols."""
    unwinding = Unwinding(object, pytest.fail)
    source = FileSource(os.open(path, os.O_RDONLY))
    with mmap.mmap(object.required_map("asked").fd, MOST * 8) as asked:
        table = unwinding._table(identity_of(source), source)
        assert table is not None
        code = next(one.offset for one in ElfFile(source).segments if one.kind == 1 and one.flags & 1)
        mapped = table.mapped(Mapping(0, 1 << 40, code, 0, 1, str(path)))
        object.required_map("gadget_unwind_mappings").put(bytes(4), mapped)
        for place, address in enumerate(addresses):
            struct.pack_into("<q", asked, place * 8, address - table.sections.base)
    assert object.run("unwound_rows") == 0
    with mmap.mmap(object.required_map("answers").fd, MOST * ROW.size, prot=mmap.PROT_READ) as answers:
        rows = list(islice(ROW.iter_unpack(answers), len(addresses)))
    source.close()
    unwinding.close()
    return rows


def check(object: BpfObject, path: Path, least: int, few: float = 0.0) -> None:
    """All rows are the same, and only this share of them cannot be followed."""
    rows = list(printed(path))[:MOST]
    assert len(rows) >= least
    found = computed(object, path, [row.address for row in rows])
    others = 0
    for row, (cfa, frame, rbx, returns, cfa_offset, frame_offset, rbx_offset) in zip(rows, found, strict=True):
        where = row.where
        if row.is_signal:
            assert cfa == SIGNAL, row
            continue
        if where["CFA"] == "exp":
            assert cfa in (PLT, OTHER) or POINTS <= cfa < PLT, row
        else:
            register, sign, offset = re.split("([+-])", where["CFA"])
            assert (cfa, cfa_offset) == (NAMES.index(register), int(sign + offset)), row
        others += (cfa < POINTS and cfa not in FOLLOWED) or cfa == OTHER or returns == NOT_FOLLOWED
        for name, rule in (("rbp", (frame, frame_offset)), ("rbx", (rbx, rbx_offset))):
            wanted = offset_rule(where.get(name, "u"))
            assert rule == wanted if wanted else rule[0] in (AT_FRAME, NOT_FOLLOWED), (name, row)
        assert returns == {"c-8": AT_CFA, "u": GONE}.get(where["ra"], NOT_FOLLOWED), row
    assert others <= few * len(rows)


@pytest.mark.parametrize("options", ["-O0", "-O1", "-O2", "-O3", "-O2 -static", "-O2 -mavx2 -fcf-protection=none"])
def test_rows_of_own_programs(program: BpfObject, tmp_path: Path, options: str) -> None:
    path = compile_c(tmp_path / "program", PROGRAMS / "unwound.c", "-fomit-frame-pointer", *options.split())
    check(program, path, 10, 0.01)


@pytest.mark.parametrize(
    "name", ["libc.so.6", "bash", "python", "libstdc++.so.6", "libcrypto.so.3", "ld-linux-x86-64.so.2"]
)
def test_rows_of_debians_files(program: BpfObject, name: str) -> None:
    path = Path({"bash": "/bin/bash", "python": sys.executable}.get(name, f"/usr/lib/x86_64-linux-gnu/{name}"))
    if not path.exists():
        pytest.skip(f"there is no {path}")
    check(program, path, 500, 0.02)
