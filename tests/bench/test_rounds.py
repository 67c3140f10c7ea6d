"""What a benchmark says of the machine that it ran on."""

from typing import Any

import pytest

from bench import rounds


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """What bpftool shows, to be changed."""
    found: dict[str, list[dict[str, Any]]] = {"link": [], "perf": [], "prog": [{"id": 1}]}
    monkeypatch.setattr(rounds.os, "geteuid", lambda: 0)
    monkeypatch.setattr(rounds.shutil, "which", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(rounds, "_shown", found.__getitem__)
    return found


def test_programs_at_all_system_calls_are_named(shown: dict[str, list[dict[str, Any]]]) -> None:
    assert rounds.attached_bpf() == "0 attached, none at all system calls; 1 loaded"
    shown["link"] = [
        {"type": "raw_tracepoint", "tp_name": "sys_exit"},
        {"type": "raw_tracepoint", "tp_name": "cgroup_mkdir"},
        {"type": "perf_event", "tracepoint": "sys_enter_openat"},
        {"type": "iter"},
    ]
    shown["perf"] = [{"pid": 7, "tracepoint": "sys_exit"}]
    assert rounds.attached_bpf() == "5 attached, 1 at sys_enter_openat, 2 at sys_exit; 1 loaded"


def test_a_change_while_it_measured_is_reported_at_the_end(
    shown: dict[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    machine = rounds.describe_machine()
    rounds.write_json(None, machine, {})
    assert capsys.readouterr().err == ""
    shown["link"] = [{"type": "raw_tracepoint", "tp_name": "sys_enter"}]
    rounds.write_json(None, machine, {})
    assert "and at the end: 1 attached, 1 at sys_enter; 1 loaded" in capsys.readouterr().err
