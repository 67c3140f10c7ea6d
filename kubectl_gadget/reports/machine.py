"""Reports for programs: JSON, JUnit, SARIF, and an in-toto attestation.

JSON is also what `ci start` keeps for `ci stop`. Readers of JSON refuse lone surrogates, and XML 1.0 cannot hold most
control characters, not even escaped; so texts are made valid first.
"""

import hashlib
import json
import os
import stat
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets.typed import make
from kubectl_gadget.output.escape import for_log, for_xml
from kubectl_gadget.reports.model import (
    Activity,
    Check,
    FileUse,
    Finding,
    RemoteEnd,
    RunReport,
    SeenProcess,
    Severity,
    SourceLocation,
    Status,
    explained,
)
from kubectl_gadget.wording import count

JSON_SCHEMA = "kubectl-gadget-ci/v1"
"""Changes when a member changes its meaning or is removed."""


def render_json(report: RunReport) -> str:
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
            "schema": JSON_SCHEMA,
            "verdict": report.status,
            "summary": report.verdict(),
            "exit_code": report.exit_code,
            **{name: value for name, value in written.items() if name not in ("checks", "activity")},
            "checks": checks,
            "activity": _activity_json(report.activity),
        }
    )
    return found


def _activity_json(activity: Activity) -> dict[str, object]:
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


def parse_json(text: str) -> RunReport:
    """The report of `render`. Raises ValueError, LookupError or TypeError for another text."""
    found = json.loads(text)
    if found.pop("schema") != JSON_SCHEMA:
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


# JUnit XML: one testcase for each check, one for the command, and one for whether everything was seen. An inconclusive
# check is an `<error>`, a finding is a `<failure>`.

_SUITE = "kubectl gadget"
_MOST_LINES = 50
_LONGEST = 1000


def render_junit(report: RunReport) -> str:
    suite = ET.Element("testsuite", name=_SUITE, timestamp=report.began[:19], time=f"{report.seconds:.3f}")
    if report.command_code is not None:
        command = " ".join(report.command)
        case = _case(suite, "command", command, report.seconds)
        if report.command_code:
            _outcome(case, "failure", "command", f"exit code {report.command_code}", [command])
    case = _case(suite, "tracing", "everything was seen")
    if report.incomplete:
        _outcome(case, "error", "inconclusive", report.incomplete[0], report.incomplete)
    for check in report.checks:
        _add_check(suite, check)
    counts = {
        "tests": len(suite),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": 0,
    }
    suites = ET.Element("testsuites", name=_SUITE, time=f"{report.seconds:.3f}")
    for element in (suite, suites):
        element.attrib.update({name: str(number) for name, number in counts.items()})
    suites.append(suite)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _case(suite: ET.Element, kind: str, name: str, seconds: float = 0) -> ET.Element:
    attributes = {"classname": f"{_SUITE}.{kind}", "name": for_xml(name, _LONGEST), "time": f"{seconds:.3f}"}
    return ET.SubElement(suite, "testcase", attributes)


def _outcome(case: ET.Element, tag: str, type: str, message: str, lines: Iterable[str]) -> None:
    element = ET.SubElement(case, tag, message=for_xml(message, _LONGEST), type=type)
    element.text = _text(lines)


def _text(lines: Iterable[str]) -> str:
    # A line that a program chose must not begin with what a runner takes as its command.
    return "\n".join(f"- {for_xml(line, _LONGEST)}" for line in lines)


def _add_check(suite: ET.Element, check: Check) -> None:
    case = _case(suite, check.kind, check.name)
    if check.source is not None:
        case.set("file", for_xml(check.source.file))
        case.set("line", str(check.source.line))
    errors = check.failures
    others = [finding for finding in check.findings if not finding.level.reaches(check.fails_at)]
    if errors:
        said = errors[0].message if len(errors) == 1 else f"{count(len(errors), 'finding')}; {errors[0].message}"
        _outcome(case, "failure", check.kind, said, _texts(errors))
    elif check.status is Status.INCONCLUSIVE:
        _outcome(case, "error", "inconclusive", check.undecided, [check.undecided])
    if others or check.left_out:
        ET.SubElement(case, "system-out").text = _text(_texts(others, check.left_out))


