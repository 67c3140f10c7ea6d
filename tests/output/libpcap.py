"""libpcap itself, as the judge of what we write for it and of what its filters mean."""

import ctypes
import ctypes.util
from pathlib import Path
from typing import NamedTuple

import pytest

DLT_RAW = 12
DLT_LINUX_SLL2 = 276
COOKED = 20
"""Bytes in front of the IP header there."""
_NANOSECONDS = 1


class Packet(NamedTuple):
    """A packet as libpcap reads it."""

    time_ns: int
    length: int
    data: bytes


class _Header(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_long),
        ("fraction", ctypes.c_long),
        ("captured", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def load() -> ctypes.CDLL:
    """Skips the test if the library is missing: `make check` installs nothing, and `make test` installs it."""
    try:
        library = ctypes.CDLL(ctypes.util.find_library("pcap") or "libpcap.so.0.8")
    except OSError as error:
        pytest.skip(f"libpcap is not installed: {error}")
    for name in ("pcap_open_dead", "pcap_open_offline_with_tstamp_precision"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("pcap_compile", "pcap_next_ex", "pcap_close", "pcap_datalink"):
        getattr(library, name).argtypes = None
    return library


def read(path: Path) -> list[Packet]:
    """The packets of a capture file of cooked packets."""
    library = load()
    why = ctypes.create_string_buffer(256)
    handle = library.pcap_open_offline_with_tstamp_precision(str(path).encode(), _NANOSECONDS, why)
    assert handle, why.value
    handle = ctypes.c_void_p(handle)
    header, data = ctypes.POINTER(_Header)(), ctypes.c_void_p()
    found = []
    while (result := library.pcap_next_ex(handle, ctypes.byref(header), ctypes.byref(data))) == 1:
        head = header.contents
        time = head.seconds * 10**9 + head.fraction
        found.append(Packet(time, head.length, ctypes.string_at(data.value or 0, head.captured)))
    assert result == -2, "libpcap takes the file for broken"
    assert library.pcap_datalink(handle) == DLT_LINUX_SLL2
    library.pcap_close(handle)
    return found


def matches(expression: str, packet: bytes, length: int) -> bool:
    """True if libpcap's own interpreter says that a packet of raw IP matches."""
    library = load()
    handle = ctypes.c_void_p(library.pcap_open_dead(DLT_RAW, 262144))
    program = _Program()
    assert library.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, 0xFFFFFFFF) == 0
    header = _Header(0, 0, len(packet), length)
    found = library.pcap_offline_filter(ctypes.byref(program), ctypes.byref(header), packet)
    library.pcap_freecode(ctypes.byref(program))
    library.pcap_close(handle)
    return bool(found)
