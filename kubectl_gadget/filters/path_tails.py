"""Paths in the form in which BPF programs compare them, to test whether a file is, or is below, one of them.

A gadget_path has its components leaf first, so the top of a path is at the end of its bytes (bpf/trace_fileuse.bpf.c).
The trap: an empty tail would match everything, so the folder `/` is passed in another way.
"""

import struct

PATHS, PATH_BYTES = 8, 124
"""Maximum number of paths and bytes of a tail, as in bpf/trace_fileuse.bpf.c."""


def tail(path: str) -> bytes:
    """The final bytes of every gadget_path that is `path` or below it. Raises ValueError."""
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
    """The tails of comma-separated paths; an empty list if one of them is /. Raises ValueError."""
    tails = [tail(part.strip()) for part in text.split(",")]
    if len(tails) > PATHS:
        raise ValueError(f"{len(tails)} paths were given; at most {PATHS} are supported")
    return [] if b"" in tails else tails


def table(tails: list[bytes]) -> bytes:
    """The contents of the array `wanted_paths`."""
    packed = b"".join(struct.pack(f"<I{PATH_BYTES}s", len(item), item) for item in tails)
    return packed.ljust(PATHS * (4 + PATH_BYTES), b"\0")
