"""The words of `replay` and `recording`: files, the command after them, and what is refused there."""

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from kubectl_gadget.cli import main
from kubectl_gadget.cli.complete import FILES, complete
from kubectl_gadget.flows.run import FlowGadgets
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.reader import RecordedIntake, RecordingReader
from kubectl_gadget.recording.recorded_frames import DETACHED, RecordedFrames, Span
from kubectl_gadget.recording.recorder import meta_of
from kubectl_gadget.recording.segments import RecordedFrame, Segment, TakenStep
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.run_options import GadgetRun, RunOptions
from tests.gadget_run import GADGET
from tests.recording.files import TRACED

pytestmark = pytest.mark.usefixtures("built_in")


@pytest.fixture
def file(tmp_path: Path, built_in: object) -> str:
    """A recording of `trace open` in which nothing happened."""
    path = tmp_path / "run.kgr"
    writer = RecordingWriter(path, meta_of(RunOptions((GadgetRun(load_gadget("trace_open")),), local=True)), print)
    writer.step(1, 2, [])
    writer.close({"seconds": 1.0, "nodes": {}}, TRACED)
    return str(path)


@pytest.mark.parametrize(
    "words", [(), ("-o", "json"), ("trace", "open"), ("--speed", "10"), ("--since=5m", "-n", "web")]
)
def test_a_recording_is_shown_by_its_own_command_or_another(file: str, words: Sequence[str]) -> None:
    assert main.run(["replay", file, *words]) == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("trace", "exec"), "the recording has no events of trace exec"),
        (("trace", "open", "--write"), "was recorded with another value of --write"),
        (("trace", "open", "-l", "app=web"), "--selector has no effect on a replay"),
        (("trace", "open", "deploy/web"), "deployment/web: a recording does not say which pods belong to it"),
        (("trace", "open", "--record", "x"), "--record cannot be used in a replay"),
        (("advise", "apparmor", "--from", "x"), "--from cannot be used in a replay"),
        (("advise", "capabilities", "--from", "x"), "--from cannot be used in a replay"),
        (("--since", "yesterday"), "neither a duration"),
        (("--speed", "0"), "above 0"),
        (("trace", "open", "--ring-size", "8Mi"), "has no effect on a replay"),
        (("flows",), "the recording has no events"),
        (("ci", "run", "--", "true"), "kubectl gadget ci cannot be replayed"),  # it would trace this machine
        (("bcc", "execsnoop"), "kubectl gadget bcc cannot be replayed"),
        (("--step", "test"), "--step: there is no step 'test'"),
    ],
)
def test_what_a_recording_cannot_say_is_refused(
    file: str, words: Sequence[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["replay", file, *words]) != 0
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("advisor", ["apparmor", "tracingpolicy"])
def test_advice_from_a_recording_needs_no_cluster_and_refuses_workloads(
    advisor: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["advise", advisor, "deploy/web", "--from", file]) == 2
    assert "recordings have no pod labels or owners, so you cannot select by them" in capsys.readouterr().err
    assert main.run(["advise", advisor, "web", "--node", "a", "--from", file]) == 1
    assert "no container was watched" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + 400 * "0", "true", '"x"', "NaN"])
def test_numbers_that_no_run_has_do_not_break_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_in: object, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    end = '{"seconds": %s, "nodes": {"node-1": {"gaps": %s, "gap_seconds": %s, "stats": [5]}}}' % ((number,) * 3)
    written = layout.to_json
    monkeypatch.setattr(layout, "to_json", lambda value: end.encode() if "nodes" in value else written(value))
    path = tmp_path / "run.kgr"
    writer = RecordingWriter(path, meta_of(RunOptions((GadgetRun(load_gadget("trace_open")),), local=True)), print)
    writer.step(1, 2, [RecordedFrame("node-1", DETACHED, b"{}")])
    writer.close({"seconds": 1.0, "nodes": {}})
    assert main.run(["replay", str(path)]) == 0
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "internal error" not in said


