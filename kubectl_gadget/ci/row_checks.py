"""Checks of rows while they arrive: --fail-on, --expect, assertions about a gadget, and what policies of `-f` matched.

Conditions run on whole columns; only rows that match become Python objects. When events were lost, it is undecided
whether something is absent, and certain that what was seen was there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.ci.assertions import NONE, Amount, Assertion, judged
from kubectl_gadget.ci.steps import Marks
from kubectl_gadget.filters.filter import Filter
from kubectl_gadget.observe.decoders import NAME as POLICIES
from kubectl_gadget.observe.decoders import decoder
from kubectl_gadget.observe.story import PROCESSES
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.reports.model import (
    Check,
    Finding,
    Severity,
    SourceLocation,
    Where,
    cut,
    limited,
    stable,
    workload_of,
)
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.members import member_values
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.policy_events import PolicyEvent, rfc3339

if TYPE_CHECKING:
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.labels import PolicyLabels


_EVIDENCE = 3
_MOST_GROUPS = 10_000
_NOT_EVIDENCE = ("cap_", "ns_", "container_mark", "securebits", "fs", "eg", "sg", "su", "auid", "links", "inode")
_OBJECTS = ("path", "name", "remote", "address", "capability", "operation")
"""Members that say what a row is about; the first that it has."""


@dataclass
class _Group:
    """Rows that are one finding."""

    where: Where
    event: str
    comm: str
    object: str
    count: int = 0
    first_ns: int = 0
    step: str = ""
    evidence: list[Mapping[str, Any]] = field(default_factory=list)
    is_of_several: bool = False
    """there are rows about other objects, which differ only in numbers and the like"""


class RowCheck:
    """One check. `take` gets all rows of the run, from the pipeline's thread."""

    def __init__(
        self, asked: Assertion, marks: Marks, kind: str = "assertion", description: str = "", otherwise: str = ""
    ) -> None:
        """Without a gadget, `asked` is about the rows of all. `kind` and `description` come from a flag.
        `otherwise`: what was seen instead; else it is the number."""
        self._asked, self._marks, self._kind = asked, marks, kind
        self._description = description or asked.describes
        self._otherwise = otherwise
        self._members = MemberRows(event=True)
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._others = 0
        self._pods: Counter[tuple[str, str]] = Counter()
        """matching rows by pod, with the pods that have none"""

    def take(self, batch: Batch) -> None:
        """Counts rows of one gadget."""
        gadget, condition, step = self._asked.gadget, self._asked.rows, self._asked.step
        if self._asked.per_pod and batch.owners is not None:
            used = set(batch.owners.codes.tolist())
            for code in used:
                owner = batch.owners.containers[code]
                self._pods[owner.namespace, owner.pod] += 0
        if gadget is not None and batch.gadget.name != gadget.name:
            return
        mask = np.ones(len(batch), np.bool_) if condition is None else condition.mask(batch)
        if not mask.any():
            return
        matching = batch.select(mask)
        times = matching.wall_ns()
        if step:
            inside = np.fromiter((self._marks.at(ns) == step for ns in times.tolist()), np.bool_, len(times))
            matching, times = matching.select(inside), times[inside]
        if len(matching):
            self._count(matching, times)

    def _count(self, batch: Batch, times: npt.NDArray[np.int64]) -> None:
        records = self._members.records(Rows([batch]))
        for record, wall_ns in zip(records, times.tolist(), strict=True):
            pod = str(record.get("pod") or "")
            self._pods[str(record.get("namespace") or ""), pod] += 1
            comm, event, of = str(record.get("comm")), str(record["event"]), _object_of(record)
            where = Where(
                str(record.get("namespace") or ""),
                workload_of(pod),
                str(record.get("container") or ""),
                pod,
                str(record.get("node") or ""),
            )
            key = (where.namespace, where.workload, where.container, event, stable(comm), stable(of))
            group = self._groups.get(key)
            if group is None:
                if len(self._groups) >= _MOST_GROUPS:
                    self._others += 1
                    continue
                group = self._groups[key] = _Group(where, event, comm, of, 0, wall_ns, self._marks.at(wall_ns))
            group.count += 1
            group.is_of_several |= of != group.object
            if len(group.evidence) < _EVIDENCE:
                group.evidence.append(cut(_evidence(record)))

    def check(self, incomplete: Sequence[str]) -> Check:
        """The result. `incomplete`: why events are missing, if any are."""
        findings, undecided = self._judge(bool(incomplete))
        condition, step = self._asked.rows, self._asked.step
        if condition is not None and condition.errors:
            undecided = f"{condition.text} could not be evaluated for some rows: {condition.first_error}"
        if step and step not in self._marks.names:
            undecided = undecided or f"there was no step {step!r}"
        shown, left_out = limited(findings)
        left_out += self._others if findings else 0
        return Check(self._kind, self._asked.name, self._description, shown, left_out, undecided, self._asked.source)

    def _judge(self, incomplete: bool) -> tuple[list[Finding], str]:
        """The findings, or why it cannot be said."""
        total = self._pods.total()
        if not self._asked.per_pod:
            return self._judge_one(total, list(self._groups.values()), "", incomplete)
        found, undecided = list[Finding](), ""
        for (namespace, pod), number in sorted(self._pods.items()):
            if pod:
                owner = (namespace, workload_of(pod))
                groups = [g for g in self._groups.values() if (g.where.namespace, g.where.workload) == owner]
                each, why = self._judge_one(number, groups, f"in {namespace}/{pod}", incomplete)
                found, undecided = found + each, undecided or why
        if not any(pod for _, pod in self._pods):
            undecided = "no pod was seen"
        return list({finding.fingerprint: finding for finding in found}.values()), undecided

    def _judge_one(self, total: int, groups: list[_Group], of: str, incomplete: bool) -> tuple[list[Finding], str]:
        asked = self._asked
        otherwise = self._otherwise or f"it is {total:,}{f' {of}' if of else ''}"
        said = asked.message or f"expected: {self._description}, but {otherwise}"
        evidence = tuple(row for group in groups for row in group.evidence)[:_EVIDENCE]
        where = groups[0].where if of and groups else Where()
        first = min((group.first_ns for group in groups), default=0)
        expected = Finding(
            f"{self._kind}/{asked.name}",
            asked.level,
            said,
            where,
            (stable(of),),
            evidence,
            total,
            rfc3339(first) if first else "",
            asked.step,
            asked.source,
            incomplete,
        )
        found = [self._finding(group, incomplete) for group in groups]
        return judged(asked, total, found, expected, "events are missing" if incomplete else "")

    def _finding(self, group: _Group, incomplete: bool) -> Finding:
        said = f"{self._asked.message}: " if self._asked.message else ""
        more = " and more like it" if group.is_of_several else ""
        return Finding(
            f"{self._kind}/{self._asked.name}",
            self._asked.level,
            f"{said}{group.event} by {group.comm}: {cut(group.object)}{more}",
            group.where,
            (group.event, group.comm, group.object),
            tuple(group.evidence),
            group.count,
            rfc3339(group.first_ns),
            group.step,
            self._asked.source,
            incomplete,
        )


