"""One tool or script on this node: what is asked for, what is missing, and its lines."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent import other_tools
from kubectl_gadget.agent.bpf import libbpf, maps

AGENT = [sys.executable, "-I", "-m", "kubectl_gadget.agent", "bcc"]
SUMS_UP = b"""
import sys, time
try:
    print("two", file=sys.stderr, flush=True)
    print("one", sys.argv[1], flush=True)
    # One long sleep might begin just after the signal came.
    while True:
        time.sleep(0.2)
except KeyboardInterrupt:
    print("sum", end="")
"""


def lines_of(script: bytes, *arguments: str, stop_after: str = "") -> list[dict[str, Any]]:
    """The agent's output for a script; it is stopped after the first line that has `stop_after`."""
    request = {"script": base64.b64encode(script).decode(), "language": "python", "arguments": arguments}
    with subprocess.Popen(AGENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        for line in (request, {"go": True}):
            agent.stdin.write(json.dumps(line).encode() + b"\n")
            agent.stdin.flush()
        found = []
        for text in agent.stdout:
            found.append(json.loads(text))
            if stop_after and stop_after in str(found[-1].get("out")):
                agent.stdin.write(b'{"stop": true}\n')
                agent.stdin.flush()
    return found


def test_lines_of_both_streams_come_and_what_is_printed_at_the_end() -> None:
    first, *lines, last = lines_of(SUMS_UP, "more", stop_after="one more")
    assert first["kernel"] == os.uname().release
    assert {line["out"] for line in lines if "out" in line} == {"one more", "sum"}
    assert [line["err"] for line in lines if "err" in line] == ["two"]
    assert last == {"exit": 0}


def test_how_a_script_ends_is_reported() -> None:
    assert lines_of(b"import sys; sys.exit(3)")[-1] == {"exit": 3}


def test_without_headers_the_kernel_and_the_package_are_named() -> None:
    (problem,) = [found for found in other_tools.problems({"tool": "x"}, ["x"], "") if "headers" in found["what"]]
    assert os.uname().release in problem["why"]
    assert f"linux-headers-{os.uname().release}" in problem["try"]
    assert not [
        found for found in other_tools.problems({"tool": "x"}, ["x"], "/somewhere") if "headers" in found["what"]
    ]


def test_an_unknown_tool_gets_the_nearest_names() -> None:
    (problem,) = [
        found for found in other_tools.problems({"tool": "execsnop"}, ["execsnoop"], "/x") if "tool" in found["what"]
    ]
    assert problem["try"] == "execsnoop"


def test_without_bcc_the_package_is_named() -> None:
    assert "bpfcc-tools" in other_tools.problems({"tool": "execsnoop"}, [], "/x")[0]["try"]


def test_headers_are_found_where_bcc_looks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)
    assert other_tools.headers(str(tmp_path)) == ""
    archive = tmp_path / "sys" / "kernel" / "kheaders.tar.xz"
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert other_tools.headers(str(tmp_path)) == str(archive)
    build = tmp_path / "lib" / "modules" / os.uname().release / "build"
    (build / "include").mkdir(parents=True)
    assert other_tools.headers(str(tmp_path)) == str(build)


def test_a_tools_name_cannot_lead_out_of_the_tools_folder(tmp_path: Path) -> None:
    assert other_tools.command({"tool": "execsnoop", "arguments": ["-T"]}, "")[0] == "/usr/sbin/execsnoop-bpfcc"
    with pytest.raises(KeyError):
        other_tools.command({"tool": "../../tmp/x"}, str(tmp_path))