def _texts(findings: list[Finding], left_out: int = 0) -> Iterator[str]:
    for finding in findings[:_MOST_LINES]:
        step = f", in step {finding.step!r}" if finding.step else ""
        source = f" [{finding.source}]" if finding.source else ""
        yield f"{finding.level}: {finding.text} ({finding.count:,}×{step}){source}"
        yield from (f"  {name}: {text}" for name, text in explained(finding))
    if more := max(0, len(findings) - _MOST_LINES) + left_out:
        yield f"and {more:,} more"


# SARIF 2.1.0, as GitHub's code scanning loads it: paths relative to the repository, stable fingerprints, capped.

_SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"
_NO_FILE = "kubectl-gadget-ci"
"""where a finding without a file points to, since code scanning refuses it otherwise; it need not exist"""
_MOST_RESULTS = 5000
"""results that code scanning shows of one run"""
_FINGERPRINT = "kubectlGadget/v1"


def render_sarif(report: RunReport, environment: Mapping[str, str] = os.environ) -> str:
    root = Path(environment.get("GITHUB_WORKSPACE") or environment.get("CI_PROJECT_DIR") or Path.cwd()).absolute()
    results = [_result(finding, root) for finding in report.findings[:_MOST_RESULTS]]
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
            "leftOut": report.left_out + max(0, len(report.findings) - _MOST_RESULTS),
        },
    }
    return json.dumps(valid({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}), indent=1) + "\n"


def _rule(check: Check) -> dict[str, object]:
    text = for_log(check.description or check.name)
    return {
        "id": for_log(check.rule),
        "name": for_log(check.name),
        "shortDescription": {"text": text},
        "fullDescription": {"text": text},
        "properties": {"tags": ["runtime", check.kind]},
    }


