"""trace exec: executes known things a prime number of times, and counts what was seen."""

import os
import struct
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.kernel import features
from kubectl_gadget.gadgets.load import load_gadget
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
MOST_BYTES = 16384
MOST_ARGUMENTS = 64
"""Of a failed attempt."""
TRUE = os.path.realpath("/bin/true")
AT_EMPTY_PATH = 0x1000


def execute(path: str, arguments: Sequence[str], where: Path | str = "/") -> int:
    """Executes in a child; its pid."""

    def deed() -> None:
        os.chdir(where)
        os.execv(path, arguments)

    return deeds.in_child(deed)[0]


def one(pid: int, tracer: Tracer) -> dict[str, Any]:
    (record,) = [record for record in tracer.records() if record["pid"] == pid]
    return record


def test_each_exec_is_seen_once() -> None:
    with Tracer("trace_exec") as tracer:
        pids = [execute(TRUE, ["true"]) for _ in range(TIMES)]
        records = [record for record in tracer.records() if record["ppid"] == os.getpid()]
        assert [record["pid"] for record in records] == pids
        assert tracer.lost == 0


def test_a_record_says_what_is_executed_and_where(tmp_path: Path) -> None:
    link = tmp_path / "a link"
    link.symlink_to(TRUE)
    arguments = ["true", "", "two words", "ümläut", "-"]
    with Tracer("trace_exec") as tracer:
        record = one(execute(f"{tmp_path}/./a link", arguments, tmp_path), tracer)
    assert record["args"] == arguments
    assert record["path"] == f"{tmp_path}/./a link"
    assert record["exe"] == TRUE
    assert record["cwd"] == str(tmp_path)
    assert (record["errno"], record["comm"], record["ppid"]) == (0, "a link", os.getpid())


def test_a_script_is_executed_by_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\n")
    script.chmod(0o755)
    with Tracer("trace_exec") as tracer:
        record = one(execute(str(script), ["script", "x"]), tracer)
    assert record["args"] == ["/bin/sh", "-e", str(script), "x"]
    assert record["path"] == str(script)
    assert record["exe"] == os.path.realpath("/bin/sh")


def test_each_failed_exec_is_seen_once() -> None:
    missing = f"/{uuid.uuid4().hex}"
    with Tracer("trace_exec") as tracer:
        for _ in range(TIMES):
            execute(missing, ["missing", "", "ü"], "/proc/self")
        records = [record for record in tracer.records() if record["path"] == missing]
    assert len(records) == TIMES
    assert {record["errno"] for record in records} == {2}
    assert {record["cwd"] for record in records} == {f"/proc/{record['pid']}" for record in records}
    assert all(record["args"] == ["missing", "", "ü"] and record["exe"] is None for record in records)


def test_a_failed_execveat_is_seen(tmp_path: Path) -> None:
    import ctypes

    name = uuid.uuid4().hex
    text = ctypes.create_string_buffer(b"argument")
    arguments = (ctypes.c_void_p * 2)(ctypes.addressof(text), None)

    def deed() -> None:
        deeds.syscall(deeds.EXECVEAT, deeds.AT_FDCWD, name.encode(), ctypes.addressof(arguments), None, 0)

    with Tracer("trace_exec") as tracer:
        record = one(deeds.in_child(deed)[0], tracer)
    assert (record["path"], record["args"], record["errno"]) == (name, ["argument"], 2)


def test_failed_drops_what_succeeds_in_the_kernel() -> None:
    missing = f"/{uuid.uuid4().hex}"
    with Tracer("trace_exec", failed=True) as tracer:
        execute(TRUE, ["true"])
        execute(missing, ["missing"])
        records = tracer.records()
    assert all(record["errno"] > 0 for record in records)
    assert [record["path"] for record in records if record["ppid"] == os.getpid()] == [missing]


def test_the_user_is_that_of_the_new_program() -> None:
    def deed() -> None:
        os.setgid(65534)
        os.setuid(65534)
        os.execv(TRUE, ["true"])

    with Tracer("trace_exec", uid=65534) as tracer:
        record = one(deeds.in_child(deed)[0], tracer)
    assert (record["uid"], record["gid"]) == (65534, 65534)


def test_comm_is_that_of_the_new_program() -> None:
    with Tracer("trace_exec", comm="true") as tracer:
        pid = execute(TRUE, ["another name"])
        execute("/bin/false", ["true"])
        records = [record for record in tracer.records() if record["ppid"] == os.getpid()]
    assert [(record["pid"], record["comm"]) for record in records] == [(pid, "true")]


