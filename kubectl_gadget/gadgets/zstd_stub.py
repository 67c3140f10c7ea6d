"""Makes a libzstd of 5 KB that refuses everything, for nodes whose image has no libzstd.

libelf cannot be loaded without libzstd, which was a third of what a node is sent. It needs it for compressed sections
only, which neither libbpf nor our objects use. The trap: a section of a container's file may claim to be compressed, so
the functions exist, and fail as libelf expects.
"""

import struct

SONAME = "libzstd.so.1"
FUNCTIONS = ("ZSTD_compressStream2", "ZSTD_createCCtx", "ZSTD_decompress", "ZSTD_freeCCtx", "ZSTD_isError")
"""All that libelf calls."""
_MACHINES = {
    "x86_64": (62, bytes.fromhex("b801000000c3")),  # mov $1, %eax; ret
    "aarch64": (183, bytes.fromhex("20008052c0035fd6")),  # mov w0, #1; ret
}
"""e_machine, and what each function does: it returns 1. From ZSTD_isError, that means failure."""
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_ENTRY = struct.Struct("<qQ")
_PAGE = 1 << 16
"""The largest of arm64."""
_DYNAMIC_AT = 1 << 12
"""Where the dynamic section is in the file. The loader writes to it, so in memory it is in the second page."""


def make(machine: str) -> bytes:
    """Returns the shared library for an architecture as `uname -m` names it."""
    number, code = _MACHINES[machine]
    code_at = _HEADER.size + 4 * _SEGMENT.size
    names, symbols = b"\0", bytes(_SYMBOL.size)
    for name in FUNCTIONS:
        symbols += _SYMBOL.pack(len(names), 0x12, 0, 1, code_at, len(code))  # global, a function
        names += name.encode() + b"\0"
    symbols_at = code_at + 8
    hashes_at = symbols_at + len(symbols)
    hashes = struct.pack(f"<{len(FUNCTIONS) + 4}I", 1, len(FUNCTIONS) + 1, 1, 0, *range(2, len(FUNCTIONS) + 1), 0)
    names_at = hashes_at + len(hashes)
    tags = ((14, len(names)), (4, hashes_at), (5, names_at), (6, symbols_at), (10, len(names) + len(SONAME) + 1))
    dynamic = b"".join(_ENTRY.pack(*tag) for tag in (*tags, (11, _SYMBOL.size), (0, 0)))
    end, dynamic_at = names_at + len(names) + len(SONAME) + 1, _PAGE + _DYNAMIC_AT
    segments = (
        (1, 5, 0, 0, 0, end, end, _PAGE),  # loaded, to read and to execute
        (1, 6, _DYNAMIC_AT, dynamic_at, dynamic_at, len(dynamic), len(dynamic), _PAGE),  # loaded, to read and to write
        (2, 6, _DYNAMIC_AT, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8),  # the dynamic section
        (0x6474E551, 6, 0, 0, 0, 0, 0, 16),  # the stack needs no right to execute
    )
    head = _HEADER.pack(b"\x7fELF\2\1\1", 3, number, 1, 0, _HEADER.size, 0, 0, 64, _SEGMENT.size, 4, 64, 0, 0)
    head += b"".join(_SEGMENT.pack(*segment) for segment in segments)
    text = head + code.ljust(8, b"\0") + symbols + hashes + names + SONAME.encode() + b"\0"
    return text.ljust(_DYNAMIC_AT, b"\0") + dynamic