def _invocation(report: RunReport) -> dict[str, object]:
    found: dict[str, object] = {
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


def _result(finding: Finding, root: Path) -> dict[str, object]:
    found: dict[str, Any] = {
        "ruleId": for_log(finding.rule),
        "level": "error" if finding.level is Severity.CRITICAL else finding.level,
        # In a message of SARIF, [text](1) is a link.
        "message": {"text": for_log(finding.text).replace("[", "\\[").replace("]", "\\]")},
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
    if (explanation := finding.explanation) is not None:
        said = "\n".join(f"{name}: {for_log(text)}" for name, text in explained(finding))
        found["message"]["text"] += "\n" + said.replace("[", "\\[").replace("]", "\\]")
        found["properties"] |= {"severity": finding.level, "confidence": explanation.confidence, "id": finding.id}
        found["rank"] = {"proven": 100.0, "likely": 60.0}.get(explanation.confidence, 30.0)
    if where := str(finding.where):
        found["locations"][0]["logicalLocations"] = [{"fullyQualifiedName": for_log(where), "kind": "resource"}]
    return found


def _location(source: SourceLocation | None, root: Path) -> dict[str, object]:
    if source is None:
        return {"artifactLocation": {"uri": _NO_FILE, "uriBaseId": _ROOT}, "region": {"startLine": 1}}
    region = {"startLine": max(source.line, 1)} | ({"startColumn": source.column} if source.column else {})
    name = source.relative_to(root)
    # As file names are written: bytes that are not UTF-8 keep their value.
    uri = quote(name.encode("utf-8", "surrogatepass"))
    if name.startswith("/"):
        return {"artifactLocation": {"uri": f"file://{uri}"}, "region": region}
    return {"artifactLocation": {"uri": uri, "uriBaseId": _ROOT}, "region": region}


# An in-toto Statement with the predicate runtime-trace (v0.2): processes, network and files of a run, unsigned. eBPF
# sees a file when it is opened and cannot stop the program to hash it, so files have no digests. What was lost is part
# of the predicate: a verifier must not take an incomplete trace for a complete one.

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://in-toto.io/attestation/runtime-trace/v0.2"
_MONITOR = "https://github.com/kubectl-gadget/kubectl-gadget/ci"
_EXTENSION = "kubectlGadget"
_DIGEST = "sha256"


def render_attestation(report: RunReport, subjects: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
    """The statement about these subjects: files, or NAME@sha256:DIGEST. Raises UsageError when one cannot be read."""
    host, type, event = _job(environment, report)
    statement = {
        "_type": _STATEMENT,
        "subject": [subject_of(text) for text in subjects],
        "predicateType": _PREDICATE,
        "predicate": {
            "monitor": {
                "type": f"{_MONITOR}/v{report.version}",
                "tracePolicy": {"gadgets": list(report.gadgets), "checks": [check.rule for check in report.checks]},
            },
            "monitoredProcess": {"hostID": host, "type": type, "event": event},
            "monitorLog": _monitor_log(report.activity),
            "metadata": {"buildStartedOn": report.began},
            _EXTENSION: {
                "command": list(report.command),
                "commandExitCode": report.command_code,
                "verdict": report.status,
                "complete": not report.incomplete,
                "missing": list(report.incomplete),
                "lost": dict(report.lost),
                "notListed": dict(report.activity.not_listed),
                "steps": [{"name": step.name, "time": step.time} for step in report.steps],
            },
        },
    }
    return json.dumps(valid(statement), indent=1) + "\n"


def subject_of(text: str) -> dict[str, object]:
    """A file, whose digest is taken now, or NAME@sha256:DIGEST. Raises UsageError."""
    name, _, digest = text.rpartition(f"@{_DIGEST}:")
    if name and len(digest) == 64 and not set(digest) - set("0123456789abcdef"):
        return {"name": name, "digest": {_DIGEST: digest}}
    try:
        with os.fdopen(open_regular(text, os.O_RDONLY), "rb") as file:
            return {"name": text, "digest": {_DIGEST: hashlib.file_digest(file, _DIGEST).hexdigest()}}
    except (OSError, GadgetError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--subject {text}: {why}", "a file that COMMAND makes, or NAME@sha256:…") from None


def open_regular(path: str, flags: int) -> int:
    """Return the descriptor of a regular file, which is created where `flags` say so.

    COMMAND may have left a pipe in its place, which would block until its other end is opened. Raises OSError, or
    GadgetError for anything else than a file.
    """
    # Windows has neither of these flags.
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise GadgetError("it is not a regular file")


def _job(environment: Mapping[str, str], report: RunReport) -> tuple[str, str, str]:
    """The platform, the type of job, and the job, as the platform names them."""
    if run := environment.get("GITHUB_RUN_ID"):
        server, repository = environment.get("GITHUB_SERVER_URL", ""), environment.get("GITHUB_REPOSITORY", "")
        attempt = environment.get("GITHUB_RUN_ATTEMPT", "1")
        event = f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}"
        return server, "https://actions.github.io/buildtypes/workflow/v1", event
    if job := environment.get("CI_JOB_URL"):
        return environment.get("CI_SERVER_URL", ""), "https://docs.gitlab.com/ci/jobs", job
    if job := environment.get("BUILD_URL"):
        return environment.get("JENKINS_URL", ""), "https://www.jenkins.io/doc/book/pipeline", job
    return f"urn:hostname:{report.nodes[0] if report.nodes else 'unknown'}", _MONITOR, " ".join(report.command)


def _monitor_log(activity: Activity) -> dict[str, object]:
    return {
        "process": [
            {
                "eventType": "process",
                "processBinary": process.program,
                "arguments": list(process.arguments),
                "id": process.id,
                "parent": process.parent,
                "startedOn": process.started,
                **({"container": process.container} if process.container else {}),
                **({"ended": process.ended} if process.ended else {}),
            }
            for process in activity.processes.values()
        ],
        "network": [
            {
                "ip": peer.address,
                **({"hostname": peer.name} if peer.name else {}),
                **({"port": peer.port} if peer.port else {}),
                "protocol": peer.protocol,
                "operation": peer.operation,
                "invokingProcess": {"program": peer.program},
                "count": number,
            }
            for peer, number in activity.peers.items()
        ]
        + [{"hostname": name, "operation": "resolve", "count": number} for name, number in activity.names.items()],
        "fileAccess": [
            {"name": use.path, "annotations": {"access": use.access, "error": use.error, "count": number}}
            for use, number in activity.files.items()
        ],
    }
