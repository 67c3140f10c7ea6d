"""The deployments that a cluster has and had: who shares cluster-wide objects, and whose pinned policies are left.

The users' ClusterRole serves all deployments and names each in an annotation, with its image. It outlives a namespace
that was deleted without undeploy, whose policies stay in force on the nodes because they are pinned. A deployment is
identified by the UID of its namespace: one of the same name that was created later is another. The role may
also exist just for users of on-demand agents, so it belongs to a deployment only if an annotation says so.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.boot import open_agent
from kubectl_gadget.agents.on_demand import OnDemandAgents
from kubectl_gadget.agents.pod_readiness import is_running, no_agent_possible, not_ready, state, trouble
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError, ForbiddenError, GadgetError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import CLUSTER_ROLES, CONFIG_MAPS, DAEMON_SETS, NAMESPACES, NODES, PODS, Object
from kubectl_gadget.wire.agent_messages import OwnedPins, ReleasedPins

Owner = tuple[str, str]
"""Namespace and its UID, as in OwnedPins."""


@dataclass(frozen=True)
class Deployments:
    """All of a cluster. Both have namespaces as keys."""

    present: frozenset[str] = frozenset()
    """with resident agents"""
    images: Mapping[str, str] = field(default_factory=dict)
    """of those that the role names, which includes deleted ones"""
    pull_policy: str | None = None

    @property
    def left_behind(self) -> list[str]:
        """Namespaces whose agents were not removed by undeploy."""
        return sorted(self.images.keys() - self.present)


async def find(api: Api) -> Deployments:
    """Finds all deployments. Without the permissions for it, none. Raises ClusterError."""
    try:
        role = await api.get(CLUSTER_ROLES, manifests.USER) or {"metadata": {}}
        listing = await api.find(DAEMON_SETS, labels=manifests.RESIDENT_SELECTOR)
    except ForbiddenError:
        return Deployments()
    prefix, annotations = manifests.DEPLOYMENT_PREFIX, role["metadata"].get("annotations") or {}
    images = {key.removeprefix(prefix): value for key, value in annotations.items() if key.startswith(prefix)}
    present = frozenset(str(found["metadata"].get("namespace")) for found in listing.items)
    return Deployments(present, images, annotations.get(manifests.PULL_ANNOTATION) or None)


async def others(api: Api, options: AgentOptions) -> list[str]:
    """Returns the namespaces of other deployments, whose users need the role. Raises ClusterError."""
    found = await find(api)
    named = found.images.keys() - found.present - {options.namespace}
    existing = {name for name in named if await _uid(api, name)}
    return sorted((found.present | existing) - {options.namespace})


async def exist(api: Api, pins: Iterable[OwnedPins]) -> Mapping[Owner, bool | None]:
    """Return whether the deployment of each of `pins` still exists; None: this cannot be found out."""
    held: dict[Owner, bool] = {}
    for one in pins:
        owner = (one.namespace, one.uid)
        held[owner] = one.held or held.get(owner, False)
    found: dict[Owner, bool | None] = {}
    for (namespace, uid), is_held in held.items():
        try:
            # An agent that runs proves that its deployment exists, even if it was restored with another UID.
            now = await _uid(api, namespace)
            found[namespace, uid] = is_held or (bool(now) and uid in ("", now))
        except ForbiddenError:
            found[namespace, uid] = is_held or None
    return found


def described(one: OwnedPins, exists: bool | None) -> str:
    """Names policies by their owner, as the subject of a sentence."""
    article, more = {
        True: ("the", ""),
        False: ("a", " that no longer exists"),
        None: ("a", " that may no longer exist"),
    }[exists]
    whose = f"policies of {article} deployment in namespace {one.namespace}{more}"
    return f"{whose} ({', '.join(one.policies)})" if one.policies else whose


def reports(node: str, pins: Iterable[OwnedPins], exist: Mapping[Owner, bool | None]) -> list[str]:
    """Returns what users should know about policies of others on a node."""
    found = []
    for one in pins:
        exists = exist[one.namespace, one.uid]
        remedy = "; kubectl gadget undeploy removes them" if exists is False and not one.held else ""
        found.append(f"{node}: {described(one, exists)} are in force{remedy}")
    return found


async def _uid(api: Api, namespace: str) -> str:
    """Returns the UID of a namespace; empty: there is none. Uses `list`, which roles permit for all namespaces."""
    listing = await api.find(NAMESPACES, fields=f"metadata.name={namespace}")
    return next((str(one["metadata"]["uid"]) for one in listing.items), "")


# Installed policies are pinned, and outlive agents: undeploy takes them out of force on the nodes.


_SECONDS = 30.0
_PARALLEL = 64
_BY_HAND = "rm -r /sys/fs/bpf/kubectl-gadget-policies on the node"
Say = Callable[[str], None]


@dataclass(frozen=True)
class _NodePins:
    """A node, its agent, and what is pinned there."""

    name: str
    pod: Object | None = None
    pins: tuple[OwnedPins, ...] = ()
    problem: str = ""
    """why that is unknown"""


async def take_out_of_force(api: Api, options: AgentOptions, say: Say, all_nodes: bool = False) -> None:
    """Works on all nodes with an agent, and where deployments were removed by other means, or with `all_nodes`, also on
    all others. Raises ClusterError."""
    known = await find(api)
    is_installed = await api.get(CONFIG_MAPS, manifests.POLICIES, options.namespace) is not None
    pods = (await api.find(PODS, options.namespace, labels=manifests.RESIDENT_SELECTOR)).items
    everywhere = bool(known.left_behind) or all_nodes
    residents = _residents(pods)
    if everywhere:  # pods on demand take the place of those that do not run, or whose DaemonSet is gone
        gone = options.namespace in known.left_behind
        residents = [node for node in residents if node.pod and not gone]
    async with _on_other_nodes(api, options, known, residents if everywhere else None, say) as started:
        slots = asyncio.Semaphore(_PARALLEL)
        nodes = await asyncio.gather(*(_look(api, options, node, slots) for node in (*residents, *started)))
        exists = await exist(api, (one for node in nodes for one in node.pins))
        nodes = sorted(nodes, key=lambda node: node.name)
        for said in await asyncio.gather(*(_clean(api, options, node, exists, is_installed, slots) for node in nodes)):
            for line in said if is_installed or everywhere or any(node.pins for node in nodes) else ():
                say(line)


def _residents(pods: Sequence[Object]) -> list[_NodePins]:
    found = [_resident(pod) for pod in pods if not manifests.is_contained(pod)]
    running = {node.name for node in found if node.pod}
    # Without those that a running pod has already replaced.
    return [node for node in found if node.pod or node.name not in running]


def _resident(pod: Object) -> _NodePins:
    name = str(pod["spec"].get("nodeName") or _intended(pod))
    if is_running(pod):
        return _NodePins(name, pod)
    return _NodePins(name, problem=str(trouble(pod) or f"its agent is in state {state(pod)}"))


def _intended(pod: Object) -> str:
    """The node that a DaemonSet's pod waits for while it is not scheduled."""
    try:
        terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        return str(terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])
    except (LookupError, TypeError):
        return f"the node of pod {pod['metadata']['name']}"


