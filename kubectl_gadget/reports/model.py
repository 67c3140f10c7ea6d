"""Findings of a run, its checks, and the verdict: the one list that all reports are made of.

The trap: a fingerprint identifies a finding over runs, so it is made of `identity` alone, in which the names of pods,
numbers and temporary names are replaced (`stable`). All texts come from programs and are hostile: reports escape them.
"""

import hashlib
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from kubectl_gadget.linux.names import USUAL_DEVICES
from kubectl_gadget.wording import count, some

# The processes, peers, names and files that a run saw, for summaries and attestations. A program may open a million
# different files, so each table has a limit; entries above it are only counted.

_Key = TypeVar("_Key")
_MOST = 10_000
_LONGEST_ARGUMENTS = 20
_LOOPBACK = ("127.", "::1", "::ffff:127.")


@dataclass
class SeenProcess:
    """One program that a process ran."""

    id: str
    parent: str
    """the nearest one above it that executed a program"""
    program: str
    arguments: tuple[str, ...] = ()
    pid: int = 0
    container: str = ""
    """NAMESPACE/POD/CONTAINER; empty: none"""
    started: str = ""
    ended: str = ""
    """the exit code, when it is not 0, or the signal: `1`, `SIGSEGV`"""
    script: str = ""
    """what an interpreter runs: `/srv/setup.py`, `-m pip`"""

    @property
    def name(self) -> str:
        """The program, with its script."""
        return f"{self.program} {self.script}" if self.script else self.program


@dataclass(frozen=True)
class RemoteEnd:
    """The other end of connections that were made or accepted, without the numbers that differ in each."""

    operation: str
    """connect, accept, listen"""
    protocol: str
    address: str
    port: int
    program: str
    name: str = ""
    """as it was resolved"""
    ephemeral: bool = False
    """the kernel has chosen the port, which therefore differs in each run"""


@dataclass(frozen=True)
class FileUse:
    """A file that was opened."""

    path: str
    access: str
    """read or write"""
    error: str = ""

    @property
    def is_probe(self) -> bool:
        """True if the file did not exist. This seldom matters: programs look for a file in many places."""
        return self.error in ("ENOENT", "ENOTDIR")

    @property
    def is_terminal(self) -> bool:
        """True if the file is a terminal, /dev/null or a similar device, which stores nothing."""
        return self.path in USUAL_DEVICES or self.path.startswith("/dev/pts/")


@dataclass
class Activity:
    """The activity that a run saw. `not_listed` counts entries above the limits."""

    processes: dict[str, SeenProcess] = field(default_factory=dict)
    peers: Counter[RemoteEnd] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    files: Counter[FileUse] = field(default_factory=Counter)
    not_listed: Counter[str] = field(default_factory=Counter)
    given_ports: set[tuple[str, int]] = field(default_factory=set)
    """ports that the kernel has chosen for sockets that listen here, by protocol"""

    def add_process(self, process: SeenProcess) -> None:
        """Adds a program, or replaces it by what its process ran next."""
        if process.id in self.processes or len(self.processes) < _MOST:
            process.arguments = process.arguments[:_LONGEST_ARGUMENTS]
            self.processes[process.id] = process
        else:
            self.not_listed["processes"] += 1

    def add_peer(self, peer: RemoteEnd) -> None:
        self._count("peers", self.peers, peer)

    def name_peers(self, named: Callable[[str], str]) -> None:
        """Gives peers the names of their addresses; `named` returns "" for an address without one. Says which ports the
        kernel has chosen, of those that listen and of connections to this machine itself."""
        peers, self.peers = self.peers, Counter()
        for peer, number in peers.items():
            own = peer.operation == "listen" or peer.address.startswith(_LOOPBACK)
            given = own and (peer.protocol, peer.port) in self.given_ports
            name = peer.name or named(peer.address)
            self._count("peers", self.peers, replace(peer, name=name, ephemeral=given), number)

    def add_name(self, name: str) -> None:
        self._count("names", self.names, name)

    def add_files(self, uses: Iterable[FileUse]) -> None:
        for use, number in Counter(uses).items():
            self._count("files", self.files, use, number)

    def _count(self, kind: str, table: Counter[_Key], key: _Key, number: int = 1) -> None:
        if key in table or len(table) < _MOST:
            table[key] += number
        else:
            self.not_listed[kind] += number

    def tree(self) -> Iterator[tuple[int, SeenProcess]]:
        """Yields depth and process, children below their parents, in the order in which they were seen."""
        children: dict[str, list[SeenProcess]] = {}
        for process in self.processes.values():
            parent = process.parent if process.parent in self.processes and process.parent != process.id else ""
            children.setdefault(parent, []).append(process)
        pending = [(0, process) for process in reversed(children.get("", []))]
        while pending:
            depth, process = pending.pop()
            yield depth, process
            pending += [(depth + 1, child) for child in reversed(children.pop(process.id, []))]


