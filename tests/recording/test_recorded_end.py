"""Who was traced, from when, to when: one record in the file, and one reading of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.cli.main import run
from kubectl_gadget.errors import UsageError
from kubectl_gadget.recording.reader import RecordingReader
from kubectl_gadget.recording.recorded_run import JobEnd, RecordedEnd, recorded_end
from kubectl_gadget.recording.writer import RecordingWriter
from kubectl_gadget.run.coverage import Cause, Coverage, NodeCoverage
from tests.recording.files import SECOND
from tests.rows.records import OPEN

META = {
    "version": "1",
    "command": ["trace", "open"],
    "gadgets": [{"name": OPEN.name, "parameters": {}, "description": OPEN.to_json()}],
    "interval": 1,
}
FINE = NodeCoverage(name="node-1", attached_ns=102 * SECOND, until_ns=110 * SECOND)
NEVER = NodeCoverage(name="node-2", cause=Cause.STARTING, why="its agent is starting, and the run ended")
COVERAGE = Coverage(
    began_ns=100 * SECOND, complete_ns=102 * SECOND, ended_ns=110 * SECOND, nodes=(FINE, NEVER), gadgets=(OPEN.name,)
)


def recorded(path: Path, end: dict[str, Any], coverage: Coverage | None) -> Path:
    writer = RecordingWriter(path, META, print)
    writer.step(0, 90 * SECOND, [])
    writer.step(1, 120 * SECOND, [])
    assert writer.close(end, None if coverage is None else coverage.to_json())
    return path


def end_of(path: Path) -> RecordedEnd:
    with RecordingReader(path) as reader:
        return recorded_end(reader)


def test_the_times_of_a_recording_are_those_of_its_coverage(tmp_path: Path) -> None:
    end = end_of(recorded(tmp_path / "r.kgr", {"seconds": 31.0}, COVERAGE))

    assert (end.coverage, end.began_ns, end.seconds) == (COVERAGE, 102 * SECOND, 8.0)


def test_a_job_began_with_its_command_and_ended_with_it(tmp_path: Path) -> None:
    job = JobEnd(began_ns=104 * SECOND, elapsed_ns=3 * SECOND)

    end = end_of(recorded(tmp_path / "r.kgr", {"seconds": 31.0, "job": job.to_json()}, COVERAGE))

    assert (end.job, end.began_ns, end.seconds) == (job, 104 * SECOND, 3.0)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ({"seconds": 8.0}, "an earlier version recorded it"),
        ({"continues": True}, "the run went on after this file"),
        ({"kept": "a row matched"}, "the run went on after this file"),
    ],
)
def test_a_recording_without_coverage_is_read_and_says_so(
    end: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path / "r.kgr", end, None)

    assert end_of(path).why_none == why
    run(["recording", "info", str(path)])
    assert f"missing  it is unknown who was traced when: {why}" in capsys.readouterr().out


def test_info_names_a_node_that_was_never_traced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(tmp_path / "r.kgr", {"seconds": 8.0}, COVERAGE)

    run(["recording", "info", str(path)])
    said = capsys.readouterr().out
    assert "missing  node-2 was not traced: its agent is starting, and the run ended" in said
    assert "when     1970-01-01 00:01:42 UTC, for 8.0 s" in said
    run(["recording", "info", str(path), "-o", "json"])
    found = json.loads(capsys.readouterr().out)
    assert Coverage.from_json(found["coverage"]) == COVERAGE
    assert found["traced_seconds"] == 8.0


def test_a_coverage_that_no_run_has_is_refused(tmp_path: Path) -> None:
    writer = RecordingWriter(tmp_path / "r.kgr", META, print)
    writer.step(0, 90 * SECOND, [])
    writer.close({}, {"ended_ns": -1})

    with pytest.raises(UsageError, match=r"how the run ended cannot be read: coverage: `ended_ns`"):
        end_of(tmp_path / "r.kgr")
