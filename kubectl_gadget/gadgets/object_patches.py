"""Makes arm64's objects from x86-64's: most of their bytes are the same.

A wheel has x86-64's objects, and patches for those of arm64, which take a sixth of the bytes of these objects, both
compressed. `zstd -d --patch-from=FIRST` applies such a patch, too.
"""

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import CompressionParameter, ZstdDict, compress, decompress
else:
    from backports.zstd import CompressionParameter, ZstdDict, compress, decompress

_OPTIONS: dict[int, int] = {CompressionParameter.compression_level: 19, CompressionParameter.window_log: 23}
"""The window has to hold the first object: 8 MiB, which zstd decompresses without a special option."""


def make(first: bytes, second: bytes) -> bytes:
    """Returns the patch that makes the second object of the first."""
    return compress(second, options=_OPTIONS, zstd_dict=ZstdDict(first, is_raw=True).as_prefix)


def apply(first: bytes, patch: bytes) -> bytes:
    """Returns the second object."""
    return decompress(patch, ZstdDict(first, is_raw=True).as_prefix)