def test_a_recording_without_an_end_is_incomplete(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with RecordingReader(Path(file)) as reader:
        meta, (header,) = reader.meta, reader.segments()
    assert main.run(["replay", file, "--strict"]) == 0
    segment = Segment(header.number, 2, layout.to_json(meta))
    segment.add(TakenStep(1, 2, []))
    Path(file).write_bytes(layout.file_header() + segment.pack().data)
    assert main.run(["replay", file, "--strict"]) == 1
    assert "its end is missing" in capsys.readouterr().err
    end = Segment(header.number + 1, 3)
    end.end({"continues": True})
    Path(file).write_bytes(layout.file_header() + segment.pack().data + end.pack().data)
    after = Segment(header.number + 2, 4, layout.to_json(meta))
    after.add(TakenStep(3, 4, []))
    later = Path(file).with_name("later.kgr")
    later.write_bytes(layout.file_header() + after.pack().data)
    assert main.run(["replay", file, str(later), "--strict"]) == 1, "the end of an earlier file is not that of the run"
    assert "its end is missing" in capsys.readouterr().err


@pytest.mark.parametrize("run", [[1], {"a": 1}, 5, "x"])
def test_any_name_of_a_run_is_read(tmp_path: Path, built_in: object, run: object) -> None:
    options = RunOptions((GadgetRun(load_gadget("trace_open")),), local=True)
    writer = RecordingWriter(tmp_path / "a.kgr", meta_of(options) | {"run": run}, print)
    writer.step(1, 2, [])
    writer.close({"seconds": 1.0, "nodes": {}})
    assert main.run(["replay", str(tmp_path / "a.kgr")]) == 0


def test_a_wait_between_times_that_are_centuries_apart_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, waits = RecordedFrames([], Span(speed=1e-3)), list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            frames.stop()

    monkeypatch.setattr("kubectl_gadget.recording.recorded_frames.time.sleep", sleep)
    for wall_ns in (0, (1 << 63) - 1):
        frames._keep_pace(RecordedIntake(0, wall_ns, [], {}))
    assert len(waits) == 3
    assert max(waits) <= 1


def test_a_file_that_had_just_begun_does_not_prevent_a_replay_of_the_others(file: str, tmp_path: Path) -> None:
    for size in (0, 5, layout.FILE_BYTES):
        (tmp_path / f"{size}.kgr").write_bytes(layout.file_header()[:size])
        assert main.run(["replay", file, str(tmp_path / f"{size}.kgr"), "trace", "open"]) == 0
        assert main.run(["replay", str(tmp_path / f"{size}.kgr"), "trace", "open"]) == 2


def test_a_file_that_is_not_a_recording_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("hello")
    for words in (["replay", str(tmp_path / "x")], ["recording", "info", str(tmp_path / "x")]):
        assert main.run(words) != 0
        assert "not a recording" in capsys.readouterr().err


def test_info_says_what_is_in_it(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["recording", "info", file]) == 0
    text = capsys.readouterr().out
    assert "trace open" in text
    assert "missing  nothing" in text
    assert main.run(["recording", "info", file, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["whole"]


def test_files_and_then_commands_are_completed() -> None:
    assert complete(["replay", "/tm"])[1] == FILES
    assert [found.word for found in complete(["replay", "/tmp/a.kgr", "trace", "exe"])[0]] == ["exec"]


def test_a_page_of_recorded_flows_stays_until_it_is_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "run.kgr"
    writer = RecordingWriter(path, meta_of(RunOptions(FlowGadgets(processes=True).runs(), local=True)), print)
    writer.step(1, 2, [])
    writer.close({"seconds": 1.0, "nodes": {}})
    run = [*GADGET, "replay", str(path), "flows", "--web"]
    with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as page:
        assert page.stderr is not None
        said = ""
        while "press Ctrl-C to" not in said:
            line = page.stderr.readline()
            assert line, said
            said += line
        url = re.search(r"http://\S+", said)
        assert url is not None, said
        with urllib.request.urlopen(url[0], timeout=120) as answer:
            assert b"<html" in answer.read().lower()
        page.send_signal(signal.SIGINT)
        page.communicate(timeout=120)
    assert page.returncode == 0


def test_recordings_of_which_all_are_empty_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.kgr", tmp_path / "b.kgr"]
    for path in files:
        path.write_bytes(layout.file_header())
    sources = [word for path in files for word in ("--from", str(path))]
    assert main.run(["behavior", "save", str(tmp_path / "x.yaml"), *sources]) == 2
    assert f"{files[0]}: the file is cut short or damaged: no segment is complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["replay", "a.kgr", "--since"], "error: flag --since needs a value\n"),
        (["replay", "a.kgr", "trace", "open", "--speed"], "error: flag --speed needs a value\n"),
        (
            ["recording", "query", ".", "select 1", "--memory", "1Ki"],
            "error: --memory must be between",
        ),
        (
            ["recording", "query", ".", "select 1", "--memory", "99999999999Gi"],
            "error: --memory must be between",
        ),
    ],
)
def test_a_flag_without_a_value_or_beyond_its_limits_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main.run(words) == 2
    assert capsys.readouterr().err.startswith(message)
