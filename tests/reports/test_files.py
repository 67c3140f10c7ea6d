"""Where reports are written, and what is refused before anything runs."""

import json
import os
from pathlib import Path

import pytest

from kubectl_gadget.behavior.baseline import baseline_text, parse_baseline, read_baseline
from kubectl_gadget.errors import UsageError
from kubectl_gadget.reports import files
from kubectl_gadget.reports.model import Activity
from tests.behavior.made import behavior, fact
from tests.reports.sample import report


@pytest.mark.parametrize("text", ["junit", "junit=", "xml=f", "markdown=", "record=-", ""])
def test_wrong_reports_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be one of|needs a file"):
        files.parse_wanted(text)


def test_markdown_alone_is_appended_to_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert files.write(report(checks=()), [files.parse_wanted("markdown")]) == []
    assert summary.read_text().startswith("before\n## ")


def test_a_summary_is_never_larger_than_github_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("x" * ((1 << 20) - 10))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    (failure,) = files.write(report(), [files.parse_wanted("markdown")])
    assert "1 MiB" in failure
    assert summary.stat().st_size == (1 << 20) - 10


def test_without_a_summary_markdown_goes_to_standard_output(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    files.write(report(), [files.parse_wanted("markdown")])
    assert capfdbinary.readouterr().out.startswith(b"## ")


def test_one_report_that_cannot_be_written_does_not_hide_the_others(tmp_path: Path) -> None:
    wanted = [files.Wanted("json", str(tmp_path)), files.Wanted("junit", str(tmp_path / "r.xml"))]
    (failure,) = files.write(report(), wanted)
    assert failure.startswith(f"--report json={tmp_path} was not written: Is a directory")
    assert (tmp_path / "r.xml").exists()


@pytest.mark.parametrize("is_read", [False, True])
def test_a_pipe_in_the_place_of_a_report_is_not_waited_for(
    is_read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK) if is_read else -1
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pipe))
    failures = files.write(report(checks=()), [files.Wanted("json", str(pipe)), files.Wanted("markdown", "")])
    if is_read:
        os.close(reader)
    wanted = [files.Wanted("attestation", str(tmp_path / "a"))]
    (of_subject,) = files.write(report(checks=()), wanted, [str(pipe)])
    assert "it is not a regular file" in of_subject
    assert len(failures) == 2
    assert all(("not a regular file" if is_read else "No such device") in failure for failure in failures)


def test_a_report_for_a_named_stream_is_written(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    assert files.write(report(checks=(), activity=Activity()), [files.Wanted("json", f"/dev/fd/{writer}")]) == []
    os.close(writer)
    with os.fdopen(reader) as stream:
        assert '"verdict"' in stream.read()


@pytest.mark.parametrize("kind", ["json", "sarif", "attestation", "baseline"])
def test_reports_for_programs_have_no_commands_to_runners(kind: str, tmp_path: Path) -> None:
    subject = f"image@sha256:{'0' * 64}"
    behaves = behavior(fact("program", "/##[error]x", "###vso[y]"))
    hostile = report(baseline=baseline_text(behaves))
    file = tmp_path / "r"
    assert files.write(hostile, [files.Wanted(kind, str(file))], [subject]) == []
    text = file.read_text()
    assert "##" not in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    if kind == "baseline":
        assert read_baseline(file).behavior.facts == parse_baseline("b", hostile.baseline).behavior.facts
    else:
        assert "##[error]" in json.dumps(json.loads(text))


def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its folder does not exist"):
        files.check([files.Wanted("json", str(tmp_path / "no" / "r.json"))], ())
    with pytest.raises(UsageError, match="an attestation needs a subject"):
        files.check([files.Wanted("attestation", "-")], ())
    with pytest.raises(UsageError, match="--subject is only for"):
        files.check([], ("built",))
