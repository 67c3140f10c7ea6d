"""How much stack a BPF program takes with all that it calls, read from its object, as kernels such as 6.1 count it; and
which of its instructions Linux 5.10 does not know.

Each frame counts as a multiple of 32 bytes, and one without memory as 32 (check_max_stack_depth() in
kernel/bpf/verifier.c); a function that is passed to a helper, such as bpf_loop(), counts as if it were called. The
kernel does not count memory that only removed branches use, so it may find less than this, never more.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from elftools.elf.elffile import ELFFile

_GRAIN = 32
_EXECUTABLE = 4
"""SHF_EXECINSTR."""
_INSTRUCTION = struct.Struct("<BBhi")
_CALL, _WIDE, _MOVE, _ADD = 0x85, 0x18, 0xBF, 0x07
_LOAD, _STORES, _SET_TARGET = 1, (2, 3), (0, 1, 4, 7)
"""Classes of instructions."""
_FRAME_POINTER, _PSEUDO_CALL = 10, 1
_ATOMICS, _ATOMIC_ADD = (0xDB, 0xC3), 0
_CALLBACK = "a function that is passed to a helper (Linux 5.13)"
_ATOMIC = "an atomic instruction other than an addition (Linux 5.12)"


class Place(NamedTuple):
    """Of a function: its section, and where in it."""

    section: int
    offset: int


class Function(NamedTuple):
    """`frame`: bytes of its own stack. `callees`: what it calls or passes to helpers. `needs`: its instructions that
    Linux 5.10 does not know."""

    name: str
    is_program: bool
    frame: int
    callees: frozenset[Place]
    needs: frozenset[str]


class Chain(NamedTuple):
    """Calls below one another: the bytes of all their frames, and each function with its own."""

    bytes: int
    frames: tuple[str, ...]


class Instruction(NamedTuple):
    at: int
    code: int
    target: int
    source: int
    offset: int
    number: int


def deepest(object: Path) -> dict[str, Chain]:
    """The chain that takes the most stack, by the programs of an object."""
    functions = _functions(object)
    return {one.name: _chain(functions, place) for place, one in functions.items() if one.is_program}


def needs_of(object: Path) -> dict[str, frozenset[str]]:
    """The instructions that Linux 5.10 does not know, of each program of an object with all that it calls."""
    functions = _functions(object)

    def needs(place: Place) -> frozenset[str]:
        function = functions[place]
        return function.needs.union(*map(needs, function.callees))

    return {one.name: needs(place) for place, one in functions.items() if one.is_program}


def _chain(functions: dict[Place, Function], place: Place) -> Chain:
    function = functions[place]
    below = max((_chain(functions, callee) for callee in function.callees), default=Chain(0, ()))
    counted = -(-max(function.frame, 1) // _GRAIN) * _GRAIN
    return Chain(counted + below.bytes, (f"{function.name} {function.frame}", *below.frames))


def _functions(object: Path) -> dict[Place, Function]:
    elf = ELFFile(io.BytesIO(object.read_bytes()))
    sections = list(elf.iter_sections())
    code = {number: each for number, each in enumerate(sections) if each["sh_flags"] & _EXECUTABLE}
    symbols = list(elf.get_section_by_name(".symtab").iter_symbols())
    named = {
        Place(each["sh_info"], one["r_offset"]): Place(symbol["st_shndx"], symbol["st_value"])
        for each in sections
        if each["sh_type"] == "SHT_REL"
        for one in each.iter_relocations()
        for symbol in (symbols[one["r_info_sym"]],)
    }
    found = {}
    for symbol in symbols:
        place = Place(symbol["st_shndx"], symbol["st_value"])
        if symbol["st_info"]["type"] == "STT_FUNC" and place.section in code:
            section = code[place.section]
            body = list(_instructions(section.data(), place.offset, symbol["st_size"]))
            callees = {one: callee for one in body if (callee := _callee(one, place.section, named))}
            inside = {one: callee for one, callee in callees.items() if callee.section in code}
            needs = {_CALLBACK} if any(one.code == _WIDE for one in inside) else set()
            needs |= {_ATOMIC} if any(one.code in _ATOMICS and one.number != _ATOMIC_ADD for one in body) else set()
            found[place] = Function(
                symbol.name, section.name != ".text", _frame(body), frozenset(inside.values()), frozenset(needs)
            )
    return found


def _instructions(data: bytes, start: int, size: int) -> Iterator[Instruction]:
    at = start
    while at < start + size:
        code, registers, offset, number = _INSTRUCTION.unpack_from(data, at)
        yield Instruction(at, code, registers & 15, registers >> 4, offset, number)
        at += 2 * _INSTRUCTION.size if code == _WIDE else _INSTRUCTION.size


def _callee(one: Instruction, section: int, named: dict[Place, Place]) -> Place | None:
    """What an instruction names; of an address it may be data."""
    symbol = named.get(Place(section, one.at))
    if one.code == _CALL and one.source == _PSEUDO_CALL:
        steps = (one.number + 1) * _INSTRUCTION.size
        return Place(symbol.section, symbol.offset + steps) if symbol else Place(section, one.at + steps)
    if one.code == _WIDE and symbol:
        return Place(symbol.section, symbol.offset + one.number)
    return None


def _frame(body: list[Instruction]) -> int:
    """The lowest place below the frame pointer that is used directly, or whose address is taken."""
    lowest = 0
    copies = {_FRAME_POINTER}
    for one in body:
        kind = one.code & 7
        pointer = one.source if kind == _LOAD else one.target if kind in _STORES else None
        if pointer in copies:
            lowest = min(lowest, one.offset)
        if one.code == _ADD and one.target in copies:
            lowest = min(lowest, one.number)
        if one.code == _MOVE and one.source in copies:
            copies.add(one.target)
        elif kind in _SET_TARGET:
            copies.discard(one.target)
    return -lowest
