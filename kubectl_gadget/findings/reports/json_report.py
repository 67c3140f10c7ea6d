"""The report as JSON, and back: what `ci start` keeps for `ci stop`, and what programs read.

The trap: JSON has no bytes that are not UTF-8, and readers refuse lone surrogates, so texts are made valid first.
"""

import json
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from kubectl_gadget.findings.activity import Activity, FileUse, RemoteEnd, SeenProcess
from kubectl_gadget.findings.finding import Check, Finding, JobStep, Level, RunReport, SourceLocation, Where

SCHEMA = "kubectl-gadget-ci/v1"
"""Changes when a member gets another meaning or goes away."""


def render(report: RunReport) -> str:
    return json.dumps(to_json(report), indent=1) + "\n"


def to_json(report: RunReport) -> dict[str, Any]:
    """The report in JSON's types. `verdict` and `fingerprint` are for readers and are not read back."""
    checks = [
        {
            **_plain(check, "findings"),
            "status": check.status,
            "findings": [{**_plain(each), "fingerprint": each.fingerprint} for each in check.findings],
        }
        for check in report.checks
    ]
    found: dict[str, Any] = valid(
        {
            "schema": SCHEMA,
            "verdict": report.status,
            "summary": report.verdict(),
            "exit_code": report.exit_code,
            **_plain(report, "checks", "activity"),
            "checks": checks,
            "activity": _activity(report.activity),
        }
    )
    return found


def _plain(record: Any, *left_out: str) -> dict[str, Any]:
    names = [each.name for each in fields(record) if each.name not in left_out]
    return {name: _value(getattr(record, name)) for name in names}


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(each) for each in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _activity(activity: Activity) -> dict[str, Any]:
    return {
        "processes": [asdict(process) for process in activity.processes.values()],
        "peers": [{**asdict(peer), "count": number} for peer, number in activity.peers.items()],
        "names": dict(activity.names),
        "files": [{**asdict(use), "count": number} for use, number in activity.files.items()],
        "not_listed": dict(activity.not_listed),
    }


def valid(value: Any) -> Any:
    """A value of JSON with all texts valid UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {valid(key): valid(item) for key, item in value.items()}
    return [valid(item) for item in value] if isinstance(value, list | tuple) else value


def parse(text: str) -> RunReport:
    """The report of `render`. Raises ValueError, LookupError or TypeError for another text."""
    found = json.loads(text)
    if found.pop("schema") != SCHEMA:
        raise ValueError("another version wrote it")
    checks = tuple(_check(check) for check in found.pop("checks"))
    activity = _read_activity(found.pop("activity"))
    steps = tuple(JobStep(**step) for step in found.pop("steps"))
    known = {name: value for name, value in found.items() if name not in ("verdict", "summary", "exit_code")}
    return RunReport(**_tuples(known), checks=checks, steps=steps, activity=activity)


def _tuples(found: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _source(found: dict[str, Any] | None) -> SourceLocation | None:
    return None if found is None else SourceLocation(**found)


def _check(found: dict[str, Any]) -> Check:
    del found["status"]
    findings = tuple(_finding(each) for each in found.pop("findings"))
    return Check(**found | {"source": _source(found["source"])}, findings=findings)


def _finding(found: dict[str, Any]) -> Finding:
    del found["fingerprint"]
    read = {"level": Level(found["level"]), "where": Where(**found["where"]), "source": _source(found["source"])}
    return Finding(**_tuples(found) | read)


def _read_activity(found: dict[str, Any]) -> Activity:
    activity = Activity()
    for process in found["processes"]:
        activity.add_process(SeenProcess(**_tuples(process)))
    for peer in found["peers"]:
        activity.peers[RemoteEnd(**{name: value for name, value in peer.items() if name != "count"})] = peer["count"]
    for use in found["files"]:
        activity.files[FileUse(**{name: value for name, value in use.items() if name != "count"})] = use["count"]
    activity.names.update(found["names"])
    activity.not_listed.update(found["not_listed"])
    return activity
