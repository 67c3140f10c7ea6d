"""What is refused before anything runs."""

from pathlib import Path

import pytest

from kubectl_gadget.ci import background
from kubectl_gadget.cli.main import run
from tests.ci.test_background import DONE, FIRST, finishes, stopped


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
