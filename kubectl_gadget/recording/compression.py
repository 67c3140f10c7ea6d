"""Compresses and decompresses blocks of a recording with zstd: Python's own (3.14), or a package with the same module.

Level 1 costs less than zlib's fastest level, and its result is smaller.

The trap: a block of a few bytes may expand to gigabytes; decompression stops at the size in its header.
"""

import sys
import zlib
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from kubectl_gadget.recording.layout import Compression, DamagedError

_LEVEL = 1
"""Rows repeat names and paths, so a higher level costs much and gains little."""


def compress(data: bytes) -> bytes:
    """Compresses one block, as Compression.ZSTD."""
    return zstd.compress(data, _LEVEL)


def decompress(data: bytes, how: int, size: int) -> bytes:
    """Decompresses a block to `size` bytes. Raises DamagedError."""
    if how == Compression.NONE:
        found = data
    elif how == Compression.ZLIB:
        found = _bounded(zlib.decompressobj(), data, size, zlib.error)
    elif how == Compression.ZSTD:
        found = _bounded(zstd.ZstdDecompressor(), data, size, zstd.ZstdError)
    else:
        raise DamagedError(f"it is compressed with an unknown method ({how})", "a newer version of kubectl gadget")
    if len(found) != size:
        raise DamagedError(f"a block has {len(found)} bytes and should have {size}")
    return found


def _bounded(stream: Any, data: bytes, size: int, failed: type[Exception]) -> bytes:
    try:
        found: bytes = stream.decompress(data, size + 1)
    except (failed, EOFError, ValueError) as error:
        raise DamagedError(f"a block cannot be decompressed: {error}") from None
    return found
