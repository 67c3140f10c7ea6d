"""Makes objects loadable before Linux 5.12, whose BPF has no atomic instruction except addition.

Gadgets that load there use compare-and-swap only where losing a race is harmless: for the maximum of a histogram, which
another CPU may then lower, and for the time of a report, which two CPUs may then send. The trap: that verifier refuses
the instruction even where it is never reached.
"""

from kubectl_gadget.agent.elf import ElfFile, MemorySource

_EXECUTABLE = 4
"""Of a section's flags."""
_ATOMIC_8_BYTES, _COMPARE_AND_SWAP = 0xDB, 0xF1
_STORE_8_BYTES = 0x7B


def without_compare_and_swap(elf: bytes) -> bytes:
    """Returns the object with each compare-and-swap of 8 bytes replaced by a store. The register for its result keeps
    the expected value, as if the swap had succeeded."""
    changed = bytearray(elf)
    for one in ElfFile(MemorySource(elf)).sections:
        for at in range(one.offset, one.offset + one.size, 8) if one.flags & _EXECUTABLE else ():
            if elf[at] == _ATOMIC_8_BYTES and elf[at + 4] == _COMPARE_AND_SWAP:
                changed[at] = _STORE_8_BYTES
                changed[at + 4] = 0
    return bytes(changed)
