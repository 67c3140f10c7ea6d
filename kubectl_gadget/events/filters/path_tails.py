"""Paths that a file has to be, or to lie below, as programs compare them: bytes that a gadget_path ends with.

A gadget_path has its components leaf first, so what stands at the top of a path is the end of its bytes
(bpf/trace_fileuse.bpf.c). The trap: an empty tail would match everything, so the folder `/` is passed another way.
"""

import struct

PATHS, PATH_BYTES = 8, 124
"""As in the C."""


def tail(path: str) -> bytes:
    """What the bytes of a gadget_path end with when the path is `path` or lies below it. Raises ValueError."""
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    parts = [part for part in path.split("/") if part]
    if ".." in parts or "." in parts:
        raise ValueError(f"{path!r} has . or .. in it")
    data = b"".join(part.encode("utf-8", "surrogateescape") + b"\0" for part in reversed(parts))
    if len(data) > PATH_BYTES:
        raise ValueError(f"{path!r} is longer than {PATH_BYTES} bytes")
    return data


def read_paths(text: str) -> list[bytes]:
    """The tails of paths with commas between them; none when one of them is /. Raises ValueError."""
    tails = [tail(part.strip()) for part in text.split(",")]
    if len(tails) > PATHS:
        raise ValueError(f"there are {len(tails)} paths, and no more than {PATHS} can be looked for at once")
    return [] if b"" in tails else tails


def table(tails: list[bytes]) -> bytes:
    """The array `wanted_paths`."""
    packed = b"".join(struct.pack(f"<I{PATH_BYTES}s", len(item), item) for item in tails)
    return packed.ljust(PATHS * (4 + PATH_BYTES), b"\0")