async def _look(api: Api, options: AgentOptions, node: _NodePins, slots: asyncio.Semaphore) -> _NodePins:
    if node.pod is None:
        return node
    try:
        async with slots:
            found = await _ask(api, options, node.pod, "pins")
        return replace(node, pins=tuple(OwnedPins.from_json(one, "pins") for one in found))
    except (GadgetError, TypeError) as error:
        return replace(node, problem=str(error))


async def _clean(
    api: Api,
    options: AgentOptions,
    node: _NodePins,
    exist: Mapping[Owner, bool | None],
    is_installed: bool,
    slots: asyncio.Semaphore,
) -> list[str]:
    """Removes what has to be removed from a node. Returns what users should know."""
    if node.pod is None or node.problem:
        return _failed(node, node.problem)
    own = [one for one in node.pins if one.namespace == options.namespace]
    others = [one for one in node.pins if one.namespace != options.namespace]
    gone = [f"{one.namespace}/{one.uid}" for one in others if exist[one.namespace, one.uid] is False]
    # Also if nothing is pinned: policies may be in force for as long as the agent lives.
    words = ["own", *gone] if own or is_installed else gone
    try:
        async with slots:
            answer = await _ask(api, options, node.pod, "release", *words) if words else {}
        done = ReleasedPins.from_json(answer, "release")
    except GadgetError as error:
        return _failed(node, str(error))
    kept = done.kept
    if "own" in kept:
        return _failed(node, kept["own"])
    said = []
    for one in others:
        word = f"{one.namespace}/{one.uid}"
        what = "are no longer in force" if word in gone and word not in kept else "stay in force"
        why = f": {kept[word]}" if word in kept else ""
        said.append(f"{node.name}: {described(one, exist[one.namespace, one.uid])} {what}{why}")
    if own or is_installed or not others:
        what = (
            "installed policies are no longer in force"
            if done.removed.get("own")
            else "no installed policies were in force"
        )
        said.insert(0, f"{node.name}: {what}")
    return said