def test_arguments_that_just_fit_are_whole() -> None:
    arguments = ["x" * (MOST_BYTES - len("true\0") - 1)]
    with Tracer("trace_exec", comm="true") as tracer:
        record = one(execute(TRUE, ["true", *arguments]), tracer)
        assert record["args"] == ["true", *arguments]
        assert tracer.cut == 0


def test_a_byte_more_is_cut_and_says_so() -> None:
    arguments = ["x" * (MOST_BYTES - len("true\0"))]
    with Tracer("trace_exec", comm="true") as tracer:
        record = one(execute(TRUE, ["true", *arguments]), tracer)
        assert record["args"] == ["true", *arguments, "…"]
        assert tracer.cut == 1


def test_a_huge_command_line_is_cut_and_the_rest_of_the_record_is_whole() -> None:
    arguments = [f"{number:09}" for number in range(10_000)]
    with Tracer("trace_exec") as tracer:
        record = one(execute(TRUE, ["true", *arguments]), tracer)
    shown = record["args"]
    assert shown[-1] == "…"
    assert shown[1:-2] == arguments[: len(shown) - 3]
    assert (record["exe"], record["cwd"], record["path"]) == (TRUE, "/", TRUE)


@pytest.mark.parametrize("many", [MOST_ARGUMENTS, MOST_ARGUMENTS + 1, MOST_ARGUMENTS + 2])
def test_many_arguments_of_a_failed_exec_are_cut_and_say_so(many: int) -> None:
    arguments = [str(number) for number in range(many)]
    with Tracer("trace_exec") as tracer:
        record = one(execute("/not/there", arguments), tracer)
    assert record["args"] == arguments[:MOST_ARGUMENTS] + (["…"] if many > MOST_ARGUMENTS else [])


def test_a_long_argument_of_a_failed_exec_is_cut_and_says_so() -> None:
    with Tracer("trace_exec") as tracer:
        record = one(execute("/not/there", ["x" * 5000, "y"]), tracer)
    assert record["args"] == ["x" * 4095, "…"]


def test_arguments_at_a_bad_address_are_not_invented() -> None:
    execve = 59 if deeds.X86 else 221

    with Tracer("trace_exec") as tracer:
        record = one(deeds.in_child(lambda: deeds.syscall(execve, b"/bin/true", 1, None))[0], tracer)
    assert (record["args"], record["errno"]) == (None, 14)


# Why attempts failed. The rows are those that users see.

needs_fexit = pytest.mark.skipif(bool(features.lacking("fexit")), reason="this kernel has no fexit")
"""Elsewhere, attempts are seen without what made them fail."""
EXPLAINED = ("error", "failed_on", "interpreter", "format", "machine")
REFUSED = ("error", "failed_on", "refused_name", "refused_mode", "refused_owner", "refused_group")


def elf(machine: int, loader: bytes = b"", kind: int = 2) -> bytes:
    """An ELF file of 64 bits with one program header: PT_INTERP, or PT_LOAD without a loader."""
    size = 64 + 56
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0x400000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    interp = loader + b"\0" if loader else b""
    return head + struct.pack("<IIQQQQQQ", 3 if loader else 1, 5, size, 0, 0, len(interp), len(interp), 1) + interp


def attempt(path: Path | str, content: bytes | None = None, mode: int = 0o755, uid: int = 0) -> dict[str, Any]:
    """The row of a failed exec of a file with this content."""
    if content is not None:
        Path(path).write_bytes(content)
        Path(path).chmod(mode)

    def deed() -> None:
        if uid:
            os.setgid(uid)
            os.setuid(uid)
        os.execv(path, ["argument"])

    with Tracer("trace_exec", failed=True) as tracer:
        pid, _ = deeds.in_child(deed)
        data = tracer.data()
        assert tracer.lost == 0
        assert "interpreter_opened" in tracer.programs
    rows = MemberRows().records(
        Rows([decode(load_gadget("trace_exec"), "node", data, architecture=os.uname().machine)])
    )
    (row,) = [row for row in rows if row["pid"] == pid]
    assert row["path"] == str(path)
    return row