def _object_of(record: Mapping[str, object]) -> str:
    """Return the object of a row: a command line, a path, a peer."""
    if arguments := record.get("args"):
        return " ".join(map(str, arguments)) if isinstance(arguments, list) else str(arguments)
    for name in _OBJECTS:
        if value := record.get(name):
            port = record.get("remote_port" if name == "remote" else "port") if name in ("remote", "address") else None
            if not port:
                return str(value)
            return f"[{value}]:{port}" if ":" in str(value) else f"{value}:{port}"
    return ""


def _evidence(record: Mapping[str, object]) -> dict[str, object]:
    """The members that people want to see."""
    shown = {name: value for name, value in record.items() if value not in (None, "", -1, [])}
    hidden = [name for name in shown if name.endswith(("_raw", "_bytes")) or name.startswith(_NOT_EVIDENCE)]
    return {name: value for name, value in shown.items() if name not in hidden}


def expression_check(flag: str, condition: Filter, marks: Marks) -> RowCheck:
    """The check of --fail-on (no row may match) or --expect (one must)."""
    fails = flag == "fail-on"
    description = f"{'no row matches' if fails else 'a row matches'} {condition.text}"
    asked = Assertion(condition.text, NONE if fails else Amount(">=", 1), rows=condition)
    return RowCheck(asked, marks, flag, description, otherwise="" if fails else "no row did")