def _failed(node: _NodePins, why: str) -> list[str]:
    return [
        f"{node.name}: installed policies may still be in force there: {why}",
        f"  to end that: {_BY_HAND}, or reboot it",
    ]


@asynccontextmanager
async def _on_other_nodes(
    api: Api, options: AgentOptions, known: Deployments, residents: Sequence[_NodePins] | None, say: Say
) -> AsyncIterator[list[_NodePins]]:
    """Starts agents on the nodes that are not among `residents`; None: on no node."""
    have = {node.name for node in residents or ()}
    listing = (await api.find(NODES)).items if residents is not None else []
    nodes = [node for node in listing if node["metadata"]["name"] not in have and not no_agent_possible(node)]
    if not nodes:
        yield []
        return
    if known.left_behind:
        say(f"the agents of namespace {', '.join(known.left_behind)} were not removed by undeploy")
    say(f"looking for installed policies on {len(nodes)} nodes")
    options = replace(
        options,
        image=options.image or next((known.images[name] for name in known.left_behind), None),
        image_pull_policy=options.image_pull_policy or known.pull_policy,
        pins=True,
    )
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(agents: OnDemandAgents, node: Object) -> _NodePins:
        name = node["metadata"]["name"]
        if problem := not_ready(node):
            return _NodePins(name, problem=problem)
        async with slots:
            try:
                return _NodePins(name, await agents.start(name))
            except ForbiddenError:
                raise
            except GadgetError as error:
                return _NodePins(name, problem=str(error))

    async with Tasks(lambda error: say(f"agents may stop before the run ends: {error}")) as tasks:
        agents = OnDemandAgents(api, options, tasks, secrets.token_hex(4), lambda _node, _text: None, ("undeploy",))
        try:
            yield await asyncio.gather(*(one(agents, node) for node in nodes))
        finally:
            for remaining in await agents.close():
                say(f"could not be removed: {remaining}")


async def _ask(api: Api, options: AgentOptions, pod: Object, *words: str) -> Any:
    """Runs a command of the agent, and returns the JSON that it prints. Raises ClusterError."""
    said = b""
    try:
        async with asyncio.timeout(_SECONDS):
            stream = await open_agent(api, options.namespace, pod["metadata"]["name"], manifests.CONTAINER, words)
            try:
                while piece := await stream.receive():
                    said += piece
            finally:
                await stream.close()
    except TimeoutError:
        raise ClusterError(f"its agent does not answer within {_SECONDS:.0f} s") from None
    if stream.exit_code != 0:
        raise ClusterError(stream.stderr_tail or "its agent failed")
    try:
        return json.loads(said)
    except ValueError:
        raise ClusterError(f"its agent printed {said[:80]!r}") from None