def members(row: dict[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


OWN, OTHER = (62, "aarch64") if deeds.X86 else (183, "x86_64")


@needs_fexit
@pytest.mark.parametrize(
    ("content", "explained"),
    [
        (b"#!/bin/sh\r\necho\n", ("ENOENT", "shebang", "/bin/sh\r", "", "")),
        (b"#! /no/such/python -u\n", ("ENOENT", "shebang", "/no/such/python", "", "")),
        (elf(OWN, b"/lib/ld-none.so.1"), ("ENOENT", "PT_INTERP", "/lib/ld-none.so.1", "", "")),
        (elf(183 if deeds.X86 else 62), ("ENOEXEC", "format", None, "ELF", OTHER)),
        (elf(243), ("ENOEXEC", "format", None, "ELF", "riscv")),
        (elf(OWN, kind=1), ("ENOEXEC", "format", None, "ELF", "x86_64" if deeds.X86 else "aarch64")),
        (b"echo no shebang\n", ("ENOEXEC", "format", None, "text", "")),
        (b"", ("ENOEXEC", "format", None, "empty", "")),
        (b"MZ\x90\0", ("ENOEXEC", "format", None, "PE", "")),
    ],
)
def test_a_failed_exec_says_what_was_missing_or_wrong(
    content: bytes, explained: tuple[str | None, ...], tmp_path: Path
) -> None:
    assert members(attempt(tmp_path / "program", content), EXPLAINED) == explained


@needs_fexit
def test_a_script_whose_interpreter_lacks_its_loader_names_the_loader(tmp_path: Path) -> None:
    interpreter = tmp_path / "interpreter"
    interpreter.write_bytes(elf(OWN, b"/lib/ld-none.so.1"))
    interpreter.chmod(0o755)
    row = attempt(tmp_path / "script", b"#!%s\n" % os.fsencode(interpreter))
    assert members(row, EXPLAINED) == ("ENOENT", "PT_INTERP", "/lib/ld-none.so.1", "", "")


@needs_fexit
def test_a_missing_file_is_not_taken_for_a_missing_interpreter(tmp_path: Path) -> None:
    assert members(attempt(tmp_path / "none"), EXPLAINED) == ("ENOENT", "path", None, "", "")


@needs_fexit
def test_an_attempt_does_not_inherit_what_was_noted_of_the_one_before(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"#!/no/such\n")
    script.chmod(0o755)

    def deed() -> None:
        for _ in range(TIMES):
            for path in (script, tmp_path / "none"):
                with suppress(OSError):
                    os.execv(path, ["x"])

    with Tracer("trace_exec") as tracer:
        pid, _ = deeds.in_child(deed)
        found = [record["failed_on"] for record in tracer.records() if record["pid"] == pid]
    assert found == [2, 1] * TIMES


@needs_fexit
def test_a_file_without_an_x_bit_is_refused_with_its_owner_and_mode(tmp_path: Path) -> None:
    row = attempt(tmp_path / "program", elf(OWN), mode=0o640)
    assert members(row, REFUSED) == ("EACCES", "path", "program", "0640", 0, 0)


@needs_fexit
def test_an_interpreter_without_an_x_bit_is_the_file_that_was_refused(tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_bytes(elf(OWN))
    interpreter.chmod(0o600)
    row = attempt(tmp_path / "script", b"#!%s\n" % os.fsencode(interpreter))
    assert members(row, REFUSED) == ("EACCES", "shebang", "python", "0600", 0, 0)
    assert row["interpreter"] == str(interpreter)


@needs_fexit
def test_a_directory_that_may_not_be_entered_is_named(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir()
    (closed / "program").write_bytes(elf(OWN))
    (closed / "program").chmod(0o755)
    closed.chmod(0o700)
    assert members(attempt(closed / "program", uid=65534), REFUSED) == ("EACCES", "path", "closed/", "0700", 0, 0)


@needs_fexit
def test_what_succeeds_leaves_no_note(tmp_path: Path) -> None:
    with Tracer("trace_exec") as tracer:
        record = one(execute(TRUE, ["true"]), tracer)
    assert (record["failed_on"], record["format"], record["machine"], record["refused_mode"]) == (0, 0, 0, 2**64 - 1)


@pytest.mark.skipif(not features.lacking("fexit"), reason="this kernel has fexit")
def test_without_fexit_nothing_is_claimed_about_the_cause() -> None:
    with Tracer("trace_exec") as tracer:
        record = one(execute("/not/there", ["x"]), tracer)
        assert "execve_failed_unexplained" in tracer.programs
    assert (record["errno"], record["failed_on"], record["interpreter"]) == (2, 0, None)
