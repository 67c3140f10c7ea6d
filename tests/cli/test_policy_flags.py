"""Policies of a replay: those of the recorded run, and a way out for any others."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.run_options import GadgetRun, RunOptions

pytestmark = pytest.mark.usefixtures("built_in")
POLICY = """apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: %s}
spec: {kprobes: [{call: sys_openat, syscall: true}]}
"""


def recorded(path: Path, *policies: str) -> str:
    """Writes a recording of a run with these policies, in which nothing happened."""
    options = RunOptions((GadgetRun(load_gadget("trace_process")),), local=True)
    chosen = {"enforce": False, "allow_weaker": False, "reaction": "", "calls_out": True}
    texts = [(f"{name}.yaml", POLICY % name) for name in policies]
    origin = {"policies": {"texts": texts, "namespace": "", "options": chosen} if policies else None}
    writer = RecordingWriter(path, meta_of(options) | origin, print)
    writer.step(1, 2, [])
    writer.close({"seconds": 1.0, "nodes": {}})
    return str(path)


@pytest.mark.parametrize(
    ("in_force", "chosen", "said"),
    [
        ((), "a", "has no events of a: its run had no policies"),
        (("b",), "a", "has no events of a: its run had other policies"),
        (("a", "b"), "a", "try: --policy-names a, without -f"),
    ],
)
@pytest.mark.parametrize("command", [("replay", "FILE", "observe"), ("ci", "judge", "FILE")])
def test_policies_that_the_run_did_not_have_are_refused(
    in_force: Sequence[str],
    chosen: str,
    said: str,
    command: Sequence[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, policy = recorded(tmp_path / "a.kgr", *in_force), tmp_path / "policy.yaml"
    policy.write_text(POLICY % chosen)
    assert main.run([*(word.replace("FILE", file) for word in command), "-f", str(policy)]) == 2
    assert said in (errors := capsys.readouterr().err)
    assert "try: " in errors


def test_the_policies_of_the_run_can_be_named_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, policy = recorded(tmp_path / "a.kgr", "a"), tmp_path / "policy.yaml"
    policy.write_text(POLICY % "a")
    assert main.run(["replay", file, "observe", "-f", str(policy)]) == 0


def test_recordings_of_different_policies_are_not_replayed_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if only one has policies: the other one cannot show that nothing matched."""
    files = [recorded(tmp_path / "a.kgr", "a"), recorded(tmp_path / "b.kgr")]
    assert main.run(["replay", *files, "observe"]) == 2
    assert "were recorded with different policies\ntry: replay one at a time" in capsys.readouterr().err
