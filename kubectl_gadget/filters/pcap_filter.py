"""Compiles tcpdump's filter expressions with libpcap, for packets that begin with their IP header.

The result is classic BPF, which the programs interpret (bpf/include/gadget/network/pcap_filter.h). The trap: names of
hosts and ports are resolved here, on the client's machine.
"""

import ctypes
import ctypes.util
from functools import cache

from kubectl_gadget.errors import UsageError

MOST_INSTRUCTIONS = 1024
"""As in bpf/include/gadget/network/pcap_filter.h."""
_DLT_RAW = 12
_MOST_TEXT = 1000
_SNAPSHOT = 262144
_NETMASK_UNKNOWN = 0xFFFFFFFF
_INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def compile_filter(expression: str) -> bytes:
    """The expression's instructions, 8 bytes each, little-endian; empty if every packet matches.

    Raises UsageError if it does not parse, if it is too long, or if libpcap is not installed.
    """
    if not expression.strip():
        return b""
    if "\0" in expression:
        raise UsageError("a filter expression cannot hold a NUL")
    if len(expression) > _MOST_TEXT:
        # libpcap takes minutes for very long expressions.
        raise UsageError(f"filter expression: {len(expression)} characters", f"at most {_MOST_TEXT}; or use --filter")
    code = _compile(_libpcap(), expression)
    count = len(code) // _INSTRUCTION_BYTES
    if count > MOST_INSTRUCTIONS:
        raise UsageError(
            f"filter expression: it compiles to {count} instructions", f"at most {MOST_INSTRUCTIONS} can be run"
        )
    return code


def _compile(library: ctypes.CDLL, expression: str) -> bytes:
    handle = library.pcap_open_dead(_DLT_RAW, _SNAPSHOT)
    program = _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _NETMASK_UNKNOWN):
            why = library.pcap_geterr(handle).decode(errors="replace")
            raise UsageError(f"filter expression {expression!r}: {why}", "man pcap-filter explains them")
        code = ctypes.string_at(program.instructions, program.length * _INSTRUCTION_BYTES)
        library.pcap_freecode(ctypes.byref(program))
    finally:
        library.pcap_close(handle)
    return code


@cache
def _libpcap() -> ctypes.CDLL:
    name = ctypes.util.find_library("pcap") or "libpcap.so.0.8"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise UsageError(
            "filter expressions are compiled by libpcap, which is not installed here",
            "install it (Debian, Ubuntu: apt-get install libpcap0.8), or use --filter, which does not need it",
        ) from None
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = [ctypes.c_void_p]
    library.pcap_close.argtypes = [ctypes.c_void_p]
    library.pcap_freecode.argtypes = [ctypes.c_void_p]
    library.pcap_compile.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32),
    ]
    return library
