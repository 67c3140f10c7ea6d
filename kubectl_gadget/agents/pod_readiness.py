"""Tells whether an agent's pod runs, is still starting, or can never run, and why.

A pod whose image cannot be pulled stays "Pending" for ever; only the waiting reason of its container shows it. A pod
that cannot be scheduled, or whose volumes cannot be mounted, has no reason there; then its events have it.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.boot import NO_PYTHON, OTHER_IMAGE, is_without_python
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError, DeployError
from kubectl_gadget.kube.informer import Synced, WatchScope, follow
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import EVENTS, NODES, PODS, Object

_HOPELESS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "ContainerCannotRun",
    }
)
_RETRIED = ("deadline exceeded", "is reserved for", "timed out")
"""in the kubelet's message: the runtime was too slow, or still holds the name of the attempt before"""
_USUAL = frozenset({"Pending", "ContainerCreating"})
"""Normal states of a starting pod, which are not reported."""
_IMAGE_REMEDY = (
    "--image-mirror with a registry that has it; or --image (or KUBECTL_GADGET_IMAGE) with any Python image that the "
    "nodes have: kubectl gadget status --images; --image-pull-secret where the registry asks for a password"
)
_TOOLS_REMEDY = (
    "--image with Python and bpftrace (or bcc): FROM python:3.13-slim and RUN apt-get update && apt-get install -y "
    "bpftrace; or on one node, not limited to pods: kubectl debug node/NODE -it --profile=sysadmin "
    "--image=quay.io/iovisor/bpftrace -- bpftrace -e PROGRAM"
)
_TEXT = 400
Answer = TypeVar("Answer")


def is_running(pod: Object) -> bool:
    """True if a session can be started in it with exec."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    going = "deletionTimestamp" in pod["metadata"]
    return bool(statuses) and not going and all("running" in status.get("state", {}) for status in statuses)


def state(pod: Object) -> str:
    """Returns one or two words, as in kubectl's STATUS column."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for status in pod.get("status", {}).get("containerStatuses") or []:
        for kind in ("waiting", "terminated"):
            if reason := (status.get("state", {}).get(kind) or {}).get("reason"):
                return str(reason)
    return str(pod.get("status", {}).get("phase", "Pending"))


def trouble(pod: Object, what: str = "the agent pod") -> DeployError | None:
    """Returns why this pod, `what` it is, will not run; None when it does, or still may."""
    where = f"{what} {pod['metadata']['name']} on {pod['spec'].get('nodeName', 'no node')}"
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or []:
        current = container.get("state", {})
        waiting, ended = current.get("waiting") or {}, current.get("terminated")
        if ended is None and waiting.get("reason") == "CrashLoopBackOff":
            ended = (container.get("lastState") or {}).get("terminated")
        if ended is not None and is_without_python(str(ended.get("message"))):
            return DeployError(f"{where} does not start: {NO_PYTHON} ({container.get('image', '')})", OTHER_IMAGE)
        if ended is not None:
            return DeployError(f"{where} ended with exit code {ended.get('exitCode')}: {_last_line(ended)}")
        if waiting.get("reason") in _HOPELESS and not _is_retried(waiting):
            reason, image = waiting["reason"], container.get("image", "")
            if is_without_python(str(waiting.get("message"))):
                return DeployError(f"{where} does not start: {NO_PYTHON} ({image})", OTHER_IMAGE)
            for_image = _TOOLS_REMEDY if image.partition("@")[0].endswith("-bcc") else _IMAGE_REMEDY
            remedy = for_image if "Image" in reason else None
            return DeployError(f"{where} does not start: {reason} ({image}): {_short(waiting.get('message'))}", remedy)
    if status.get("phase") in ("Failed", "Succeeded"):
        why = status.get("message") or status.get("reason") or "it printed nothing"
        return DeployError(f"{where} was refused by the node or has ended: {_short(why)}")
    if "deletionTimestamp" in pod["metadata"]:
        return DeployError(f"{where} is being deleted")
    return None


def _is_retried(waiting: Object) -> bool:
    """Return True if a container could not be created in time, which a busy node's kubelet tries again."""
    message = str(waiting.get("message"))
    return waiting.get("reason") == "CreateContainerError" and any(words in message for words in _RETRIED)


def _last_line(ended: Object) -> str:
    """Return why it ended: its last error, or else its last line."""
    lines = [line.strip() for line in str(ended.get("message") or "").splitlines() if line.strip()]
    lines = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
    return lines[-1][:_TEXT] if lines else str(ended.get("reason") or "it printed nothing")


def _short(text: object) -> str:
    return " ".join(str(text or "no reason was given").split())[:_TEXT]


async def wait_running(
    api: Api,
    namespace: str,
    name: str,
    seconds: float,
    say: Callable[[str], None] = lambda _: None,
    states: AsyncGenerator[Object | None, None] | None = None,
) -> Object:
    """Returns the pod once it runs. Raises DeployError, with the reason, when it cannot run, or after `seconds`.
    `states` are the pod's states, None after its deletion, if the caller follows it."""
    seen: Object | None = None
    try:
        async with asyncio.timeout(seconds), aclosing(states or _states(api, namespace, name)) as found:
            async for pod in found:
                if pod is None:
                    raise DeployError(f"the agent pod {namespace}/{name} was deleted while it started")
                if is_running(pod):
                    return pod
                if (error := trouble(pod)) is not None:
                    raise error
                if state(pod) not in _USUAL and (seen is None or state(seen) != state(pod)):
                    say(f"agent pod {name}: {state(pod)}")
                seen = pod
    except TimeoutError:
        raise await _too_late(api, namespace, name, seconds, seen) from None
    raise AssertionError("a watch does not end by itself")


