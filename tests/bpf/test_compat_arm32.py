"""Calls of 32-bit programs on arm64, by a program of a few instructions that this test writes: no compiler makes them
here.

The calls of arm32 include some that arm64 does not have, and they are shown as their successors, with a directory put
before the path. Kernels and processors may run no 32-bit programs at all.
"""

import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kubectl_gadget.linux.syscalls import syscall_names
from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(os.uname().machine != "aarch64", reason="32-bit programs of arm need arm64"),
]
NUMBERS = {name: number for number, name in syscall_names("arm32").items()}
MARK_COMPAT = 2
_BASE = 0x10000
_HEADERS = 52 + 32
# adr r8, table; loop: r7 and r0 to r5 from the table; svc 0; next entry of the table; b loop
_CODE = bytes.fromhex(
    "24808fe2 007098e5 040098e5 081098e5 0c2098e5 103098e5 144098e5 185098e5 000000ef 1c8088e2 f5ffffea"
)
Call = tuple[str, Sequence[int | bytes]]


def program(calls: Sequence[Call]) -> bytes:
    """An ELF file of arm32 that makes these calls and exits with 0."""
    calls = [*calls, ("exit_group", (0,))]
    texts = b""
    table = b""
    after = _BASE + _HEADERS + len(_CODE) + len(calls) * 28
    for name, arguments in calls:
        words = [NUMBERS[name]]
        for argument in arguments:
            if isinstance(argument, bytes):
                words.append(after + len(texts))
                texts += argument + b"\0"
            else:
                words.append(argument & 0xFFFFFFFF)
        table += struct.pack("<7I", *words, *[0] * (7 - len(words)))
    body = _CODE + table + texts
    size = _HEADERS + len(body)
    head = b"\x7fELF\1\1\1" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, _BASE + _HEADERS, 52, 0, 0x05000000, 52, 32, 1, 0, 0, 0)
    return head + struct.pack("<8I", 1, 0, _BASE, _BASE, size, size, 7, 0x1000) + body


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """Runs a program that makes the given calls, and returns its PID."""

    def made(*calls: Call) -> int:
        file = tmp_path / "arm32"
        file.write_bytes(program(calls))
        file.chmod(0o755)
        try:
            process = subprocess.Popen([file])
        except OSError as error:
            pytest.skip(f"this kernel or processor runs no 32-bit programs: {error}")
        assert process.wait() == 0
        return process.pid

    return made


def test_opens_are_shown_with_the_path_of_calls_that_arm64_does_not_have(
    run: Callable[..., int], tmp_path: Path
) -> None:
    path, made = os.fsencode(tmp_path / "there"), os.fsencode(tmp_path / "made")
    (tmp_path / "there").write_text("")
    with Tracer("trace_open", compat=True) as tracer:
        pid = run(
            ("open", (path, os.O_RDONLY)),
            ("creat", (made, 0o640)),
            ("openat", (deeds.AT_FDCWD, path, os.O_RDWR)),
            ("open", (path + b"-not", os.O_WRONLY)),
        )
        records = [record for record in tracer.records() if record["pid"] == pid]
    names = ("path", "flags", "mode", "fd", "errno")
    ours = [tuple(record[name] for name in names) for record in records if record["path"].startswith(str(tmp_path))]
    assert ours == [
        (os.fsdecode(path), os.O_RDONLY, 0, 3, 0),
        (os.fsdecode(made), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o640, 4, 0),
        (os.fsdecode(path), os.O_RDWR, 0, 5, 0),
        (os.fsdecode(path) + "-not", os.O_WRONLY, 0, -1, 2),
    ]
    assert all(record["marks"] & MARK_COMPAT for record in records if record["path"].startswith(str(tmp_path)))


def test_changes_of_files_are_shown_as_the_calls_that_replaced_them(run: Callable[..., int], tmp_path: Path) -> None:
    folder, other = os.fsencode(tmp_path / "folder"), os.fsencode(tmp_path / "other")
    with Tracer("trace_file", compat=True) as tracer:
        pid = run(
            ("mkdir", (folder, 0o700)),
            ("rename", (folder, other)),
            ("symlink", (other, folder)),
            ("unlink", (folder,)),
            ("rmdir", (other,)),
        )
        records = [one for one in tracer.records() if one["pid"] == pid]
    assert not (tmp_path / "other").exists()
    here, new = os.fsdecode(folder), os.fsdecode(other)
    assert [tuple(record[name] for name in ("operation", "errno", "path", "to")) for record in records] == [
        ("mkdir", 0, here, None),
        ("rename", 0, here, new),
        ("symlink", 0, here, new),
        ("unlink", 0, here, None),
        ("rmdir", 0, new, None),
    ]
    assert all(record["marks"] & MARK_COMPAT for record in records)
