"""Where reports are written, and what is refused before anything runs."""

from pathlib import Path

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.findings.reports import files
from tests.findings.sample import report


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


def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its folder does not exist"):
        files.check([files.Wanted("json", str(tmp_path / "no" / "r.json"))], ())
    with pytest.raises(UsageError, match="an attestation is about something"):
        files.check([files.Wanted("attestation", "-")], ())
    with pytest.raises(UsageError, match="--subject is only for"):
        files.check([], ("built",))
