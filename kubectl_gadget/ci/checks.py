"""The checks of a run, live or recorded: its sink gives them the rows, and at the end they make the report.

The trap: everything that is missing has to reach `incomplete`, or a run that saw nothing would be green.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubectl_gadget import __version__
from kubectl_gadget.behavior.baseline import baseline_text
from kubectl_gadget.behavior.facts import WatchedRun
from kubectl_gadget.behavior.generalization import Destinations, Generalizer, Rules, read_rules
from kubectl_gadget.behavior.programs import script_of
from kubectl_gadget.behavior.run import gaps_of
from kubectl_gadget.ci.assertions import Assertion
from kubectl_gadget.ci.fact_checks import BehaviorCheck, BehaviorOrder
from kubectl_gadget.ci.row_checks import PolicyChecks, RowCheck, expression_check
from kubectl_gadget.ci.steps import Marks
from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.kube.inventory import Inventory
from kubectl_gadget.observe.decoders import NAME as POLICIES
from kubectl_gadget.output.sink import WholeSink
from kubectl_gadget.reports.model import (
    Activity,
    Check,
    FileUse,
    JobStep,
    RemoteEnd,
    RunReport,
    SeenProcess,
    Severity,
    cut,
)
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.members import member_values
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import CAUSES, Coverage, doubts
from kubectl_gadget.wire.policy_events import rfc3339

if TYPE_CHECKING:
    from kubectl_gadget.diagnose.rules import Rule
    from kubectl_gadget.diagnose.search import Search
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.labels import PolicyLabels

_MOST_FORKS = 100_000
_MOST_ADDRESSES = 10_000
_NOT_RUN = {126: "(a program that could not be executed)", 127: "(a program that was not found)"}
"""what a shell's child tried to execute before it ended with such a code"""
_WRITES = ("O_WRONLY", "O_RDWR")


@dataclass(frozen=True)
class DiagnosisOrder:
    """Settings of the search for causes."""

    rules: "tuple[Rule, ...]"
    gadgets: frozenset[str]
    """those that only rules need: nothing else sees their rows"""
    fails_at: Severity = Severity.ERROR


