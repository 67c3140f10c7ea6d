"""Compares an opened file with the path and flags in its row.

Path and flags are read from the program's memory after the call, when a hostile program may have rewritten them. The
trap: a symbolic link, a bind mount or /proc/self also makes a path differ, so a difference does not prove rewriting.
"""

import posixpath

_FLAGS = 1
"""DIFFERS_FLAGS of bpf/trace_open.bpf.c: the access mode differs."""


def open_differences(bits: int, written: str | None, resolved: str | None) -> str:
    """What differs: "", "path", "flags" or "path|flags". A path that could not be read does not differ."""
    names = []
    if written is not None and resolved is not None and not _same(written, resolved):
        names.append("path")
    if bits & _FLAGS:
        names.append("flags")
    return "|".join(names)


def _same(written: str, resolved: str) -> bool:
    """Whether `resolved` is `written` without links. A relative path must be the end of `resolved`."""
    if resolved.startswith("…"):
        # The upper part of the path is missing.
        return posixpath.basename(posixpath.normpath(written)) in ("", ".", "..", posixpath.basename(resolved))
    if written.startswith("/"):
        # normpath keeps two leading slashes.
        return posixpath.normpath(written).replace("//", "/") == resolved
    names = [name for name in posixpath.normpath(written).split("/") if name not in (".", "..")]
    return not names or f"{resolved}/".endswith("/" + "/".join(names) + "/")
