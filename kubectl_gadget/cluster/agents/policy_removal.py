"""Takes installed policies out of force on every node, for undeploy: they are pinned, and outlive agents.

Resident agents do this where they exist. When the deployment was removed by other means (`kubectl delete namespace`),
nothing in the namespace shows that policies are in force, but the ClusterRole of `deploy` still exists; on-demand
agents then check all nodes. The trap: the role may also exist just for users of on-demand agents, so it belongs to a
deployment only if it has its annotation; and a node that cannot be reached keeps its policies, so each node is
reported.
"""

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.cluster.agents import manifests
from kubectl_gadget.cluster.agents.boot import open_agent
from kubectl_gadget.cluster.agents.on_demand import OnDemandAgents
from kubectl_gadget.cluster.agents.startup import no_agent_possible, not_ready
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import CLUSTER_ROLES, CONFIG_MAPS, DAEMON_SETS, NODES, PODS, Object
from kubectl_gadget.cluster.cluster_options import AgentOptions
from kubectl_gadget.errors import ForbiddenError, GadgetError

_SECONDS = 30.0
_PARALLEL = 64
Say = Callable[[str], None]


@dataclass(frozen=True)
class NodeResult:
    """The result on one node."""

    node: str
    removed: int = 0
    """sets of policies that were pinned there"""
    problem: str = ""
    """why removing them may have failed"""


async def left_behind(api: Api, options: AgentOptions) -> Object | None:
    """Returns what is left of a deployment that was not removed by undeploy. None: nothing, or unknown."""
    try:
        role, daemon_set = await asyncio.gather(
            api.get(CLUSTER_ROLES, f"{manifests.NAME}-user"),
            api.get(DAEMON_SETS, manifests.NAME, options.namespace),
        )
    except ForbiddenError:
        return None
    if role is None or daemon_set is not None:
        return None
    return role if manifests.IMAGE_ANNOTATION in (role["metadata"].get("annotations") or {}) else None


async def take_out_of_force(api: Api, options: AgentOptions, say: Say) -> None:
    """Works on all nodes where policies are, or may be, installed. Raises ClusterError."""
    if (role := await left_behind(api, options)) is not None:
        results = await _on_all_nodes(api, options, role, say)
    elif await api.get(CONFIG_MAPS, manifests.POLICIES, options.namespace) is not None:
        pods = (await api.find(PODS, options.namespace, labels=manifests.RESIDENT_SELECTOR)).items
        results = await asyncio.gather(*(_release(api, options, pod) for pod in pods))
    else:
        return
    for result in sorted(results, key=lambda one: one.node):
        if result.problem:
            say(f"{result.node}: installed policies may still be in force there: {result.problem}")
            say("  to end that: rm -r /sys/fs/bpf/kubectl-gadget on the node, or reboot it")
        elif result.removed:
            say(f"{result.node}: installed policies are no longer in force")
        else:
            say(f"{result.node}: no installed policies were in force")


async def _on_all_nodes(api: Api, options: AgentOptions, role: Object, say: Say) -> list[NodeResult]:
    nodes = [node for node in (await api.find(NODES)).items if not no_agent_possible(node)]
    say(f"the agents were not removed by undeploy; looking for installed policies on {len(nodes)} nodes")
    annotations = role["metadata"].get("annotations") or {}
    options = replace(
        options,
        image=options.image or annotations.get(manifests.IMAGE_ANNOTATION),
        image_pull_policy=options.image_pull_policy or annotations.get(manifests.PULL_ANNOTATION),
        pins=True,
    )
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(agents: OnDemandAgents, node: Object) -> NodeResult:
        name = node["metadata"]["name"]
        if problem := not_ready(node):
            return NodeResult(name, problem=problem)
        async with slots:
            try:
                pod = await agents.start(name)
            except ForbiddenError:
                raise
            except GadgetError as error:
                return NodeResult(name, problem=str(error))
            return await _release(api, options, pod)

    async with Tasks(lambda error: say(f"agents may end early: {error}")) as tasks:
        agents = OnDemandAgents(api, options, tasks, secrets.token_hex(4), lambda _node, _text: None)
        try:
            return await asyncio.gather(*(one(agents, node) for node in nodes))
        finally:
            for remaining in await agents.close():
                say(f"may remain: {remaining}")


async def _release(api: Api, options: AgentOptions, pod: Object) -> NodeResult:
    node, name = str(pod["spec"].get("nodeName")), pod["metadata"]["name"]
    said = b""
    try:
        async with asyncio.timeout(_SECONDS):
            stream = await open_agent(api, options.namespace, name, manifests.CONTAINER, ("release",))
            try:
                while piece := await stream.receive():
                    said += piece
            finally:
                await stream.close()
    except TimeoutError:
        return NodeResult(node, problem=f"its agent does not answer within {_SECONDS:.0f} s")
    except GadgetError as error:
        return NodeResult(node, problem=str(error))
    if stream.exit_code != 0:
        return NodeResult(node, problem=stream.stderr_tail or "its agent failed")
    try:
        return NodeResult(node, int(json.loads(said)["removed"]))
    except (ValueError, LookupError, TypeError):
        return NodeResult(node, problem=f"its agent printed {said[:80]!r}")
