"""Compresses and decompresses blocks of a recording, with zstd if this Python has it (3.14), else with zlib.

The trap: a block of a few bytes may expand to gigabytes; decompression stops at the size in its header.
"""

import zlib
from typing import Any

from kubectl_gadget.recording.layout import Compression, DamagedError

_LEVEL = 1
"""zlib's level. Rows repeat names and paths, so a higher level costs much and gains little."""
_ZSTD_LEVEL = 1


def _zstd() -> Any:
    """The module, or None before Python 3.14."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return zstd


def best() -> Compression:
    """The compression that a writer uses here."""
    return Compression.ZLIB if _zstd() is None else Compression.ZSTD


def compress(data: bytes, how: Compression) -> bytes:
    """Compresses one block."""
    if how == Compression.ZLIB:
        return zlib.compress(data, _LEVEL)
    if how == Compression.ZSTD:
        packed: bytes = _zstd().compress(data, _ZSTD_LEVEL)
        return packed
    return data


def decompress(data: bytes, how: int, size: int) -> bytes:
    """Decompresses a block to `size` bytes. Raises DamagedError, also when this Python lacks the method."""
    if how == Compression.NONE:
        found = data
    elif how == Compression.ZLIB:
        found = _bounded(zlib.decompressobj(), data, size, zlib.error)
    elif how == Compression.ZSTD and (zstd := _zstd()) is not None:
        found = _bounded(zstd.ZstdDecompressor(), data, size, zstd.ZstdError)
    else:
        name = "zstd" if how == Compression.ZSTD else f"an unknown method ({how})"
        raise DamagedError(f"it is compressed with {name}, which this Python cannot read", "Python 3.14")
    if len(found) != size:
        raise DamagedError(f"a block has {len(found)} bytes and should have {size}")
    return found


def _bounded(stream: Any, data: bytes, size: int, failed: type[Exception]) -> bytes:
    try:
        found: bytes = stream.decompress(data, size + 1)
    except (failed, EOFError, ValueError) as error:
        raise DamagedError(f"a block cannot be decompressed: {error}") from None
    return found
