"""What the agent says that a node can do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.kernel import features, refusal
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import Problem
from tests.gadget_run import PROJECT


def what(problems: list[Problem]) -> list[str]:
    return [problem.why for problem in problems]


def test_probe_prints_hello_as_json() -> None:
    command = [sys.executable, "-m", "kubectl_gadget.agent", "probe"]
    hello = json.loads(subprocess.run(command, cwd=PROJECT, capture_output=True, check=True).stdout)
    assert set(hello) >= {"agent", "node", "kernel", "can", "problems", "cgroup_root"}
    assert set(hello["can"]) == {"btf", "ring_buffer", "tracepoint", "kprobe", "uprobe", "fentry", "lsm"}


@pytest.mark.bpf
def test_this_kernel_supports_what_gadgets_need() -> None:
    can = features.can()
    assert can["btf"]
    assert can["ring_buffer"]
    assert can["tracepoint"]
    assert features.problems(can) == []


@pytest.mark.parametrize(("fentry", "lsm"), [(False, False), (True, True), (None, True)])
def test_no_program_is_a_security_module_without_trampolines(
    monkeypatch: pytest.MonkeyPatch, fentry: bool | None, lsm: bool
) -> None:
    monkeypatch.setattr(features, "_fentry", lambda: fentry)
    monkeypatch.setattr(features, "bpf_lsm", lambda: True)
    assert features.can()["lsm"] is lsm


@pytest.mark.parametrize(("names", "active"), [("capability,bpf\n", True), ("capability,yama", False), (None, None)])
def test_in_a_pod_of_an_old_kernel_the_nodes_own_files_name_the_security_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: str | None, active: bool | None
) -> None:
    if names is not None:
        (tmp_path / "lsm").write_text(names)
    # Linux 6.8 brought the call.
    monkeypatch.setattr(features, "_active_modules", lambda: None)
    monkeypatch.setattr(refusal, "SECURITYFS", (tmp_path / "not mounted", tmp_path))
    assert features.bpf_lsm() is active


def test_each_missing_feature_is_a_problem_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "missing_capabilities", lambda: ["BPF"])
    monkeypatch.setattr(features, "lockdown", lambda: "confidentiality")
    lacking = {"btf": False, "ring_buffer": False, "tracepoint": None}
    found = features.problems(lacking)
    assert len(found) == 4
    assert all(problem.what and problem.why and problem.try_ for problem in found)


def test_a_missing_libbpf_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise AgentError("libbpf.so.1 cannot be loaded: no such file", "install libbpf 1.x")

    monkeypatch.setattr(libbpf, "load", missing)
    monkeypatch.setattr(features, "missing_capabilities", list)
    assert any("libbpf.so.1" in why for why in what(features.problems(features.can())))


def test_a_libbpf_without_a_needed_function_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    with pytest.raises(AgentError, match="lacks a function"):
        libbpf.load.__wrapped__()
