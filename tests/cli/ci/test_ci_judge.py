"""`ci judge` of recordings in which nothing happened: what they cannot answer is never green."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.run_options import GadgetRun, RunOptions

pytestmark = pytest.mark.usefixtures("built_in")


def recorded(path: Path, gadgets: Sequence[str], **meta: Any) -> str:
    options = RunOptions(tuple(GadgetRun(load_gadget(name)) for name in gadgets), local=True)
    writer = RecordingWriter(path, meta_of(options) | meta, print)
    writer.step(1, 2, [])
    writer.close({"seconds": 1.0, "nodes": {}})
    return str(path)


def test_a_recording_of_sums_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded(tmp_path / "top.kgr", ["top_file"])
    assert main.run(["ci", "judge", file, "--fail-on", "pid == 1"]) == 2
    assert "ci judge needs a recording of trace, and this one is of top file" in capsys.readouterr().err


def test_what_one_of_several_recordings_does_not_have_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("assertions: [{name: none, what: exec, count: 0}]\n")
    assertions = ("--assert", str(tmp_path / "a.yaml"))
    both = recorded(tmp_path / "both.kgr", ["trace_open", "trace_exec"])
    one = recorded(tmp_path / "one.kgr", ["trace_open"])
    assert main.run(["ci", "judge", both, *assertions]) == 0
    assert main.run(["ci", "judge", both, one, *assertions]) == 5
    assert "one of the recordings has no events of trace exec" in capsys.readouterr().err


def test_a_time_that_no_calendar_has_is_no_error_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = recorded(tmp_path / "a.kgr", ["trace_open"], began_ns=10**40)
    assert main.run(["ci", "judge", file, "--fail-on", "pid == 1"]) == 0
    assert "internal error" not in capsys.readouterr().err
