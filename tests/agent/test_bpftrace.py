"""bpftrace on this node: what is missing, how it is started where it crashes, and whose map is filled."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent import other_tools
from kubectl_gadget.agent.bpf import libbpf, maps


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
    assert "-bcc" in problem["try"]


def test_a_bpftrace_that_crashes_at_its_start_is_a_problem_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "kill -SEGV $$", monkeypatch)
    # The copy without RELRO is no program at all here.
    monkeypatch.setattr(other_tools, "without_relro", lambda elf: b"\x7fELF")
    (problem,) = [one for one in other_tools.bpftrace_problems() if "start" in one["what"]]
    assert "SIGSEGV" in problem["why"]


def test_a_missing_shell_is_reported_before_bpftrace_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_tools, "_SHELL", "/nonexistent/sh")
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