# Policies: a check for each one, and a finding for each thing that a program did. They only report here, also those
# that would deny; `enforce` is the command that denies.

_MOST_OF_POLICY = 1000


class PolicyChecks:
    """The policies of a run. Their engine knows no --pid, so here events of processes outside COMMAND are left out."""

    def __init__(
        self,
        compiled: "CompiledPolicies",
        labels: "PolicyLabels | None",
        marks: Marks,
        pid: int | None = None,
    ) -> None:
        """`pid`: only this process and its descendants count."""
        self._pids = None if pid is None else {pid}
        self._policies = compiled.policies
        self._marks = marks
        self._decode = decoder(compiled.hooks, labels.is_for if labels else None)
        self._found: dict[str, dict[tuple[str, ...], Finding]] = {policy.name: {} for policy in compiled.policies}
        self._others: dict[str, int] = {}

    def see(self, rows: Rows) -> None:
        """Takes events of policies and of processes, from the pipeline's thread."""
        ended = set[int]()
        if self._pids is not None:
            for part in (part for part in rows.parts if part.gadget.name == PROCESSES):
                for pid, operation in zip(part.raw("pid").tolist(), member_values(part, "operation"), strict=True):
                    self._pids.add(pid)
                    if operation == "exit":
                        ended.add(pid)
        for part in rows.parts:
            if part.gadget.name == POLICIES:
                self._take(part)
        if self._pids is not None:
            self._pids -= ended

    def _take(self, batch: Batch) -> None:
        columns = batch.row_containers(), batch.nodes(), batch.wall_ns().tolist(), batch.raw("pid").tolist()
        for found, container, node, time, pid in zip(self._decode(batch), *columns, strict=True):
            if self._pids is None or pid in self._pids:
                for event in found:
                    self._add(event, _where(container, node), time)

    def _add(self, event: PolicyEvent, where: Where, wall_ns: int) -> None:
        texts = [argument.text for argument in event.args]
        identity = (event.comm, event.function, *texts)
        key = (where.namespace, where.workload, where.container, *map(stable, identity))
        of_policy = self._found.setdefault(event.policy, {})
        known = of_policy.get(key)
        if known is None and len(of_policy) >= _MOST_OF_POLICY:
            self._others[event.policy] = self._others.get(event.policy, 0) + 1
            return
        did = f"{event.comm} called {event.function or event.path}({cut(', '.join(texts))})"
        evidence = {
            "event": "policy",
            "policy": event.policy,
            "timestamp": rfc3339(wall_ns),
            "node": where.node,
            "pod": where.pod,
            "comm": event.comm,
            "hook": event.hook,
            "function": event.function,
            "arguments": cut(texts),
            "action": event.action,
        }
        of_policy[key] = Finding(
            f"policy/{event.policy}",
            Severity.ERROR,
            f"{event.message}: {did}" if event.message else did,
            where,
            identity,
            (known.evidence if known else (evidence,)),
            (known.count if known else 0) + 1,
            known.first_seen if known else rfc3339(wall_ns),
            known.step if known else self._marks.at(wall_ns),
        )

    def checks(self, incomplete: tuple[str, ...]) -> list[Check]:
        """The results. `incomplete`: why events are missing, if any are."""
        found = []
        for policy in self._policies:
            place = policy.place
            source = SourceLocation(place.file, place.line, place.column)
            findings = [
                replace(each, source=source, lost=bool(incomplete)) for each in self._found[policy.name].values()
            ]
            shown, left_out = limited(findings)
            left_out += self._others.get(policy.name, 0)
            undecided = incomplete[0] if incomplete and not findings else ""
            description = f"nothing that the policy {policy.name} reports"
            found.append(Check("policy", policy.name, description, shown, left_out, undecided, source))
        return found


def _where(container: Container, node: str) -> Where:
    return Where(container.namespace, workload_of(container.pod), container.container, container.pod, node)
