"""SARIF 2.1.0, as GitHub's code scanning loads it: paths relative to the repository, stable fingerprints, capped.

The trap: code scanning refuses a result without a file, so a finding of an expression on the command line points to
`_NO_FILE`, which need not exist.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kubectl_gadget.ci.finding import Check, Finding, RunReport, SourceLocation, Status
from kubectl_gadget.ci.reports.json_report import valid
from kubectl_gadget.output.escape import for_log

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"
_NO_FILE = "kubectl-gadget-ci"
_MOST = 5000
"""results that code scanning shows of one run"""
_FINGERPRINT = "kubectlGadget/v1"


def render(report: RunReport, environment: Mapping[str, str] = os.environ) -> str:
    root = Path(environment.get("GITHUB_WORKSPACE") or environment.get("CI_PROJECT_DIR") or Path.cwd()).absolute()
    results = [_result(finding, root) for finding in report.findings[:_MOST]]
    run = {
        "tool": {
            "driver": {
                "name": "kubectl gadget",
                "semanticVersion": report.version,
                "version": report.version,
                "informationUri": "https://github.com/kubectl-gadget/kubectl-gadget",
                "rules": [_rule(check) for check in report.checks],
            }
        },
        "invocations": [_invocation(report)],
        "originalUriBaseIds": {_ROOT: {"uri": f"{root.as_uri()}/"}},
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {
            "verdict": report.status,
            "lost": dict(report.lost),
            "leftOut": report.left_out + max(0, len(report.findings) - _MOST),
        },
    }
    return json.dumps(valid({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}), indent=1) + "\n"


def _rule(check: Check) -> dict[str, Any]:
    text = for_log(check.description or check.name)
    return {
        "id": for_log(check.rule),
        "name": for_log(check.name),
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "properties": {"tags": ["runtime", check.kind]},
    }


def _invocation(report: RunReport) -> dict[str, Any]:
    found: dict[str, Any] = {
        "executionSuccessful": report.status is not Status.INCONCLUSIVE,
        "startTimeUtc": report.began,
        "toolExecutionNotifications": [
            {"level": level, "message": {"text": for_log(text)}}
            for level, texts in (("error", report.undecided), ("warning", report.warnings))
            for text in texts
        ],
    }
    if report.command:
        found["properties"] = {"command": [for_log(word) for word in report.command]}
    if report.command_code is not None:
        found["exitCode"] = report.exit_code
    return found


def _result(finding: Finding, root: Path) -> dict[str, Any]:
    where = str(finding.where)
    prefix = f"{where}: " if where else ""
    found: dict[str, Any] = {
        "ruleId": for_log(finding.rule),
        "level": finding.level,
        # In a message of SARIF, [text](1) is a link.
        "message": {"text": for_log(prefix + finding.message).replace("[", "\\[").replace("]", "\\]")},
        "locations": [{"physicalLocation": _location(finding.source, root)}],
        "partialFingerprints": {_FINGERPRINT: finding.fingerprint},
        "occurrenceCount": finding.count,
        "properties": {
            "firstSeen": finding.first_seen,
            "step": finding.step,
            "evidence": [dict(row) for row in finding.evidence],
            "lost": finding.lost,
        },
    }
    if where:
        found["locations"][0]["logicalLocations"] = [{"fullyQualifiedName": for_log(where), "kind": "resource"}]
    return found


def _location(source: SourceLocation | None, root: Path) -> dict[str, Any]:
    if source is None:
        return {"artifactLocation": {"uri": _NO_FILE, "uriBaseId": _ROOT}, "region": {"startLine": 1}}
    region = {"startLine": max(source.line, 1)} | ({"startColumn": source.column} if source.column else {})
    name = source.relative_to(root)
    # As file names are written: bytes that are not UTF-8 keep their value.
    uri = quote(name.encode("utf-8", "surrogatepass"))
    if name.startswith("/"):
        return {"artifactLocation": {"uri": f"file://{uri}"}, "region": region}
    return {"artifactLocation": {"uri": uri, "uriBaseId": _ROOT}, "region": region}
