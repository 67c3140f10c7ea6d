"""An in-toto Statement with the predicate runtime-trace (v0.2): processes, network and files of a run, unsigned.

The trap: eBPF sees a file when it is opened and cannot stop the program to hash it, so files have no digests, and what
was lost is part of the predicate: a verifier must not take an incomplete trace for a complete one.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from kubectl_gadget.ci.activity import Activity
from kubectl_gadget.ci.finding import RunReport
from kubectl_gadget.ci.reports.json_report import valid
from kubectl_gadget.ci.reports.regular_file import open_regular
from kubectl_gadget.errors import GadgetError, UsageError

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://in-toto.io/attestation/runtime-trace/v0.2"
_MONITOR = "https://github.com/kubectl-gadget/kubectl-gadget/ci"
_EXTENSION = "kubectlGadget"
_DIGEST = "sha256"


def render(report: RunReport, subjects: Sequence[str], environment: Mapping[str, str] = os.environ) -> str:
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
            "monitorLog": _log(report.activity),
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


def subject_of(text: str) -> dict[str, Any]:
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


def _log(activity: Activity) -> dict[str, Any]:
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
