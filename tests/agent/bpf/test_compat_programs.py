"""Whether a node can run 32-bit programs: hints, and what the kernel answers. tests/vm has a kernel that cannot."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import compat_programs
from tests.bpf import compat, deeds


@pytest.fixture(autouse=True)
def _asked_again() -> Iterator[None]:
    compat_programs.can_run.cache_clear()
    yield
    compat_programs.can_run.cache_clear()


def test_an_attempt_overrides_hints_that_say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a kernel that ignores the boot parameter because it is older."""
    compat.needs()
    monkeypatch.setattr(compat_programs, "_probably_can", lambda: False)
    assert compat_programs.can_run()


def test_a_kernel_that_does_not_know_the_format_cannot_run_32_bit_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat_programs, "_probably_can", lambda: False)
    monkeypatch.setattr(compat_programs, "_program", lambda *_: b"\x7fELF\x01 of no machine")
    assert not compat_programs.can_run()


def test_if_the_attempt_is_impossible_the_answer_is_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(compat_programs, "_probably_can", lambda: False)
    for name in ("posix_spawn", "memfd_create"):
        monkeypatch.setattr(os, name, refused)
        compat_programs.can_run.cache_clear()
        assert compat_programs.can_run()


@pytest.mark.skipif(not deeds.X86, reason="the hints are x86's")
@pytest.mark.parametrize("hint", ["_SYSCTL", "_SWITCH"])
def test_with_positive_hints_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hint: str) -> None:
    tried: list[str] = []
    monkeypatch.setattr(compat_programs, "_is_refused", tried.append)
    assert compat_programs.can_run()
    assert not tried
    # The parameter is given: an empty text is in any line.
    monkeypatch.setattr(compat_programs, hint, str(tmp_path / "nothing") if hint == "_SYSCTL" else b"")
    compat_programs.can_run.cache_clear()
    compat_programs.can_run()
    assert tried == ["x86_64"]
