"""The checks of a run, live or recorded: they get its rows, and then make its report.

The trap: everything that is missing has to reach `incomplete`, or a run that saw nothing would be green.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubectl_gadget import __version__
from kubectl_gadget.ci.activity import Activity
from kubectl_gadget.ci.assertions import Assertion
from kubectl_gadget.ci.finding import Check, JobStep, RunReport, cut
from kubectl_gadget.ci.job_steps import Marks
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.run.coverage import CAUSES, Coverage, doubts
from kubectl_gadget.wire.policy_events.body import rfc3339

if TYPE_CHECKING:
    from kubectl_gadget.ci.baseline_check import BehaviorCheck, BehaviorOrder
    from kubectl_gadget.ci.policy_matches import PolicyChecks
    from kubectl_gadget.ci.row_checks import RowCheck
    from kubectl_gadget.ci.watching import Watching
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.run.labels import PolicyLabels


@dataclass(frozen=True)
class CheckOrder:
    """What is checked."""

    pid: int | None = None
    """only this process and its descendants are traced; None: what the options select"""
    fail_on: tuple[str, ...] = ()
    expect: tuple[str, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    policies: "CompiledPolicies | None" = None
    labels: "PolicyLabels | None" = None
    behavior: "BehaviorOrder | None" = None
    """None: no facts are collected"""

    @property
    def judges(self) -> bool:
        """Whether the result of any check depends on seeing everything."""
        return bool(self.fail_on or self.expect or self.assertions or self.policies or self.behavior)


@dataclass(frozen=True)
class TracedRun:
    """What the report says about the run itself."""

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


class RunChecks:
    """All checks of one run."""

    def __init__(self, order: CheckOrder, events: Sequence[str], marks: Marks, began: Callable[[], int]) -> None:
        """`events`: the gadgets that run. Rows are of the steps of `marks`. `began` returns the wall time from which
        facts count, in ns; 0: not yet."""
        self._order = order
        self._marks = marks
        self._rows: list[RowCheck] = []
        self._policies: PolicyChecks | None = None
        self._watching: Watching | None = None
        self.behavior = _behavior_check(order, events, began)
        """collects facts"""

    def sink(self, gadgets: Sequence[Gadget]) -> "Watching":
        """The sink of the run's rows. Raises UsageError for expressions that these gadgets do not have."""
        from kubectl_gadget.ci.row_checks import RowCheck, expression_check
        from kubectl_gadget.ci.watching import Watching
        from kubectl_gadget.filters.filter import compile_filter

        order, shown = self._order, [gadget for gadget in gadgets if gadget.record.fields and gadget.name != "policy"]
        self._rows = [
            expression_check(flag, compile_filter(text, shown, f"--{flag}"), self._marks)
            for flag, texts in (("fail-on", order.fail_on), ("expect", order.expect))
            for text in texts
        ]
        self._rows += [RowCheck(each, self._marks) for each in order.assertions if each.gadget is not None]
        if order.policies is not None:
            from kubectl_gadget.ci.policy_matches import PolicyChecks

            self._policies = PolicyChecks(order.policies, order.labels, self._marks, order.pid)
        self._watching = Watching(self._rows, self._policies, self.behavior.take if self.behavior else None)
        return self._watching

    @property
    def activity(self) -> Activity:
        """What was seen."""
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
        baseline, seconds = "", round(run.seconds, 3)
        if self.behavior is not None:
            from kubectl_gadget.behavior.baseline import baseline_text
            from kubectl_gadget.behavior.behavior_run import gaps_of
            from kubectl_gadget.behavior.facts import WatchedRun

            began = f"{rfc3339(run.began_ns)[:19]}Z"
            watched = WatchedRun(began, round(seconds, 1), run.lost, max(1, len(run.coverage.traced)))
            counted = {reason.text for reason in doubts(run.coverage, run.began_ns)}
            gaps = gaps_of(run.coverage, run.lost, run.began_ns, not counted.issuperset(run.incomplete))
            found = self.behavior.behavior(run.watched, watched, gaps)
            checks += self.behavior.checks(found, incomplete)
            baseline = baseline_text(found)
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


def _behavior_check(order: CheckOrder, events: Sequence[str], began: Callable[[], int]) -> "BehaviorCheck | None":
    if order.behavior is None:
        return None
    from kubectl_gadget.ci.baseline_check import BehaviorCheck

    return BehaviorCheck(order.behavior, events, lambda: rfc3339(ns) if (ns := began()) else None)


def _causes(run: TracedRun) -> dict[str, int]:
    causes = sum((Counter(node.lost) for node in run.coverage.nodes), start=Counter[str]())
    found = {CAUSES.get(cause, cause): number for cause, number in causes.items() if number}
    unnamed = run.lost - sum(number for cause, number in causes.items() if cause != "cut_strings")
    return found | ({CAUSES["unattributed"]: unnamed} if unnamed > 0 else {})