@dataclass(frozen=True)
class CheckOrder:
    """The checks of a run."""

    pid: int | None = None
    """only this process and its descendants are traced; None: what the options select"""
    fail_on: tuple[str, ...] = ()
    expect: tuple[str, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    policies: "CompiledPolicies | None" = None
    labels: "PolicyLabels | None" = None
    behavior: BehaviorOrder | None = None
    """None: no facts are collected"""
    diagnosis: "DiagnosisOrder | None" = None
    """None: causes are not looked for"""

    @property
    def judges(self) -> bool:
        """True if the result of any check depends on seeing everything."""
        return bool(self.fail_on or self.expect or self.assertions or self.policies or self.behavior or self.diagnosis)


@dataclass(frozen=True)
class TracedRun:
    """The report's data about the run itself."""

    where: str
    began_ns: int
    """wall time"""
    seconds: float
    coverage: Coverage
    lost: int
    watched: Sequence[Container]
    incomplete: tuple[str, ...]
    """why events are missing that were not counted as lost"""
    gadgets: tuple[str, ...]


class Watching(WholeSink):
    """The sink of a run: prints nothing, gives rows to the checks, and keeps what was seen.

    It runs in the pipeline's thread for every row of a busy build, so rows are read by columns, and only what is new is
    kept. `behavior` gets the rows if a baseline or an assertion asks for facts, and `search` the rows of all gadgets;
    nothing else gets the rows of `aside`.
    """

    def __init__(
        self,
        checks: Sequence[RowCheck],
        policies: PolicyChecks | None,
        behavior: Callable[[Rows], object] | None,
        search: Callable[[Rows], object] | None = None,
        aside: frozenset[str] = frozenset(),
    ) -> None:
        self.activity = Activity()
        self.rows = 0
        self._forked: dict[str, str] = {}
        """by process: the program that it runs a copy of, such as the shell of a subshell"""
        self.names: dict[str, str] = {}
        """what DNS called addresses; of several names, the first in the alphabet, so that it is the same each time"""
        self._checks = checks
        self._policies = policies
        self._behavior = behavior
        self._search = search
        self._aside = aside
        self._rules = Generalizer(read_rules())
        self._of_gadget = {
            "trace_process": self._processes,
            "trace_open": self._opens,
            "trace_tcp": self._connections,
            "trace_udp": self._connections,
            "trace_dns": self._names,
            "trace_bind": self._listening,
        }

    def write(self, rows: Rows) -> None:
        """Takes rows, in the order of time."""
        self.rows += len(rows)
        if self._search is not None:
            self._search(rows)
            rows = Rows([part for part in rows.parts if part.gadget.name not in self._aside])
        if self._behavior is not None:
            self._behavior(rows)
        if self._policies is not None:
            self._policies.see(rows)
        for part in rows.parts:
            if part.gadget.name == POLICIES:
                continue
            for check in self._checks:
                check.take(part)
            if (see := self._of_gadget.get(part.gadget.name)) is not None:
                see(part)

    def _processes(self, batch: Batch) -> None:
        names = ("operation", "exec_id", "parent_exec_id", "exe", "args", "pid", "code", "signal", "cwd")
        owners, times = batch.row_containers(), batch.wall_ns().tolist()
        for number, (what, id, above, exe, arguments, pid, code, ended_by, cwd) in enumerate(_columns(batch, *names)):
            parent = self._forked.get(above, above)
            if what == "fork" and len(self._forked) < _MOST_FORKS:
                self._forked[id] = parent
            elif what == "exec":
                began = rfc3339(times[number])
                words, owner = tuple(map(str, arguments or ())), owners[number]
                place = "/".join(filter(None, (owner.namespace, owner.pod, owner.container)))
                script = script_of(words, cwd or "/") if self._rules.is_interpreter(exe or "") else ""
                self.activity.add_process(SeenProcess(id, parent, exe or "?", words, pid, place, began, script=script))
            elif what == "exit" and code in _NOT_RUN and id in self._forked and id not in self.activity.processes:
                shell = self.activity.processes.get(parent)
                program, ended = shell.program if shell else "?", f"exit code {code}"
                tried = (program, _NOT_RUN[code])
                self.activity.add_process(SeenProcess(id, parent, program, tried, pid, ended=ended))
            elif what == "exit" and (process := self.activity.processes.get(id)) is not None:
                process.ended = str(ended_by or "") or (f"exit code {code}" if code and code > 0 else "")

    def _opens(self, batch: Batch) -> None:
        uses = (
            FileUse(path or "", "write" if any(flag in (flags or "") for flag in _WRITES) else "read", error or "")
            for path, flags, error in _columns(batch, "path", "flags", "error")
        )
        self.activity.add_files(uses)

    def _connections(self, batch: Batch) -> None:
        protocol = batch.gadget.event
        for what, address, port, comm in _columns(batch, "operation", "remote", "remote_port", "comm"):
            if what == "connect":
                self.activity.add_peer(RemoteEnd("connect", protocol, address or "", port or 0, comm or ""))
            elif what == "accept":
                self.activity.add_peer(RemoteEnd("accept", protocol, address or "", 0, comm or ""))

    def _names(self, batch: Batch) -> None:
        for name, role, addresses in _columns(batch, "name", "role", "addresses"):
            if name and role != "server":
                self.activity.add_name(name)
                for address in addresses or ():
                    if address in self.names or len(self.names) < _MOST_ADDRESSES:
                        self.names[address] = min(self.names.get(address, name), name)

    def _listening(self, batch: Batch) -> None:
        names = ("protocol", "address", "port", "asked_port", "comm", "errno")
        for protocol, address, port, asked, comm, errno in _columns(batch, *names):
            if not errno and port:
                if asked == 0 and len(self.activity.given_ports) < _MOST_ADDRESSES:
                    self.activity.given_ports.add((str(protocol).lower(), port))
                self.activity.add_peer(RemoteEnd("listen", str(protocol).lower(), address or "", port, comm or ""))


def _columns(batch: Batch, *names: str) -> Iterator[tuple[Any, ...]]:
    """The values of these members, row by row."""
    return zip(*(member_values(batch, name) for name in names), strict=True)


class RunChecks:
    """All checks of one run."""

    def __init__(
        self,
        order: CheckOrder,
        events: Sequence[str],
        marks: Marks,
        began: Callable[[], int],
        search: "Search | None" = None,
    ) -> None:
        """`events`: the gadgets that run. Rows are of the steps of `marks`. `began` returns the wall time from which
        facts count, in ns; 0: not yet. `search`: for the diagnosis of `order`."""
        self._order = order
        self._search = search
        self._marks = marks
        self._rows: list[RowCheck] = []
        self._policies: PolicyChecks | None = None
        self._watching: Watching | None = None
        self.behavior: BehaviorCheck | None = None
        """collects facts"""
        if order.behavior is not None:
            self.behavior = BehaviorCheck(order.behavior, events, lambda: rfc3339(ns) if (ns := began()) else None)

    def sink(self, gadgets: Sequence[Gadget]) -> Watching:
        """The sink of the run's rows. Raises UsageError for expressions that these gadgets do not have."""
        order, diagnosis = self._order, self._order.diagnosis
        aside = frozenset[str]() if diagnosis is None else diagnosis.gadgets
        shown = [each for each in gadgets if each.record.fields and each.name != "policy" and each.name not in aside]
        self._rows = [
            expression_check(flag, compile_filter(text, shown, f"--{flag}"), self._marks)
            for flag, texts in (("fail-on", order.fail_on), ("expect", order.expect))
            for text in texts
        ]
        self._rows += [RowCheck(each, self._marks) for each in order.assertions if each.gadget is not None]
        if order.policies is not None:
            self._policies = PolicyChecks(order.policies, order.labels, self._marks, order.pid)
        facts = self.behavior.take if self.behavior else None
        search = self._search.take if self._search else None
        self._watching = Watching(self._rows, self._policies, facts, search, aside)
        return self._watching

    @property
    def activity(self) -> Activity:
        """Return the activity seen."""
        assert self._watching is not None
        return self._watching.activity

    def report(self, run: TracedRun) -> RunReport:
        """The results, after the last row."""
        assert self._watching is not None
        lost = [f"{run.lost:,} events were lost"] if run.lost else []
        incomplete = tuple(dict.fromkeys(cut(text) for text in (*lost, *run.incomplete)))
        checks: list[Check] = [check.check(incomplete) for check in self._rows]
        if self._policies is not None:
            checks += self._policies.checks(incomplete)
        if self._search is not None and self._order.diagnosis is not None:
            from kubectl_gadget.diagnose.report import checks as diagnosed

            found_causes = self._search.report(run.coverage, since_ns=run.began_ns)
            checks += diagnosed(found_causes, self._order.diagnosis.fails_at, incomplete)
        baseline, seconds = "", round(run.seconds, 3)
        if self.behavior is not None:
            began = f"{rfc3339(run.began_ns)[:19]}Z"
            watched = WatchedRun(began, round(seconds, 1), run.lost, max(1, len(run.coverage.traced)))
            counted = {reason.text for reason in doubts(run.coverage, run.began_ns)}
            gaps = gaps_of(run.coverage, run.lost, run.began_ns, not counted.issuperset(run.incomplete))
            found = self.behavior.behavior(run.watched, watched, gaps)
            checks += self.behavior.checks(found, incomplete)
            baseline = baseline_text(found)
        of = Destinations(Inventory(), Generalizer(Rules())) if self.behavior is None else self.behavior.destinations()
        names = self._watching.names
        self._watching.activity.name_peers(lambda address: of.named(address, names.get(address, "")))
        return RunReport(
            version=__version__,
            where=run.where,
            began=rfc3339(run.began_ns),
            seconds=seconds,
            checks=tuple(checks),
            incomplete=incomplete,
            lost=_causes(run),
            events=self._watching.rows,
            nodes=tuple(node.name for node in run.coverage.traced),
            gadgets=tuple(dict.fromkeys(run.gadgets)),
            steps=tuple(
                JobStep(name, rfc3339(ns)) for name, ns in zip(self._marks.names, self._marks.times_ns, strict=True)
            ),
            activity=self._watching.activity,
            baseline=baseline,
        )


def _causes(run: TracedRun) -> dict[str, int]:
    causes = sum((Counter(node.lost) for node in run.coverage.nodes), start=Counter[str]())
    found = {CAUSES.get(cause, cause): number for cause, number in causes.items() if number}
    unnamed = run.lost - sum(number for cause, number in causes.items() if cause != "cut_strings")
    return found | ({CAUSES["unattributed"]: unnamed} if unnamed > 0 else {})
