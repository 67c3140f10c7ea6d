"""Hints whether a node can run 32-bit programs, and the kernel's answer. tests/vm has a kernel that cannot."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import syscall_programs
from tests.bpf import compat, deeds


@pytest.fixture(autouse=True)
def _asked_again() -> Iterator[None]:
    syscall_programs.can_run_32_bit.cache_clear()
    yield
    syscall_programs.can_run_32_bit.cache_clear()


def test_an_attempt_overrides_hints_that_say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a kernel that ignores the boot parameter because it is older."""
    compat.needs()
    monkeypatch.setattr(syscall_programs, "_probably_can", lambda: False)
    assert syscall_programs.can_run_32_bit()


def test_a_kernel_that_does_not_know_the_format_cannot_run_32_bit_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscall_programs, "_probably_can", lambda: False)
    monkeypatch.setattr(syscall_programs, "_program_of_32_bits", lambda *_: b"\x7fELF\x01 of no machine")
    assert not syscall_programs.can_run_32_bit()


def test_if_the_attempt_is_impossible_the_answer_is_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(syscall_programs, "_probably_can", lambda: False)
    for name in ("posix_spawn", "memfd_create"):
        monkeypatch.setattr(os, name, refused)
        syscall_programs.can_run_32_bit.cache_clear()
        assert syscall_programs.can_run_32_bit()


@pytest.mark.skipif(not deeds.X86, reason="the hints are x86's")
@pytest.mark.parametrize("hint", ["_SYSCTL", "_SWITCH"])
def test_with_positive_hints_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hint: str) -> None:
    tried: list[str] = []
    monkeypatch.setattr(syscall_programs, "_is_refused", tried.append)
    assert syscall_programs.can_run_32_bit()
    assert not tried
    # The parameter is given: an empty text is in any line.
    monkeypatch.setattr(syscall_programs, hint, str(tmp_path / "nothing") if hint == "_SYSCTL" else b"")
    syscall_programs.can_run_32_bit.cache_clear()
    syscall_programs.can_run_32_bit()
    assert tried == ["x86_64"]
