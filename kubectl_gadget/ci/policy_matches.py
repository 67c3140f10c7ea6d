"""What policies of `-f` matched: a check for each policy, and a finding for each thing that a program did.

The trap: policies only report here, also those that would deny; `enforce` is the command that denies. And the engine of
policies knows no --pid, so for COMMAND's own processes events of others are left out here.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from kubectl_gadget.ci.finding import Check, Finding, Level, SourceLocation, Where, cut, limited, stable, workload_of
from kubectl_gadget.ci.job_steps import Marks
from kubectl_gadget.observe.decoders import NAME as POLICIES
from kubectl_gadget.observe.decoders import decoder
from kubectl_gadget.observe.story import PROCESSES
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.members import member_values
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.policy_events.body import rfc3339
from kubectl_gadget.wire.policy_events.event import PolicyEvent

if TYPE_CHECKING:
    from kubectl_gadget.policies.compiler.policies import CompiledPolicies
    from kubectl_gadget.policies.run.labels import PolicyLabels

_MOST = 1000
__all__ = ["POLICIES", "PolicyChecks"]


class PolicyChecks:
    """The policies of a run."""

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
        if known is None and len(of_policy) >= _MOST:
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
            Level.ERROR,
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