# bpftrace


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found out of programs in other tests."""
    other_tools._crash.cache_clear()
    yield
    other_tools._crash.cache_clear()


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "bpftrace"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_without_bpftrace_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    (problem,) = [one for one in other_tools.bpftrace_problems() if "not installed" in one["what"]]
    assert "apt-get install bpftrace" in problem["try"]
    assert "--image" in problem["try"]


def test_a_bpftrace_that_crashes_at_its_start_is_a_problem_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "kill -SEGV $$", monkeypatch)
    # The copy without RELRO is no program at all here.
    monkeypatch.setattr(other_tools, "without_relro", lambda elf: b"\x7fELF")
    (problem,) = [one for one in other_tools.bpftrace_problems() if "start" in one["what"]]
    assert "SIGSEGV" in problem["why"]


def test_a_missing_shell_is_reported_before_bpftrace_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_tools, "SHELL", "/nonexistent/sh")
    assert "/nonexistent/sh" in next(one["why"] for one in other_tools.bpftrace_problems() if "shell" in one["what"])


def test_without_tracefs_the_mount_command_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_tools.this_node, "TRACEFS_FOLDERS", ("/nonexistent/tracing", "/nonexistent/debug"))
    monkeypatch.setattr(other_tools.this_node, "pod_uid", lambda: "")
    assert "/nonexistent/tracing" in next(
        one["try"] for one in other_tools.bpftrace_problems() if "tracefs" in one["what"]
    )


def test_a_bpftrace_that_starts_is_used_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "exit 0", monkeypatch)
    assert other_tools.executable("/nowhere") == str(tmp_path / "bpftrace")
    assert not [one for one in other_tools.bpftrace_problems() if "start" in one["what"] or "installed" in one["what"]]


def test_a_program_without_relro_still_runs(tmp_path: Path) -> None:
    program = Path(shutil.which("true") or "").resolve()
    elf = program.read_bytes()
    copy = tmp_path / "true"
    copy.write_bytes(other_tools.without_relro(elf))
    copy.chmod(0o700)
    subprocess.run([copy], check=True)
    changed = [index for index, (one, other) in enumerate(zip(elf, copy.read_bytes(), strict=True)) if one != other]
    assert 0 < len(changed) <= 4
    assert other_tools.without_relro(copy.read_bytes()) == copy.read_bytes()


def test_the_program_is_a_file_of_its_own_and_arguments_cannot_be_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "exit 0", monkeypatch)
    command = other_tools.bpftrace_command({"bpftrace": "k:f { }", "arguments": ["--unsafe", "1"]}, str(tmp_path))
    assert command[-4:] == ["--", "program.bt", "--unsafe", "1"]
    assert (tmp_path / "program.bt").read_text() == "k:f { }"


def test_only_the_declared_program_runs() -> None:
    request = {"bpftrace": "k:f { }", "arguments": []}
    assert other_tools.undeclared(request, "own:bpftrace", in_pod=True) is None
    assert "own:bpftrace was requested" in str(other_tools.undeclared(request, "execsnoop", in_pod=True))
    disguised = {**request, "tool": "execsnoop"}
    assert "own:bpftrace was requested" in str(other_tools.undeclared(disguised, "execsnoop", in_pod=True))


def test_an_irrelevant_line_is_recognized() -> None:
    assert other_tools.is_irrelevant("WARNING: Unknown error -1: couldn't set RLIMIT_MEMLOCK for bpftrace.")
    assert not other_tools.is_irrelevant("WARNING: f is not traceable")


@pytest.mark.bpf
def test_a_map_is_found_in_its_own_process_and_nowhere_else() -> None:
    library = libbpf.load()
    fds = [
        library.call("bpf_map_create", maps.HASH, name.encode(), 8, 8, 16, None)
        for name in ("AT_pods_other", "AT_pods_1a2b3c")
    ]
    try:
        found = other_tools.find_map(os.getpid(), "pods_1a2b3c")
        assert found is not None
        found.put((7).to_bytes(8, "little"), (1).to_bytes(8, "little"))
        found.close()
        assert other_tools.find_map(os.getpid(), "pods_none") is None
        assert other_tools.find_map(os.getpid(), "") is None
        with subprocess.Popen(["sleep", "60"]) as other:
            assert other_tools.find_map(other.pid, "pods_1a2b3c") is None
            other.kill()
    finally:
        for fd in fds:
            os.close(fd)
