"""Ring buffer bytes to records, the slow way."""

import struct
from collections.abc import Iterator

_HEAD = struct.Struct("<II")
_DISCARDED = 1 << 30


def records(ring: bytes | bytearray) -> Iterator[bytes]:
    """Every record that was not discarded. Fails when the bytes do not end with a whole record."""
    at = 0
    while at < len(ring):
        length, _ = _HEAD.unpack_from(ring, at)
        size = length & (_DISCARDED - 1)
        end = at + 8 + (size + 7) // 8 * 8
        assert length >> 31 == 0, "a record that was still being written"
        assert end <= len(ring), "a record that is cut"
        if not length & _DISCARDED:
            yield bytes(ring[at + 8 : at + 8 + size])
        at = end


def timestamps(ring: bytes | bytearray) -> list[int]:
    """struct gadget_record begins with the boot time in ns."""
    return [struct.unpack_from("<Q", record)[0] for record in records(ring)]


def cgroups(ring: bytes | bytearray) -> list[int]:
    """The cgroup id follows."""
    return [struct.unpack_from("<Q", record, 8)[0] for record in records(ring)]
