"""Encoder of records and ring buffer bytes, and a gadget that looks like trace_open: what the tests feed the
decoder."""

import struct
from collections.abc import Sequence
from typing import Any

from kubectl_gadget.gadgets.schema import (
    About,
    AgentSide,
    Column,
    Field,
    Gadget,
    Global,
    Parameter,
    ProgramChoice,
    RecordLayout,
)

FIELDS = (
    Field("timestamp", 0, 8, "gadget_timestamp"),
    Field("cgroup", 8, 8, "gadget_cgroup"),
    Field("pid", 16, 4, "gadget_pid"),
    Field("tid", 20, 4, "gadget_pid"),
    Field("ppid", 24, 4, "gadget_pid"),
    Field("uid", 28, 4, "gadget_uid"),
    Field("gid", 32, 4, "gadget_gid"),
    Field("container_pid", 36, 4, "gadget_pid"),
    Field("comm", 40, 16, "gadget_comm"),
    Field("parent_comm", 56, 16, "gadget_comm"),
    Field("marks", 72, 4, "__u32"),
    Field("unused", 76, 4, "__u32"),
    Field("fd", 80, 4, "gadget_fd", True),
    Field("errno", 84, 4, "gadget_errno", True),
    Field("flags", 88, 4, "gadget_open_flags"),
    Field("mode", 92, 4, "gadget_mode"),
    Field("path", 96, 4, "gadget_string"),
    Field("resolved", 100, 4, "gadget_path"),
    Field("args", 104, 4, "gadget_strings"),
    Field("padding", 108, 4, "__u32"),
)
SIZE = 112
_FIXED = struct.Struct("<QQ6I16s16sIIiiII")


def column(name: str, title: str | None = None, field: str | None = None, **more: Any) -> Column:
    """A column with the defaults that tests do not care about."""
    return Column(name, title or name.upper(), field or name, f"the {name}", **more)


OPEN = Gadget(
    name="trace_open",
    command=("trace", "open"),
    about=About("files", "Files that are opened"),
    record=RecordLayout("open_record", SIZE, FIELDS),
    columns=(
        column("node", width=12),
        column("namespace", width=9),
        column("pod", width=12),
        column("container", width=12),
        column("pid", align="right", width=7),
        column("comm", width=15),
        column("fd", align="right", width=3),
        column("errno", "ERR", width=6),
        column("path", width=24, stretch=True),
        column("timestamp", show="wide", width=18),
        column("uid", show="wide", align="right"),
        column("flags", show="wide", width=20),
        column("mode", show="wide", width=5),
        column("resolved", show="wide", stretch=True),
        column("args", show="wide", stretch=True),
        column("tid", show="json"),
        column("parent_comm", show="json"),
        column("image", show="json"),
    ),
    agent=AgentSide(
        (ProgramChoice((("open_exit",),)),),
        {"gadget_filter_pid": Global(0, 4), "gadget_filter_comm": Global(4, 16), "gadget_path": Global(32, 16)},
    ),
    parameters=(
        Parameter("pid", "int", "", "gadget_filter_pid", 0, "pid", "equal"),
        Parameter("comm", "string", "", "gadget_filter_comm", "", "comm", "equal"),
        Parameter("path", "string", "", "gadget_path", "", "path", "prefix"),
    ),
)


def record(
    *,
    timestamp: int = 0,
    cgroup: int = 0,
    pid: int = 1,
    ppid: int = 1,
    comm: bytes = b"vi",
    parent_comm: bytes = b"sh",
    fd: int = 3,
    errno: int = 0,
    flags: int = 0,
    mode: int = 0,
    uid: int = 0,
    path: bytes | None = b"/etc/passwd",
    path_cut: bool = False,
    resolved: Sequence[bytes] | None = None,
    resolved_cut: bool = False,
    args: Sequence[bytes] | None = None,
    args_cut: bool = False,
    marks: int = 0,
) -> bytes:
    """One record of OPEN as its C program writes it. `resolved` is from the root down."""
    fixed = _FIXED.pack(
        *(timestamp, cgroup, pid, pid, ppid, uid, 0, 1, comm, parent_comm, marks, 0),
        *(fd, errno, flags & 0xFFFFFFFF, mode),
    )
    texts = (
        (path, path_cut),
        (None if resolved is None else b"".join(part + b"\0" for part in reversed(resolved)), resolved_cut),
        (None if args is None else b"".join(part + b"\0" for part in args), args_cut),
    )
    places, tail = b"", b""
    for text, cut in texts:
        if text is None:
            places += struct.pack("<HH", 0, 0)
        else:
            places += struct.pack("<HH", SIZE + len(tail), len(text) | (0x8000 if cut else 0))
            tail += text
    return fixed + places + bytes(4) + tail


def ring(*records: bytes, discarded: Sequence[int] = ()) -> bytes:
    """Records as they lie in a BPF ring buffer; those whose numbers are in `discarded` are marked so."""
    parts: list[bytes] = []
    for number, content in enumerate(records):
        length = len(content) | ((1 << 30) if number in discarded else 0)
        parts += (struct.pack("<II", length, number), content, bytes(-len(content) % 8))
    return b"".join(parts)
