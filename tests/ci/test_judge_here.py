"""`ci judge`: a recording is judged as its run would have been, and what was not seen is never green."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ci.test_ci_here import POLICY, STEP, ci, gadget

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]
ASSERTIONS = """\
assertions:
  - {name: one in test, what: open, condition: path == 'the-secret', count: 1, step: test}
  - {name: no cat, what: fact program, condition: program.endsWith('/cat'), count: 0}
  - {name: nothing is denied, what: open, condition: error == 'EACCES', count: 0}
"""
CHECKS = ("--assert", "a.yaml", "--fail-on", 'path == "absent"', "--expect", 'comm == "cat"', "-f", "policy.yaml")


def judged(*words: str, folder: Path) -> dict[str, Any]:
    """The report of `ci judge`, whose exit code fits it."""
    ran = ci(*words, "--report", "json=judged.json", folder=folder, verb="judge")
    assert ran.returncode in (0, 4, 5), ran.stderr
    found: dict[str, Any] = json.loads((folder / "judged.json").read_text())
    assert found["exit_code"] == ran.returncode
    return found


def test_a_recording_is_judged_as_its_run_would_have_been(tmp_path: Path) -> None:
    """Policies that were not in force in the run are refused."""
    for name, text in (("a.yaml", ASSERTIONS), ("policy.yaml", POLICY), ("the-secret", "")):
        (tmp_path / name).write_text(text)
    script = f"cat the-secret absent; {STEP} test; cat the-secret"
    record = ("--facts", "--record", "r.kgr", "--report", "json=live.json", "--report", "baseline=live.yaml")
    ran = ci(*CHECKS, *record, "--", "sh", "-c", script, folder=tmp_path)
    assert ran.returncode == 4, ran.stderr
    live = json.loads((tmp_path / "live.json").read_text())
    again = judged("r.kgr", *CHECKS, "--report", "baseline=again.yaml", folder=tmp_path)
    assert {len(check["findings"]) for check in live["checks"]} == {0, 1}
    for member in ("verdict", "checks", "incomplete", "lost", "steps", "activity", "began", "nodes"):
        assert again[member] == live[member], member
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "live.yaml").read_text()
    gadget("behavior", "save", "saved.yaml", "--from", "r.kgr", folder=tmp_path)
    assert (tmp_path / "saved.yaml").read_text() == (tmp_path / "live.yaml").read_text()
    (tmp_path / "policy.yaml").write_text(POLICY.replace("no-secret", "other"))
    refused = ci("r.kgr", *CHECKS, folder=tmp_path, verb="judge")
    assert refused.returncode == 2
    assert "r.kgr has no events of other: its run had other policies" in refused.stderr


def test_what_the_run_did_not_see_is_not_green_later(tmp_path: Path) -> None:
    ran = ci("--record", "r.kgr", "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & :", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr  # nothing was checked
    found = judged("r.kgr", "--fail-on", 'path == "absent"', folder=tmp_path)
    assert (found["verdict"], found["exit_code"]) == ("inconclusive", 5)
    assert "still ran when the tracing ended" in found["incomplete"][0]


def test_a_recording_of_some_events_is_not_green(tmp_path: Path) -> None:
    words = ("--local", "--host", "--failed", "--record", "r.kgr", "--timeout", "1s", "-q")
    gadget("trace", "open", *words, folder=tmp_path)
    found = judged("r.kgr", "--expect", 'path == "never"', folder=tmp_path)
    assert "trace open was recorded with --failed" in found["incomplete"]  # others may have lost events, too
    (tmp_path / "a.yaml").write_text("assertions: [{name: no exec, what: exec, count: 0}]\n")
    refused = ci("r.kgr", "--assert", "a.yaml", folder=tmp_path, verb="judge")
    assert refused.returncode == 2
    assert "a.yaml:1: the recording has no events of trace exec" in refused.stderr