# Findings, checks and the verdict

FINDINGS_CODE = 4
INCONCLUSIVE_CODE = 5
MOST_FINDINGS = 20_000
"""of one check; further ones are counted"""
LONGEST_TEXT = 500
"""characters of a message or of a value in an evidence row"""
_NAMED_CHECKS = 3
_LEAST_FOLDED = 3

_STABLE = (
    # A pod of a Deployment, then one of a DaemonSet or a Job.
    (re.compile(r"(?<=[a-z0-9])-[bcdf-hj-np-tv-z2456789]{6,10}-[bcdf-hj-np-tv-z2456789]{5}(?![A-Za-z0-9-])"), "-*"),
    (re.compile(r"(?<=[a-z0-9])-(?=[a-z]*\d)[bcdf-hj-np-tv-z2456789]{5}(?![A-Za-z0-9-])"), "-*"),
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "*"),
    (re.compile(r"(?<![A-Za-z0-9])(?=[a-f]*\d)[0-9a-f]{12,}(?![A-Za-z0-9])"), "*"),
    (re.compile(r"(?<=/tmp/)[^/\s]+"), "*"),
    (re.compile(r"(?<=[./_-])(?=[A-Za-z0-9_]*[A-Z0-9])[A-Za-z0-9_]{6,8}(?=$|\s)"), "*"),
    (re.compile(r"\d+"), "0"),
)
"""The parts of a text that differ between two runs of the same thing."""
_ADDRESS = re.compile(
    r"(?<![\w.:])(?P<address>\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]*:[0-9a-fA-F:.]*)\]?(?::(?P<port>\d{1,5})\b)?"
)
_EPHEMERAL_PORT = 32768
"""Higher ports are often chosen by the kernel."""
_KEPT = {ord("0") + digit: 0xE000 + digit for digit in range(10)}
_BACK = {kept: digit for digit, kept in _KEPT.items()}


class Severity(StrEnum):
    """The severity of a finding, the worst first."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def reaches(self, least: "Severity") -> bool:
        """True if it is at least as bad as another one."""
        return _ORDER[self] <= _ORDER[least]


_ORDER = {severity: place for place, severity in enumerate(Severity)}


class Status(StrEnum):
    """The result of a check, or of the whole run."""

    PASSED = "passed"
    FINDINGS = "findings"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class SourceLocation:
    """A place in a user's file. `column` 0: not known."""

    file: str
    line: int = 1
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    def relative_to(self, folder: Path) -> str:
        """The file as seen from a folder, with slashes; its full path when it is not in there."""
        path = Path(self.file).absolute()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()


@dataclass(frozen=True)
class Where:
    """The subject of a finding. Empty texts: does not apply."""

    namespace: str = ""
    workload: str = ""
    """KIND/NAME, or the pod's name without what its controller added"""
    container: str = ""
    pod: str = ""
    node: str = ""

    def __str__(self) -> str:
        names = [name for name in (self.namespace, self.workload or self.pod, self.container) if name]
        return "/".join(names)


EvidenceTable = tuple[tuple[str, ...], ...]
"""Headings, and rows of cells, as a gadget prints them"""