async def _states(api: Api, namespace: str, name: str) -> AsyncGenerator[Object | None, None]:
    async with aclosing(follow(api, WatchScope(PODS, namespace, fields=f"metadata.name={name}"))) as changes:
        async for change in changes:
            if isinstance(change, Synced):
                yield change.items[0] if change.items else None
            else:
                yield None if change.deleted else change.object


async def _too_late(api: Api, namespace: str, name: str, seconds: float, pod: Object | None) -> DeployError:
    node = (pod or {}).get("spec", {}).get("nodeName")
    said = [state(pod)] if pod is not None else []
    said += await recent_warnings(api, namespace, name)
    if node and (found := await _ask(api.get(NODES, node))) is not None and (why := not_ready(found)):
        said.append(why)
    return DeployError(
        f"the agent pod {name} on {node} is not running after {seconds:.0f} s: {'; '.join(said) or 'reason unknown'}",
        f"kubectl -n {namespace} describe pod {name}",
    )


async def recent_warnings(api: Api, namespace: str, name: str) -> list[str]:
    """Returns at most three warning events about one object, newest last; none when we may not read events."""
    fields = f"involvedObject.name={name},type=Warning"
    listing = await _ask(api.find(EVENTS, namespace, fields=fields))
    if listing is None:
        return []
    events = sorted(listing.items, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return [f"{event.get('reason')}: {_short(event.get('message'))}" for event in events[-3:]]


async def _ask(request: Awaitable[Answer]) -> Answer | None:
    """Asks for details of an error. Returns None on failure, so that the error is reported without them."""
    try:
        return await request
    except ClusterError:
        return None


def no_agent_possible(node: Object) -> str | None:
    """Returns why no agent can ever run on a node; None when one can."""
    labels = node["metadata"].get("labels") or {}
    name = node["metadata"]["name"]
    if labels.get("kubernetes.io/os", "linux") != "linux":
        return f"node {name} runs {labels['kubernetes.io/os']}, and agents need Linux"
    if labels.get("eks.amazonaws.com/compute-type") == "fargate":
        return f"node {name} belongs to AWS Fargate, which allows no agent"
    if labels.get("type") == "virtual-kubelet":
        return f"node {name} is virtual and runs no agent"
    return None


def not_ready(node: Object) -> str | None:
    """Returns why a node cannot run anything; None when it can."""
    for condition in node.get("status", {}).get("conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            why = f"{condition.get('reason')}: {_short(condition.get('message'))}"
            return f"node {node['metadata']['name']} is not ready ({why})"
    return None


# The states of one run's pods while they start: one watch for all of them, however many nodes there are. The
# watch may show a pod before the answer to its creation arrives, so states are kept until they are asked for.


class StartingPods:
    """Follows the pods of `run` until `end` is called."""

    def __init__(self, api: Api, tasks: Tasks, namespace: str, run: str) -> None:
        self._queues: defaultdict[str, asyncio.Queue[Object | ClusterError | None]] = defaultdict(asyncio.Queue)
        self._present: set[str] = set()
        self._started: set[str] = set()
        self._failure: ClusterError | None = None
        scope = WatchScope(PODS, namespace, labels=f"{manifests.RUN_LABEL}={run}")
        self._task = tasks.start(self._follow(api, scope), "starting agents")

    def end(self) -> None:
        """Ends the watch. Nobody may wait for a pod any more."""
        self._task.cancel()

    async def states(self, name: str) -> AsyncGenerator[Object | None, None]:
        """Yields the states of one pod; None when it was deleted. Never ends by itself. Raises ClusterError."""
        try:
            while self._failure is None:
                state = await self._queues[name].get()
                if isinstance(state, ClusterError):
                    break
                yield state
        finally:
            self._started.add(name)
            self._queues.pop(name, None)
        assert self._failure is not None
        raise self._failure

    async def _follow(self, api: Api, scope: WatchScope) -> None:
        try:
            async with aclosing(follow(api, scope)) as changes:
                async for change in changes:
                    if isinstance(change, Synced):
                        pods = {pod["metadata"]["name"]: pod for pod in change.items}
                        # A pod that is not listed yet may have been created since.
                        for name in self._present - pods.keys():
                            self._put(name, None)
                        for name, pod in pods.items():
                            self._put(name, pod)
                    else:
                        self._put(change.object["metadata"]["name"], None if change.deleted else change.object)
        except ClusterError as error:
            self._failure = error
            for queue in self._queues.values():
                queue.put_nowait(error)

    def _put(self, name: str, state: Object | None) -> None:
        (self._present.discard if state is None else self._present.add)(name)
        if name not in self._started:
            self._queues[name].put_nowait(state)
