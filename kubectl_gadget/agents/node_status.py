"""The status of each node: its agent, what that agent reports as possible there, its users, and images for agents.

A node that does not answer must not hide the others, so each has its own time limit and its own error. Nodes list only
names and sizes of images, by default only of the 50 largest; so the choice, for clusters that cannot pull the default
image, is made by name, and images with other names may also contain Python.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.boot import open_command
from kubectl_gadget.agents.per_node import USER_REMEDY
from kubectl_gadget.agents.pod_readiness import is_running, not_ready, state, trouble
from kubectl_gadget.errors import ClusterError, ForbiddenError, GadgetError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.requests import Api, Listing
from kubectl_gadget.kube.resources import JOBS, NODES, PODS, Object
from kubectl_gadget.wire.agent_messages import Hello, from_agent
from kubectl_gadget.wire.frames import FrameDecoder
from kubectl_gadget.wording import age

_HELLO_SECONDS = 10.0
_PARALLEL = 16
_OURS = re.compile(r"(^|/)kubectl-gadget/agent[:@]")
_PYTHON = re.compile(r"(^|/)[a-z0-9._-]*python[a-z0-9._-]*(/[a-z0-9._-]+)*[:@]")
_VERSION = re.compile(r"(?:python|:)-?3[.-]?(\d+)")
_OLDEST = 9
"""The minor version of Python 3.9."""


@dataclass(frozen=True)
class NodeStatus:
    """The status of one node."""

    node: str
    pod: str | None = None
    """the resident agent's pod; None: there is none"""
    state: str = "none"
    """as in kubectl's STATUS column"""
    image: str = ""
    restarts: int = 0
    kernel: str = ""
    """as the kubelet reports it, so also on nodes without an agent"""
    architecture: str = ""
    """in Kubernetes' notation, such as amd64"""
    hello: Hello | None = None
    """HELLO of docs/protocol.md"""
    problem: str | None = None
    """why there is no HELLO"""

    def to_json(self) -> dict[str, object]:
        """Returns it as `status -o json` prints it."""
        return {**vars(self), "hello": None if self.hello is None else self.hello.to_json()}


async def status(api: Api, options: AgentOptions) -> list[NodeStatus]:
    """Returns the status of each node of the cluster, sorted by name.

    Raises ForbiddenError that lists all missing rights, or ClusterError when nodes or pods cannot be listed.
    """
    wanted = [
        Access("list", NODES.plural),
        Access("list", PODS.plural, options.namespace),
        Access("create", PODS.plural, options.namespace, "exec"),
    ]
    nodes, pods, rights = await asyncio.gather(
        api.find(NODES),
        api.find(PODS, options.namespace, labels=manifests.RESIDENT_SELECTOR),
        api.require(wanted, "see the agents", USER_REMEDY),
        return_exceptions=True,
    )
    for result in (rights, nodes, pods):
        if isinstance(result, BaseException):
            raise result
    assert isinstance(nodes, Listing)
    assert isinstance(pods, Listing)
    by_node = {pod["spec"].get("nodeName"): pod for pod in pods.items}
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(node: Object) -> NodeStatus:
        async with slots:
            return await _one(api, options, node, by_node.get(node["metadata"]["name"]))

    return sorted(await asyncio.gather(*map(one, nodes.items)), key=lambda found: found.node)


async def _one(api: Api, options: AgentOptions, node: Object, pod: Object | None) -> NodeStatus:
    name = node["metadata"]["name"]
    facts = node.get("status", {}).get("nodeInfo") or {}
    kernel, architecture = str(facts.get("kernelVersion", "")), str(facts.get("architecture", ""))
    if pod is None:
        return NodeStatus(name, kernel=kernel, architecture=architecture, problem=not_ready(node))
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    hello, problem = None, not_ready(node)
    if not is_running(pod):
        problem = str(trouble(pod) or problem or state(pod))
    else:
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                hello = await _ask(api, options, pod)
        except TimeoutError:
            problem = f"its agent does not answer within {_HELLO_SECONDS:.0f} s"
        except GadgetError as error:
            problem = str(error)
    return NodeStatus(
        node=name,
        pod=pod["metadata"]["name"],
        state=state(pod),
        image=pod["spec"]["containers"][0]["image"],
        restarts=int(statuses[0].get("restartCount", 0)),
        kernel=kernel,
        architecture=architecture,
        hello=hello,
        problem=problem,
    )


