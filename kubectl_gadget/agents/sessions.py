"""Who uses agents at the moment: runs with agents of their own, and sessions in resident agents.

A run with agents of its own says on its anchor Job who started it; that is for other users, and not verified. A
resident agent knows the commands of its sessions, but not whose they are, which the API server's audit log has. The
trap: a run has one session on each node, and nothing says which belong together, so the oldest of the same gadgets do.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.node_status import NodeStatus
from kubectl_gadget.errors import ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import JOBS, PODS, Object

_TEXT = 100
"""Most characters of what others have written."""


@dataclass(frozen=True)
class AgentUse:
    """One run that uses agents."""

    user: str
    """empty: unknown"""
    gadgets: tuple[str, ...]
    """empty: unknown"""
    nodes: tuple[str, ...]
    seconds: float
    """since it began"""
    run: str = ""
    """of a run with agents of its own; empty: it uses resident agents"""

    def __str__(self) -> str:
        what = ", ".join(self.gadgets) or "unknown gadgets"
        whose = self.user or "an unknown user"
        return f"{what} by {whose} on {', '.join(self.nodes) or 'no node yet'}, for {self.age}"

    @property
    def age(self) -> str:
        """How long it runs, as kubectl writes it."""
        minutes, seconds = divmod(int(max(self.seconds, 0)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}h{minutes}m" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


async def on_demand(api: Api, options: AgentOptions) -> list[AgentUse]:
    """Returns the runs with agents of their own. Without the rights to see them, none. Raises ClusterError."""
    namespaces = (options.namespace, manifests.second_namespace(options.namespace))
    found = await asyncio.gather(*(_on_demand(api, namespace) for namespace in namespaces))
    return sorted((use for uses in found for use in uses), key=lambda use: -use.seconds)


async def _on_demand(api: Api, namespace: str) -> list[AgentUse]:
    nodes: defaultdict[str, list[str]] = defaultdict(list)
    with suppress(ForbiddenError):
        jobs, pods = await asyncio.gather(
            api.find(JOBS, namespace, labels=manifests.RUN_LABEL), api.find(PODS, namespace, labels=manifests.RUN_LABEL)
        )
        for pod in pods.items:
            nodes[pod["metadata"]["labels"][manifests.RUN_LABEL]].append(str(pod["spec"].get("nodeName", "")))
        return [_use(job, nodes) for job in jobs.items if "deletionTimestamp" not in job["metadata"]]
    return []


def _use(job: Object, nodes: defaultdict[str, list[str]]) -> AgentUse:
    metadata = job["metadata"]
    annotations, run = metadata.get("annotations") or {}, metadata["labels"][manifests.RUN_LABEL]
    began = datetime.fromisoformat(metadata["creationTimestamp"])
    return AgentUse(
        user=str(annotations.get(manifests.USER_ANNOTATION, ""))[:_TEXT],
        gadgets=tuple(str(annotations.get(manifests.GADGETS_ANNOTATION) or "unknown")[:_TEXT].split(",")),
        nodes=tuple(sorted(nodes[run])),
        seconds=(datetime.now(UTC) - began).total_seconds(),
        run=run,
    )


def in_residents(nodes: Sequence[NodeStatus]) -> list[AgentUse]:
    """Returns the runs that use resident agents, by what these report."""
    places: defaultdict[tuple[tuple[str, ...], int], list[tuple[str, float]]] = defaultdict(list)
    for node in nodes:
        counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for session in node.hello.sessions if node.hello else ():
            places[session.gadgets, counts[session.gadgets]].append((node.node, session.seconds))
            counts[session.gadgets] += 1
    found = [
        AgentUse("", gadgets, tuple(node for node, _ in where), max(seconds for _, seconds in where))
        for (gadgets, _), where in places.items()
    ]
    return sorted(found, key=lambda use: -use.seconds)
