"""Parses /proc/PID/mountinfo (proc(5)), with the kernel's escapes undone.

The trap: the optional fields end with a lone "-", and a path before them may be "-" as well.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_ESCAPED = rb"\\([0-3][0-7]{2})"
_PROPAGATION = (b"shared:", b"master:", b"propagate_from:", b"unbindable")
_FIXED = 6


class MountPoint(NamedTuple):
    """One line of mountinfo."""

    id: int
    parent: int
    device: int
    """12 bits of major, 20 of minor number"""
    root: bytes
    target: bytes
    options: bytes
    propagation: bytes
    type: bytes
    source: bytes
    super_options: bytes


def parse_mountinfo(data: bytes) -> Iterator[MountPoint]:
    """Yields the mounts. Lines that do not follow proc(5) are skipped."""
    for line in data.split(b"\n"):
        fields = line.split(b" ")
        try:
            dash = fields.index(b"-", _FIXED)
            major, minor = fields[2].split(b":")
            kind, source, *super_options = fields[dash + 1 :]
            tags = [field for field in fields[_FIXED:dash] if field.startswith(_PROPAGATION)]
            yield MountPoint(
                int(fields[0]),
                int(fields[1]),
                int(major) << 20 | int(minor),
                unescape(fields[3]),
                unescape(fields[4]),
                fields[5],
                b" ".join(tags) or b"private",
                unescape(kind),
                unescape(source),
                unescape(b" ".join(super_options)),
            )
        except (ValueError, IndexError):
            continue


def unescape(text: bytes) -> bytes:
    """Undoes the escapes: a backslash and three octal digits, for blanks, tabs, newlines, # and backslashes."""
    if b"\\" not in text:
        return text
    return re.sub(_ESCAPED, lambda found: bytes([int(found[1], 8)]), text)  # compiled here: hardly any path has one
