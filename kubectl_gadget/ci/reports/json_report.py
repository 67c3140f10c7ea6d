"""The report as JSON, and back: what `ci start` keeps for `ci stop`, and what programs read.

The trap: JSON has no bytes that are not UTF-8, and readers refuse lone surrogates, so texts are made valid first.
"""

import json
from dataclasses import asdict, replace
from typing import Any

from kubectl_gadget.ci.activity import Activity, FileUse, RemoteEnd, SeenProcess
from kubectl_gadget.ci.finding import RunReport
from kubectl_gadget.gadgets.typed import make

SCHEMA = "kubectl-gadget-ci/v1"
"""Changes when a member changes its meaning or is removed."""


def render(report: RunReport) -> str:
    return json.dumps(to_json(report), indent=1) + "\n"


def to_json(report: RunReport) -> dict[str, Any]:
    """The report in JSON's types. `verdict` and `fingerprint` are for readers and are not read back."""
    written = asdict(replace(report, checks=(), activity=Activity()))
    checks = [
        {
            **{name: value for name, value in asdict(check).items() if name != "findings"},
            "status": check.status,
            "findings": [{**asdict(each), "fingerprint": each.fingerprint} for each in check.findings],
        }
        for check in report.checks
    ]
    found: dict[str, Any] = valid(
        {
            "schema": SCHEMA,
            "verdict": report.status,
            "summary": report.verdict(),
            "exit_code": report.exit_code,
            **{name: value for name, value in written.items() if name not in ("checks", "activity")},
            "checks": checks,
            "activity": _activity(report.activity),
        }
    )
    return found


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
    activity = _read_activity(found.pop("activity"))
    for check in found["checks"]:
        del check["status"]
        for finding in check["findings"]:
            del finding["fingerprint"]
    known = {name: value for name, value in found.items() if name not in ("verdict", "summary", "exit_code")}
    return replace(make(RunReport, known), activity=activity)


def _read_activity(found: dict[str, Any]) -> Activity:
    activity = Activity()
    for process in found["processes"]:
        activity.add_process(make(SeenProcess, process))
    for peer in found["peers"]:
        number = peer.pop("count")
        activity.peers[make(RemoteEnd, peer)] = number
    for use in found["files"]:
        number = use.pop("count")
        activity.files[make(FileUse, use)] = number
    activity.names.update(found["names"])
    activity.not_listed.update(found["not_listed"])
    return activity
