"""Writes reports into files: --report KIND=FILE.

A report that cannot be written must not hide the others, nor the verdict; failures are reported at the end.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.reports import machine, readable
from kubectl_gadget.reports.machine import open_regular
from kubectl_gadget.reports.model import RunReport

STDOUT = "-"
RECORD = "record"
_SUMMARY = "GITHUB_STEP_SUMMARY"
_LARGEST_SUMMARY = 1 << 20
_RENDER: Mapping[str, Callable[[RunReport], str]] = {
    "junit": machine.render_junit,
    "sarif": machine.render_sarif,
    "markdown": readable.render_markdown,
    "json": machine.render_json,
}
_ATTESTATION = "attestation"
BASELINE = "baseline"
HTML = "html"
"""made by what knows pages"""
KINDS = (*_RENDER, HTML, BASELINE, _ATTESTATION, RECORD)
_QUOTED = ("json", "sarif", _ATTESTATION, BASELINE)
_STREAMS = re.compile(r"/dev/(stdout|stderr|null|fd/\d+)|/proc/self/fd/\d+")
"""Paths that need not be regular files"""


@dataclass(frozen=True)
class Wanted:
    """One report to write."""

    kind: str
    file: str
    """a path; `-` is standard output; empty: the summary of a GitHub job"""


def parse_wanted(text: str) -> Wanted:
    """Reads KIND=FILE, or `markdown` alone. Raises ValueError."""
    kind, equals, file = text.partition("=")
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}, followed by =FILE")
    if equals and file:
        if kind == RECORD and file == STDOUT:
            raise ValueError("a recording needs a file: record=run.kgr")
        return Wanted(kind, file)
    if kind != "markdown" or equals:
        raise ValueError(f"needs a file: {kind}=FILE")
    return Wanted(kind, "")


def check(wanted: Sequence[Wanted], subjects: Sequence[str]) -> None:
    """Raises UsageError for reports that cannot be written. Call it before anything runs."""
    attested = any(each.kind == _ATTESTATION for each in wanted)
    if attested and not subjects:
        raise UsageError("an attestation needs a subject", "--subject FILE, or --subject IMAGE@sha256:…")
    if subjects and not attested:
        raise UsageError("--subject is only for --report attestation=FILE")
    for each in wanted:
        if each.file not in ("", STDOUT) and not Path(each.file).absolute().parent.is_dir():
            raise UsageError(f"--report {each.kind}={each.file}: its folder does not exist")


def write(report: RunReport, wanted: Iterable[Wanted], subjects: Sequence[str] = (), page: str = "") -> list[str]:
    """Writes all reports (`page` is made already), and returns why some could not be written."""
    failures = []
    for each in wanted:
        try:
            if each.kind != RECORD:
                _write(page if each.kind == HTML else rendered(report, each.kind, subjects), each)
        except (OSError, GadgetError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            failures.append(f"--report {each.kind}={each.file} was not written: {why}")
    return failures


def rendered(report: RunReport, kind: str, subjects: Sequence[str] = ()) -> str:
    """Return the report of a kind, without what a runner would take for a command (`##[`) if it is printed."""
    if kind == BASELINE:
        text = report.baseline
        if not text:
            raise GadgetError("facts were not collected; try: kubectl gadget ci start --facts")
    else:
        text = machine.render_attestation(report, subjects) if kind == _ATTESTATION else _RENDER[kind](report)
    # In JSON and in a baseline, # is only in texts in double quotes, and after no backslash.
    return text.replace("##", "#\\u0023") if kind in _QUOTED else text


def _write(text: str, wanted: Wanted) -> None:
    data = text.encode("utf-8", "replace")
    summary = os.environ.get(_SUMMARY)
    if wanted.file == STDOUT or not (wanted.file or summary):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    if wanted.file:
        with _opened(wanted.file, os.O_TRUNC) as file:
            file.write(data)
        return
    with _opened(str(summary), os.O_APPEND) as file:
        if os.fstat(file.fileno()).st_size + len(data) > _LARGEST_SUMMARY:
            raise GadgetError("the summary of this step would be larger than 1 MiB, which GitHub refuses")
        file.write(data)


def written_to(path: str, data: bytes) -> None:
    """Write a file anew, or standard output for `-`. Raises UsageError."""
    if path == STDOUT:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        with _opened(path, os.O_TRUNC) as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None


def _opened(path: str, flags: int) -> BinaryIO:
    """Open a file, for writing."""
    flags |= os.O_WRONLY | os.O_CREAT
    return os.fdopen(os.open(path, flags) if _STREAMS.fullmatch(path) else open_regular(path, flags), "wb")
