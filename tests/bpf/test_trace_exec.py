"""trace exec: executes known things a prime number of times, and counts what was seen."""

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

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