@dataclass(frozen=True)
class Explanation:
    """The cause of a finding, if known, and the remedy."""

    confidence: str
    """proven, likely or possible"""
    why: str = ""
    """why it is so sure"""
    cause: str = ""
    changed: str = ""
    """what the workload's last rollout changed"""
    remedy: str = ""
    more: str = ""
    """the command that shows more"""
    pods: tuple[str, ...] = ()
    """NAMESPACE/POD of those that it is about"""
    of_pods: int = 0
    """how many the workload has"""
    others: tuple[str, ...] = ()
    """NAMESPACE/POD at the other end"""
    nodes: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    explains: "tuple[Finding, ...]" = ()
    """the symptoms"""

    def symptoms(self) -> "Iterator[Finding]":
        """Yield all that it explains, also through others."""
        for each in self.explains:
            yield each
            if each.explanation is not None:
                yield from each.explanation.symptoms()


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    rule: str
    """KIND/NAME of the check: assertion/no-shell"""
    level: Severity
    message: str
    where: Where = Where()
    identity: tuple[str, ...] = ()
    """with `rule` and `where`, identifies the same finding in the next run"""
    evidence: tuple[Mapping[str, object], ...] = ()
    """a few rows, as in JSON output"""
    count: int = 1
    first_seen: str = ""
    """RFC 3339; empty: it is about something that was not seen"""
    step: str = ""
    """in which it was first seen"""
    source: SourceLocation | None = None
    lost: bool = False
    """True if events were lost, so that it may have happened more often"""
    last_seen: str = ""
    id: str = ""
    """chosen by what found it, equal in each run; empty: its fingerprint is made of `rule`, `where` and `identity`"""
    tables: tuple[EvidenceTable, ...] = ()
    """the evidence as text, one table for each gadget"""
    explanation: Explanation | None = None

    @property
    def text(self) -> str:
        """Return the message after whom it is about; the words of a cause name its workload themselves."""
        where, named = str(self.where), self.where.workload or self.where.pod
        if self.explanation is not None and named and named in self.message:
            where = self.where.namespace
        return f"{where}: {self.message}" if where else self.message

    @property
    def fingerprint(self) -> str:
        """Equal in all runs in which this is found, whatever pids, pods and times are."""
        if self.id:
            return hashlib.sha256(self.id.encode("utf-8", "replace")).hexdigest()[:32]
        where = (self.where.namespace, stable(self.where.workload or self.where.pod), self.where.container)
        text = "\0".join((self.rule, *where, *map(stable, self.identity)))
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def explained(finding: Finding) -> Iterator[tuple[str, str]]:
    """Yield what a finding says of its cause, as pairs of a word and a text; the texts are not escaped."""
    if (of := finding.explanation) is None:
        return
    sure = f"{of.cause or 'not known'} ({of.confidence}{': ' if of.why else ''}{of.why})"
    parts = (("cause", sure), ("changed", of.changed), ("do", of.remedy), ("more", of.more))
    yield from ((name, text) for name, text in parts if text)
    yield from (("explains", each.message) for each in of.symptoms())


