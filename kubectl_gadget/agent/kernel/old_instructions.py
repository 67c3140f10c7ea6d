"""Makes objects loadable before Linux 5.12, whose BPF has no atomic instruction except addition.

Gadgets that load there use compare-and-swap only where losing a race is harmless: for the maximum of a histogram, which
another CPU may then lower, and for the time of a report, which two CPUs may then send. The trap: that verifier refuses
the instruction even where it is never reached.
"""

import struct

_TABLE, _COUNTS = 0x28, 0x3A
"""Offsets in the ELF header: the offset of the section headers; the size of one, and their number."""
_SECTION = struct.Struct("<8xQ8xQQ")
"""Of a section header: flags, offset, size."""
_EXECUTABLE = 4
_ATOMIC_8_BYTES, _COMPARE_AND_SWAP = 0xDB, 0xF1
_STORE_8_BYTES = 0x7B


def without_compare_and_swap(elf: bytes) -> bytes:
    """Returns the object with each compare-and-swap of 8 bytes replaced by a store. The register for its result keeps
    the expected value, as if the swap had succeeded."""
    changed = bytearray(elf)
    table = struct.unpack_from("<Q", elf, _TABLE)[0]
    size, count = struct.unpack_from("<HH", elf, _COUNTS)
    for place in range(table, table + size * count, size):
        flags, start, length = _SECTION.unpack_from(elf, place)
        if not flags & _EXECUTABLE:
            continue
        for at in range(start, start + length, 8):
            if elf[at] == _ATOMIC_8_BYTES and elf[at + 4] == _COMPARE_AND_SWAP:
                changed[at] = _STORE_8_BYTES
                changed[at + 4] = 0
    return bytes(changed)
