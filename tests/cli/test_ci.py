"""Commands of `ci`: what they refuse, and judging recordings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.ci import background
from kubectl_gadget.cli import main
from kubectl_gadget.cli.main import run
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from tests.ci.test_background import DONE, FIRST, finishes, stopped
from tests.recording.files import TRACED


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "no command was given after --"),
        (["run", "make"], "no command was given after --"),
        (["run", "--report", "xml=f", "--", "true"], "must be one of junit"),
        (["run", "--report", "attestation=a", "--", "true"], "--subject FILE"),
        (["run", "--report", "record=a.kgr", "--record", "b.kgr", "--", "true"], "a run writes one recording"),
        (["run", "--fail-on-new", "connect", "--", "true"], "--fail-on-new needs a baseline"),
        (["run", "--baseline", "b", "--fail-on-new", "conect", "--", "true"], "did you mean connect?"),
        (["run", "--local", "--trace", "signl", "--", "true"], "no gadget is named trace signl"),
        (["run", "--run-as", "no-such-user", "--", "true"], "has no such user"),
        (["run", "--local", "--assert", "none.yaml", "--", "true"], "none.yaml: No such file or directory"),
        (["step"], "name exactly one step"),
        (["step", "a", "b"], "name exactly one step"),
        (["step", "a"], "no run of kubectl gadget ci answers"),
        (["stop"], "no run was started"),
        (["stop", "--report", "record=x"], "a recording has to be requested when the run starts"),
    ],
)
def test_refusals(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBECTL_GADGET_CI", raising=False)
    assert run(["ci", *words]) in (1, 2)
    assert said in capfd.readouterr().err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("program", ["no-such-program", "./no-such-program"])
def test_a_program_that_does_not_exist_is_reported_before_anything_is_attached(
    program: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it was forked")

    monkeypatch.setattr("kubectl_gadget.ci.command.Command", refuse)
    assert run(["ci", "run", "--local", "--", program]) == 127
    assert f"{program}: No such file or directory; nothing was traced" in capfd.readouterr().err


@pytest.mark.root
def test_a_user_that_is_not_known_does_not_cost_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "state"
    background.start(folder, finishes, FIRST)
    monkeypatch.setenv("SUDO_USER", "no-such-user")
    assert run(["ci", "stop", "--state", str(folder)]) == 2
    assert "SUDO_USER no-such-user: this machine has no such user" in capfd.readouterr().err
    assert stopped(folder).seconds == DONE.seconds


pytestmark = pytest.mark.usefixtures("built_in")


def recorded(path: Path, gadgets: Sequence[str], **meta: Any) -> str:
    options = RunOptions(tuple(GadgetRun(load_gadget(name)) for name in gadgets), local=True)
    writer = RecordingWriter(path, meta_of(options) | meta, print)
    writer.step(1, 2, [])
    writer.close({"seconds": 1.0, "nodes": {}}, TRACED)
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