def folded(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """The findings, with similar ones as one: the first, and how many more are like it. Two are similar if one thing
    does the same with several files of a directory. Errors are never folded."""
    groups: dict[object, list[Finding]] = {}
    for number, finding in enumerate(findings):
        *head, last = finding.identity or (finding.message,)
        folder, slash, _ = last.rpartition("/")
        similar = slash and finding.explanation is None and not finding.level.reaches(Severity.ERROR)
        key = (finding.rule, finding.level, finding.where, finding.step, *head, folder) if similar else number
        groups.setdefault(key, []).append(finding)
    found = list[tuple[Finding, int]]()
    for group in groups.values():
        found += [(group[0], len(group) - 1)] if len(group) >= _LEAST_FOLDED else [(each, 0) for each in group]
    return found


def limited(findings: Sequence[Finding]) -> tuple[tuple[Finding, ...], int]:
    """At most MOST_FINDINGS of them, and how many are left out."""
    return tuple(findings[:MOST_FINDINGS]), max(0, len(findings) - MOST_FINDINGS)


@dataclass(frozen=True)
class Check:
    """Something that was checked: an assertion, a policy, a baseline, an expression."""

    kind: str
    name: str
    description: str = ""
    findings: tuple[Finding, ...] = ()
    left_out: int = 0
    """findings that are not in the list"""
    undecided: str = ""
    """why the check has no result; empty if it has one"""
    source: SourceLocation | None = None
    fails_at: Severity = Severity.ERROR
    """findings that are at least this bad make the check, and the run, fail"""

    @property
    def rule(self) -> str:
        """KIND/NAME, the `rule` of its findings."""
        return f"{self.kind}/{self.name}"

    @property
    def failures(self) -> list[Finding]:
        """Return the findings that make it fail."""
        return [finding for finding in self.findings if finding.level.reaches(self.fails_at)]

    @property
    def status(self) -> Status:
        """An error is an error, whatever else is missing."""
        if self.failures:
            return Status.FINDINGS
        return Status.INCONCLUSIVE if self.undecided else Status.PASSED


@dataclass(frozen=True)
class JobStep:
    """A mark that `ci step` made."""

    name: str
    time: str
    """RFC 3339"""


@dataclass(frozen=True)
class RunReport:
    """All that reports say about one run."""

    version: str
    where: str
    """such as "this machine", or "namespace shop on 2/2 nodes\""""
    began: str
    """RFC 3339, when everything was attached"""
    seconds: float
    command: tuple[str, ...] = ()
    """empty: no command was run"""
    command_code: int | None = None
    checks: tuple[Check, ...] = ()
    incomplete: tuple[str, ...] = ()
    """why the trace is incomplete: losses, failed nodes, late attaches"""
    lost: Mapping[str, int] = field(default_factory=dict)
    """events by cause"""
    events: int = 0
    nodes: tuple[str, ...] = ()
    gadgets: tuple[str, ...] = ()
    steps: tuple[JobStep, ...] = ()
    activity: Activity = field(default_factory=Activity)
    baseline: str = ""
    """what was seen, as the text of a baseline file; empty: facts were not collected"""
    warnings: tuple[str, ...] = ()
    """what the verdict does not cover"""
    failures: tuple[str, ...] = ()
    """what could not be written during the run"""
    recording: str = ""
    """where its events are; empty: they were not recorded, or are gone when the run is over"""

    @property
    def findings(self) -> list[Finding]:
        """Return the findings of all checks: the worst first, then in the checks' order."""
        found = [finding for check in self.checks for finding in check.findings]
        return sorted(found, key=lambda finding: _ORDER[finding.level])

    @property
    def left_out(self) -> int:
        """Findings that are in no list."""
        return sum(check.left_out for check in self.checks)

    @property
    def undecided(self) -> tuple[str, ...]:
        """Return why the verdict is unknown, if there is no finding. Checks with the same reason share a line."""
        reasons: dict[str, list[str]] = {}
        for check in self.checks:
            if check.undecided:
                reasons.setdefault(check.undecided, []).append(check.rule)
        return (*self.incomplete, *(f"{some(rules, _NAMED_CHECKS)}: {why}" for why, rules in reasons.items()))

    @property
    def status(self) -> Status:
        """The verdict. After losses, findings still count, but their absence proves nothing."""
        if any(check.status is Status.FINDINGS for check in self.checks):
            return Status.FINDINGS
        return Status.INCONCLUSIVE if self.undecided else Status.PASSED

    @property
    def exit_code(self) -> int:
        """The command's own when it is not 0."""
        codes = {Status.PASSED: 0, Status.FINDINGS: FINDINGS_CODE, Status.INCONCLUSIVE: INCONCLUSIVE_CODE}
        return self.command_code or codes[self.status]

    def verdict(self) -> str:
        """One line, without text that programs chose."""
        failed = f"the command failed with exit code {self.command_code}; " if self.command_code else ""
        errors = sum(len(check.failures) for check in self.checks)
        others = len(self.findings) - errors + self.left_out
        found = ", ".join(
            count(number, noun) for number, noun in ((errors, "finding"), (others, "further observation")) if number
        )
        if self.status is Status.INCONCLUSIVE:
            reasons = f"inconclusive: {count(len(self.undecided), 'reason')}"
            return failed + "; ".join(filter(None, (reasons, found)))
        checked = f"{count(len(self.checks), 'check')} passed" if self.checks else "nothing was checked"
        return failed + (found if self.status is Status.FINDINGS else f"passed: {found or checked}")


def stable(text: str) -> str:
    """A text without what differs between two runs of the same thing: numbers, hashes, temporary names.

    Addresses and ports stay: another peer is another thing."""
    text = _ADDRESS.sub(_kept, text)
    for pattern, replacement in _STABLE:
        text = pattern.sub(replacement, text)
    return text.translate(_BACK)


def _kept(found: re.Match[str]) -> str:
    """An address, with digits that no pattern matches."""
    try:
        ipaddress.ip_address(found["address"])
    except ValueError:
        return found[0]
    if int(found["port"] or 0) < _EPHEMERAL_PORT:
        return found[0].translate(_KEPT)
    return found[0][: found.start("port") - found.start()].translate(_KEPT) + found["port"]


def workload_of(pod: str) -> str:
    """A pod's name without what its controller added, for findings that know no owner: web-7d4b9c6f5-x2x7k is web-*."""
    name = pod
    for pattern, replacement in _STABLE[:2]:
        name = pattern.sub(replacement, name)
    return name


def cut(value: Any, most: int = LONGEST_TEXT) -> Any:
    """A value of a row with all its texts cut to a size."""
    if isinstance(value, str):
        return value if len(value) <= most else f"{value[:most]}…"
    if isinstance(value, Sequence):
        return [cut(item, most) for item in value[:50]]
    return {key: cut(item, most) for key, item in value.items()} if isinstance(value, Mapping) else value
