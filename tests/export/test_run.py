"""The flags of an export, and what a run and a replay export."""

import json
from pathlib import Path

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.cli.values import export_tls, exports
from kubectl_gadget.errors import UsageError
from kubectl_gadget.export.targets import target
from tests.export.receivers import unused_port
from tests.page.made import recording


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jsonl", "the destination is missing: jsonl=FILE"),
        ("kafka=x", "a KIND of prometheus, otlp, jsonl"),
        ("jsonl=http://x:1", "must begin with tcp:// or unix://"),
        ("jsonl=tcp://x", "the port is missing"),
        ("jsonl=/no/such/folder/x", "there is no folder /no/such/folder"),
        ("syslog=tcp://:1", "the host is missing"),
        ("syslog=tcp://me:secret@x:1", "must not have a password"),
        ("syslog=tcp://x:1/path", "with nothing after it"),
        ("syslog=tcp://x:99999", "Port out of range"),
        ("syslog=tcp://x:", ""),
    ],
)
def test_a_wrong_target_is_an_error_that_says_what_is_right(text: str, words: str) -> None:
    if not words:
        assert target(text).port == 601
        return
    with pytest.raises(ValueError, match=r".") as error:
        exports([text])
    assert words in str(error.value)


def test_the_files_of_tls_must_exist_and_be_complete(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert export_tls(f"ca={tmp_path}/x") == f"ca={tmp_path}/x"
    for text, words in ((f"cert={tmp_path}/x", "given together"), ("ca=/nope", "no file /nope"), ("x=y", "must be")):
        with pytest.raises(ValueError, match=words):
            export_tls(text)


@pytest.fixture(scope="module", name="recorded")
def a_recording(tmp_path_factory: pytest.TempPathFactory, catalogue_built: Path) -> str:
    assert catalogue_built
    return str(recording(tmp_path_factory.mktemp("recording") / "shop.kgr"))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main.run(list(words))
    except UsageError as error:
        return 2, "", str(error)
    output = capsys.readouterr()
    return code, output.out, output.err


def test_a_replay_exports_the_rows_that_it_shows_with_their_times(
    recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    code, shown, said = run(
        capsys, "replay", recorded, "trace", "open", "-o", "json", "--max-events", "5", "--export", f"jsonl={path}"
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert code == 0
    assert len(rows) == 5
    assert rows == [{"event": "open", **json.loads(line)} for line in shown.splitlines()]
    assert rows[0]["timestamp"].startswith("2026-09-")
    assert f"export jsonl={path}: 5 rows delivered" in said


def test_flows_and_stories_are_exported_as_they_are_shown(
    recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "flows.jsonl"
    code, shown, _ = run(capsys, "replay", recorded, "flows", "-o", "json", "--export", f"jsonl={path}")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert code == 0
    assert [{"event": "flows", **json.loads(line)} for line in shown.splitlines()] == rows
    path = tmp_path / "story.jsonl"
    assert run(capsys, "replay", recorded, "observe", "--export", f"jsonl={path}")[0] == 0
    story = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["event"] for row in story} == {"process_exec", "process_exit"}
    assert len(story) == 5


def test_standard_output_has_lines_alone(recorded: str, capfd: pytest.CaptureFixture[str]) -> None:
    _, shown, _ = run(capfd, "replay", recorded, "trace", "open", "--export", "jsonl=-")
    assert [json.loads(line)["event"] for line in shown.splitlines()] == ["open"] * 42
    code, _, said = run(capfd, "replay", recorded, "trace", "open", "--export", "jsonl=-", "-o", "json")
    assert code == 2
    assert "one of the two" in said


def test_what_was_not_delivered_is_said_and_strict_makes_it_an_error(
    recorded: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kubectl_gadget.export.delivery.CLOSE_SECONDS", 0.1)
    place = f"jsonl=tcp://127.0.0.1:{unused_port()}"
    for flags, wanted in ((["--quiet"], 0), (["--quiet", "--strict"], 1)):
        code, shown, said = run(capsys, "replay", recorded, "trace", "open", "--export", place, *flags)
        assert shown.count("\n") > 40, "the replay itself shows all"
        assert f"export {place}: 42 rows not delivered" in said
        assert (code, "--strict" in said) == (wanted, bool(wanted)) or wanted
    assert code == 1


def test_a_file_that_cannot_be_written_ends_the_run_before_it_begins(
    recorded: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, said = run(capsys, "replay", recorded, "trace", "open", "--export", f"jsonl={tmp_path}")
    assert (code, shown) == (2, "")
    assert f"--export jsonl={tmp_path}: Is a directory" in said
    path = tmp_path / "none"
    run(capsys, "replay", recorded, "trace", "open", "--export", f"jsonl={path}", "--filter", "false")
    assert path.read_text() == ""