async def _ask(api: Api, options: AgentOptions, pod: Object) -> Hello:
    command = manifests.own_command(pod)
    stream = await open_command(api, options.namespace, pod["metadata"]["name"], manifests.CONTAINER, command)
    try:
        decoder = FrameDecoder()
        while data := await stream.receive():
            for frame in decoder.feed(data):
                if isinstance(message := from_agent(frame), Hello):
                    return message
        raise ClusterError(f"its agent ended: {stream.stderr_tail or 'it printed nothing'}")
    finally:
        await stream.close()


@dataclass(frozen=True)
class Candidate:
    """One image."""

    image: str
    nodes: int
    """number of nodes that have it"""
    bytes: int
    ours: bool
    """True if it is an image of ours, which contains an agent"""


async def candidates(api: Api) -> tuple[list[Candidate], int]:
    """Returns the images, those on most nodes first, and the number of nodes. Raises ClusterError."""
    await api.require([Access("list", NODES.plural)], "see which images nodes have", "ask for the right to list nodes")
    nodes = (await api.find(NODES)).items
    return choose(nodes), len(nodes)


def choose(nodes: Iterable[Object]) -> list[Candidate]:
    """Chooses from the nodes' objects."""
    found: dict[str, Candidate] = {}
    for node in nodes:
        for image in node.get("status", {}).get("images") or []:
            names = [str(name) for name in image.get("names") or []]
            name = next((name for name in names if "@" not in name), names[0] if names else "")
            if not fits(name):
                continue
            before = found.get(name)
            size, count = int(image.get("sizeBytes") or 0), before.nodes if before else 0
            found[name] = Candidate(name, count + 1, size, bool(_OURS.search(name)))
    return sorted(found.values(), key=lambda one: (-one.nodes, not one.ours, one.bytes, one.image))


def fits(name: str) -> bool:
    """True if an image of this name probably has Python 3.9 or newer, or is ours."""
    if _OURS.search(name):
        return not name.endswith("-bcc")
    if not _PYTHON.search(name):
        return False
    version = _VERSION.search(name)
    return version is None or int(version[1]) >= _OLDEST


# Who uses agents at the moment. A run with agents of its own says on its anchor Job who started it; that is for
# other users, and not verified. A resident agent knows the commands of its sessions, but not whose they are,
# which the API server's audit log has. A run has one session on each node, and nothing says which belong
# together, so the oldest of the same gadgets do.


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
    map_bytes: int | None = None
    """memory of its BPF maps on the node where they have most; None: unknown"""

    def __str__(self) -> str:
        what = ", ".join(self.gadgets) or "unknown gadgets"
        whose = self.user or "an unknown user"
        return f"{what} by {whose} on {', '.join(self.nodes) or 'no node yet'}, for {self.age}"

    @property
    def age(self) -> str:
        """The time for which it has run, as kubectl writes it."""
        return age(self.seconds)


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
    places: defaultdict[tuple[tuple[str, ...], int], list[tuple[str, float, int | None]]] = defaultdict(list)
    for node in nodes:
        counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for session in node.hello.sessions if node.hello else ():
            places[session.gadgets, counts[session.gadgets]].append((node.node, session.seconds, session.map_bytes))
            counts[session.gadgets] += 1
    found = [
        AgentUse(
            "",
            gadgets,
            tuple(node for node, *_ in where),
            max(seconds for _, seconds, _ in where),
            map_bytes=max((bytes for *_, bytes in where if bytes is not None), default=None),
        )
        for (gadgets, _), where in places.items()
    ]
    return sorted(found, key=lambda use: -use.seconds)
