"""Turns the user's selection into nodes and their agents' filters, as pods and nodes come and go.

Combines watches of pods and nodes, and for some workloads of Jobs or services. An agent knows neither labels nor
owners. For `-l` and for workloads it gets the pods not to trace, so a pod that is too new to be decided is traced, and
`wants` decides later.
"""

import asyncio
import difflib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from kubectl_gadget.agents.pod_readiness import no_agent_possible, not_ready
from kubectl_gadget.background_tasks import Tasks, as_gadget_error, cancel
from kubectl_gadget.errors import ClusterError, ForbiddenError, GadgetError
from kubectl_gadget.kube import selectors
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.informer import Change, Changed, Informer, Subscription, Synced
from kubectl_gadget.kube.inventory import PodValues, container_key
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICES,
    STATEFUL_SETS,
    Object,
    Resource,
)
from kubectl_gadget.wire.client_messages import FilterSpec, PodNames

# Workloads and services: the pods of `deploy/web`, `cronjob/backup` or `svc/web`, as they change. A pod belongs
# to a workload through its controller, and to a service through the service's selector. Note: labels alone would
# include pods that merely have the same labels. A ReplicaSet is recognized by its name, which the Deployment
# builds from its own name and the label `pod-template-hash`, so no right to list ReplicaSets is needed.


_RESOURCES = {
    resource.kind.lower(): resource
    for resource in (
        DEPLOYMENTS,
        REPLICA_SETS,
        STATEFUL_SETS,
        DAEMON_SETS,
        JOBS,
        CRON_JOBS,
        SERVICES,
        REPLICATION_CONTROLLERS,
    )
}
_TEMPLATE = "pod-template-hash"


class Controller(NamedTuple):
    """The controller of an object."""

    group: str = ""
    kind: str = ""
    name: str = ""

    @classmethod
    def of(cls, found: Object) -> "Controller":
        """Returns the controller of any object; empty when it has none."""
        for owner in found["metadata"].get("ownerReferences") or ():
            if owner.get("controller"):
                group = str(owner.get("apiVersion", "")).rpartition("/")[0]
                return cls(group, owner.get("kind", ""), owner.get("name", ""))
        return cls()


class Workloads:
    """The chosen workloads and services, as (kind, name), in one namespace."""

    def __init__(self, api: Api, chosen: Sequence[tuple[str, str]], namespace: str) -> None:
        self._api = api
        self._chosen = chosen
        self._namespace = namespace
        self._jobs: dict[str, str] = {}
        """the CronJob of each Job; also of deleted Jobs, whose last events may still arrive"""
        self._services: dict[str, Mapping[str, str]] = {}
        """selectors"""
        chosen_kinds = {kind for kind, _ in chosen}
        self.watched: tuple[Resource, ...] = (
            *((JOBS,) if "cronjob" in chosen_kinds else ()),
            *((SERVICES,) if "service" in chosen_kinds else ()),
        )
        """the resources to list and watch, and to pass to `see`"""

    def __str__(self) -> str:
        return ", ".join(f"{kind}/{name}" for kind, name in self._chosen)

    def accesses(self) -> list[Access]:
        """Returns the rights needed in addition to listing and watching `watched`."""
        kinds = dict.fromkeys(kind for kind, _ in self._chosen if kind != "service")
        return [Access("get", _RESOURCES[kind].qualified, self._namespace) for kind in kinds]

    async def check(self) -> None:
        """Raises ClusterError when one of them does not exist. `check_listed` checks services."""
        wanted = [(kind, name) for kind, name in self._chosen if kind != "service"]
        found = await asyncio.gather(
            *(self._api.get(_RESOURCES[kind], name, self._namespace) for kind, name in wanted), return_exceptions=True
        )
        for (kind, name), answer in zip(wanted, found, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                raise await self._not_found(kind, name)

    async def check_listed(self) -> None:
        """Raises ClusterError when a service does not exist or selects no pods. Call it once all `watched` are
        listed."""
        for kind, name in self._chosen:
            if kind != "service":
                continue
            if name not in self._services:
                raise await self._not_found(kind, name)
            if not self._services[name]:
                raise ClusterError(
                    f'services "{name}" in namespace {self._namespace} has no selector, so it has no pods of its own',
                    f"kubectl get endpointslices -n {self._namespace} -l kubernetes.io/service-name={name}",
                )

    def see(self, kind: Resource, change: Synced | Changed) -> None:
        """Applies a change of a resource in `watched`."""
        if kind is SERVICES and isinstance(change, Synced):
            self._services.clear()
        for found in change.items if isinstance(change, Synced) else [change.object]:
            name = found["metadata"]["name"]
            if kind is JOBS:
                owner = Controller.of(found)
                if (owner.group, owner.kind) == (CRON_JOBS.group, CRON_JOBS.kind):
                    self._jobs[name] = owner.name
            elif isinstance(change, Changed) and change.deleted:
                self._services.pop(name, None)
            else:
                self._services[name] = (found.get("spec") or {}).get("selector") or {}

    def accepts(self, labels: Mapping[str, str], controller: Controller) -> bool:
        """True if a pod of the namespace with these labels and this controller belongs to one of them."""
        return any(self._belongs(kind, name, labels, controller) for kind, name in self._chosen)

    def _belongs(self, kind: str, name: str, labels: Mapping[str, str], controller: Controller) -> bool:
        if kind == "service":
            selector = self._services.get(name)
            return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())
        if kind == "deployment":
            template = labels.get(_TEMPLATE)
            return bool(template) and controller == (REPLICA_SETS.group, REPLICA_SETS.kind, f"{name}-{template}")
        if kind == "cronjob":
            is_job = (controller.group, controller.kind) == (JOBS.group, JOBS.kind)
            return is_job and self._jobs.get(controller.name) == name
        resource = _RESOURCES[kind]
        return controller == (resource.group, resource.kind, name)

    async def _not_found(self, kind: str, name: str) -> ClusterError:
        resource = _RESOURCES[kind]
        near: list[str] = []
        try:
            there = (await self._api.find(resource, self._namespace)).items
            near = difflib.get_close_matches(name, [found["metadata"]["name"] for found in there], 3, 0.5)
        except GadgetError:
            pass  # without the right to list them, there is no suggestion
        remedy = " or ".join(f"{kind}/{found}" for found in near)
        return ClusterError(
            f'{resource.qualified} "{name}" not found in namespace {self._namespace}',
            remedy or f"kubectl get {resource.plural} -n {self._namespace}",
        )


def facts(found: Any) -> tuple[Mapping[str, str], Controller]:
    """Returns what `Workloads.accepts` has to know about a pod."""
    return found["metadata"].get("labels") or {}, Controller.of(found)


# Targets: nodes, and the filters of their agents.

Require = Callable[[Sequence[Access]], Coroutine[object, object, None]]
"""Raises ForbiddenError when one of these rights, or another that the run needs, is missing."""

_SETTLE_SECONDS = 0.1
"""Changes within this time are reported together."""
_LINGER_SECONDS = 60.0
"""Seconds for which a node without selected pods is kept: a restarted pod often returns to the same node."""

_KEEP_SECONDS = 600.0
"""Seconds for which a deleted pod stays known."""


@dataclass(frozen=True)
class TargetChange:
    """The change to make: start nodes, leave nodes, and change the filter of nodes that stay."""

    add: dict[str, FilterSpec] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    update: dict[str, FilterSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pod:
    key: str
    """by which agents find its containers"""
    name: str
    node: str
    facts: tuple[Mapping[str, str], Controller] | None
    """for workloads: labels and controller"""
    matches: bool
    """the pod matches the label selector, or one of the workloads and names"""
    runs: bool
    """it may have a selected container that runs"""

    @property
    def alive(self) -> bool:
        return self.matches and self.runs


class Targets:
    """The nodes that take part in a run. `warn` is called with messages for the user."""

    def __init__(
        self,
        api: Api,
        informer: Informer,
        tasks: Tasks,
        selection: Selection,
        warn: Callable[[str], None],
        linger: float = _LINGER_SECONDS,
        require: Require | None = None,
        found: Callable[[Iterable[str]], object] = lambda _nodes: None,
    ) -> None:
        """`found` is called with the first nodes as soon as they are listed, while rights are still being checked."""
        self._api = api
        self._informer = informer
        self._tasks = tasks
        self._require = require or (lambda wanted: api.require(wanted, "choose nodes and pods"))
        self._selection = selection
        self._warn = warn
        self._linger = linger
        self._found = found
        self.namespace = None if selection.all_namespaces else selection.namespace or api.cluster.namespace
        self._labels = selectors.parse(selection.selector) if selection.selector else None
        self._node_labels = selectors.parse(selection.node_selector) if selection.node_selector else None
        self._workloads = (
            Workloads(api, selection.workloads, self.namespace) if selection.workloads and self.namespace else None
        )
        narrowed = bool(selection.pods or selection.workloads or selection.selector or selection.containers)
        self._by_node = (
            bool(selection.nodes)
            or self._node_labels is not None
            or selection.host
            or selection.every_node
            or (selection.all_namespaces and not narrowed)
        )
        """True if nodes are chosen directly, not for the pods on them"""
        self._chosen = PodNames(selection.pods)
        self._decides = self._workloads is not None or self._chosen.has_patterns
        """True if names and workloads are judged here: agents know no workloads, and older ones no patterns"""
        self._excludes = self._labels is not None or self._decides
        """True if agents get the pods to leave out"""
        self._by_pod = not self._by_node or self._excludes
        self._pods: dict[str, dict[str, _Pod]] = {}
        """by node, then by uid"""
        self._judged = PodValues[bool]()
        self._listed: set[str] = set()
        """uids of the pods that exist"""
        self._gone: dict[str, float] = {}
        """uids of deleted pods, and since when (monotonic seconds): their last events may still arrive"""
        self._nodes: set[str] = set()
        self._seen_nodes: set[str] = set()
        self._leaving: dict[str, float] = {}
        """when (monotonic seconds) nodes without selected pods are left"""
        self.skipped: dict[str, str] = {}
        """why nodes that are selected do not take part, by node"""
        self._named: set[str] = set()
        """the selected pods that have existed"""
        self._is_known = False
        """True if the first pods and nodes were listed"""
        self._has_run = False
        """True if any selected pod has run so far"""
        self._complained: set[str] = set()
        self._current: dict[str, FilterSpec] = {}
        self._refusal: GadgetError | None = None
        """because of missing rights or workloads"""
        self._queue: asyncio.Queue[tuple[Resource | None, Change | GadgetError]] = asyncio.Queue()

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """True if the label selector or a workload wants this pod, by its UID and NAMESPACE/NAME as its containers have
        them; None: not known yet. May be called from any thread."""
        return self._judged.of(pod_uid, pod_name) if self._excludes else True

    async def watch(self) -> AsyncGenerator[TargetChange, None]:
        """Yields the present state first, which may be empty, then each change. Never ends by itself. Raises
        ClusterError. Starts the informer.

        Close it (contextlib.aclosing) when leaving early.
        """
        wanted = ([PODS] if self._by_pod else []) + ([NODES] if self._by_node else [])
        wanted += self._workloads.watched if self._workloads else ()
        for kind in wanted:
            self._informer.subscribe(Subscription(kind, partial(self._put, kind), self.namespace, self.fail))
        self._informer.start()
        # Runs while the lists are being fetched, so that it adds no time.
        checks = self._tasks.start(self._check(self._accesses(wanted)), "rights and workloads")
        try:
            missing = set(wanted)
            while missing:
                try:
                    missing.discard(await self._take())
                except ForbiddenError as error:
                    await checks  # lists all missing rights, not only this one
                    raise self._refusal or error from None
            self._is_known = True
            self._found(self._choose())
            await checks
            if self._refusal is not None:
                raise self._refusal
            await self._complain()
            yield self._change()
            while True:
                await self._settle()
                change = self._change()
                if change != TargetChange():
                    yield change
        finally:
            await cancel(checks)

    def absent(self) -> tuple[str, ...]:
        """Return which selected pods have not existed so far, as clauses."""
        if not self._by_pod or not self._is_known:
            return ()
        where = self._where()
        names = [name for name in self._selection.pods if not self._has(self._named, name)]
        found = [f'pod "{name}" did not exist {where}' for name in names]
        if not self._by_node and not self._has_run and not found:
            found.append(f"no running pods were found {where}{self._described()}")
        return tuple(found)

    @staticmethod
    def _has(there: Iterable[str], name: str) -> bool:
        """True if a name is there, or a pattern matches one."""
        chosen = PodNames([name])
        return any(each in chosen for each in there)

    def fail(self, error: GadgetError) -> None:
        """Ends `watch` with an error that the caller found elsewhere."""
        self._queue.put_nowait((None, error))

    def _accesses(self, wanted: Sequence[Resource]) -> list[Access]:
        listed = [
            Access(verb, kind.qualified, self.namespace if kind.namespaced else None)
            for kind in wanted
            for verb in ("list", "watch")
        ]
        return listed + (self._workloads.accesses() if self._workloads else [])

    def _put(self, kind: Resource, change: Change) -> None:
        self._queue.put_nowait((kind, change))

    async def _check(self, accesses: Sequence[Access]) -> None:
        """Fails when rights that the run needs are missing, or otherwise when workloads are."""
        checks = self._require(accesses), self._check_workloads()
        for result in await asyncio.gather(*checks, return_exceptions=True):
            if isinstance(result, Exception):
                self._refusal = as_gadget_error(result)
                self.fail(self._refusal)
                return

    async def _check_workloads(self) -> None:
        if self._workloads:
            await self._check_namespace()
            await self._workloads.check()

    async def _settle(self) -> None:
        """Waits for changes, or for the time at which a node is to be left."""
        until = min(self._leaving.values(), default=None)
        try:
            async with asyncio.timeout(None if until is None else max(until - time.monotonic(), 0)):
                await self._take()
        except TimeoutError:
            return
        await asyncio.sleep(_SETTLE_SECONDS)
        while not self._queue.empty():
            await self._take()

    async def _take(self) -> Resource:
        kind, change = await self._queue.get()
        if isinstance(change, GadgetError):
            raise change
        assert kind is not None
        if kind is PODS:
            self._see_pods(change)
        elif kind is NODES:
            self._see_nodes(change)
        elif self._workloads:
            self._workloads.see(kind, change)
            self._judge_again()
        return kind

    def _judge_again(self) -> None:
        for pods in self._pods.values():
            for uid, pod in pods.items():
                matches = self._matches(pod.name, pod.facts)
                if matches != pod.matches:
                    pods[uid] = replace(pod, matches=matches)
                    self._judged.change(uid, matches)

    def _see_pods(self, change: Synced | Changed) -> None:
        if isinstance(change, Synced):
            there = {found["metadata"]["uid"] for found in change.items}
            self._gone |= dict.fromkeys(self._listed - there, time.monotonic())
            self._listed.clear()
            self._pods.clear()
            for found in change.items:
                self._see_pod(found, deleted=False)
        else:
            self._see_pod(change.object, change.deleted)
        self._forget_gone()

    def _see_pod(self, found: Object, deleted: bool) -> None:
        pod, uid = self._judge(found), found["metadata"]["uid"]
        if not deleted and pod.name in self._chosen:
            self._named.add(pod.name)
        self._judged.put(found, pod.matches)
        pods = self._pods.setdefault(pod.node, {}) if pod.node else {}
        if deleted:
            pods.pop(uid, None)
            self._listed.discard(uid)
            self._gone[uid] = time.monotonic()
        else:
            pods[uid] = pod
            self._listed.add(uid)

    def _forget_gone(self) -> None:
        limit = time.monotonic() - _KEEP_SECONDS
        while self._gone and (oldest := next(iter(self._gone.items())))[1] < limit:
            del self._gone[oldest[0]]
            self._judged.forget(oldest[0])

    def _judge(self, found: Object) -> _Pod:
        metadata, spec = found["metadata"], found.get("spec", {})
        chosen = self._selection
        kinds = ("initContainers", "containers", "ephemeralContainers")
        containers = {container["name"] for kind in kinds for container in spec.get(kind) or []}
        known = facts(found) if self._workloads else None
        if self._labels is not None:
            matches = self._labels.accepts(metadata.get("labels") or {})
        else:
            matches = self._matches(metadata["name"], known)
        selected = (self._workloads is not None or not chosen.pods or metadata["name"] in self._chosen) and (
            not chosen.containers or not containers.isdisjoint(chosen.containers)
        )
        return _Pod(
            key=container_key(found),
            name=metadata["name"],
            node=spec.get("nodeName") or "",
            facts=known,
            matches=matches,
            runs=selected and found.get("status", {}).get("phase") not in ("Succeeded", "Failed"),
        )

    def _matches(self, name: str, known: tuple[Mapping[str, str], Controller] | None) -> bool:
        """True if a pod belongs to one of the workloads, or is named beside them. True if the agents judge names."""
        if not self._decides or name in self._chosen:
            return True
        return self._workloads is not None and known is not None and self._workloads.accepts(*known)

    def _see_nodes(self, change: Synced | Changed) -> None:
        if isinstance(change, Synced):
            self._nodes.clear()
        for node in change.items if isinstance(change, Synced) else [change.object]:
            name = node["metadata"]["name"]
            self._seen_nodes.add(name)
            wanted = self._wants_node(node)
            deleted = isinstance(change, Changed) and change.deleted
            problem = _why_skipped(node) if wanted and not deleted else None
            if problem is not None and name not in self._current:
                self.skipped[name] = problem
            else:
                self.skipped.pop(name, None)
            if problem is not None and problem not in self._complained:
                self._complained.add(problem)
                self._warn(problem)
            if wanted and not deleted and problem is None:
                self._nodes.add(name)
            elif deleted or not wanted or name not in self._current:
                # A traced node that becomes unready keeps its session; its stream shows whether it is lost.
                self._nodes.discard(name)

    def _wants_node(self, node: Object) -> bool:
        if self._selection.nodes and node["metadata"]["name"] not in self._selection.nodes:
            return False
        return self._node_labels is None or self._node_labels.accepts(node["metadata"].get("labels") or {})

    def _change(self) -> TargetChange:
        """Returns what changed since the last call."""
        new = {node: self._filter(node) for node in sorted(self._choose())}
        old, self._current = self._current, new
        return TargetChange(
            add={node: found for node, found in new.items() if node not in old},
            remove=tuple(node for node in old if node not in new),
            update={node: found for node, found in new.items() if node in old and old[node] != found},
        )

    def _choose(self) -> Iterable[str]:
        if self._by_node:
            return self._nodes
        hosting = {node for node, pods in self._pods.items() if any(pod.alive for pod in pods.values())}
        self._has_run = self._has_run or bool(hosting)
        now = time.monotonic()
        left = self._current.keys() - hosting
        self._leaving = {node: self._leaving.get(node, now + self._linger) for node in left}
        self._leaving = {node: until for node, until in self._leaving.items() if until > now}
        return hosting | self._leaving.keys()

    def _filter(self, node: str) -> FilterSpec:
        excluded: list[str] = []
        if self._excludes:
            pods = self._pods.get(node, {}).values()
            excluded = sorted(pod.key for pod in pods if not pod.matches)
        return FilterSpec(
            namespaces=None if self.namespace is None else (self.namespace,),
            pods=None if self._decides else self._selection.pods or None,
            containers=self._selection.containers or None,
            exclude_pods=tuple(excluded),
            host=self._selection.host,
            own_processes=self._selection.own_processes,
        )

    async def _complain(self) -> None:
        """Reports selected objects that do not exist. Raises ClusterError for those that waiting will not bring."""
        unknown = [name for name in self._selection.nodes if name not in self._seen_nodes]
        if unknown:
            there = ", ".join(sorted(self._seen_nodes)[:20])
            raise ClusterError(f'nodes "{", ".join(unknown)}" not found', f"one of: {there}")
        if self._node_labels is not None and not self._nodes and not self.skipped:
            self._warn(f"No nodes found with labels {self._selection.node_selector}; waiting for them.")
        if self._workloads:
            await self._workloads.check_listed()
        pods = {pod.name: pod for found in self._pods.values() for pod in found.values()}
        where = self._where()
        if self._by_pod:
            for name in self._selection.pods:
                if not self._has(pods, name):
                    near = "" if "*" in name else _nearest(name, pods)
                    self._warn(f'pods "{name}" not found {where}; waiting for it.{near}')
        if self._by_pod and not self._by_node and not any(pod.alive for pod in pods.values()):
            await self._check_namespace()
            if self._workloads or not self._selection.pods:
                self._warn(f"No running pods found {where}{self._described()}; waiting for them.")

    def _where(self) -> str:
        return f"in {self.namespace} namespace" if self.namespace else "in any namespace"

    def _described(self) -> str:
        chosen = self._selection
        words = [f" of {self._workloads}"] if self._workloads else []
        words += [f" with labels {chosen.selector}"] if chosen.selector else []
        words += [f" with container {', '.join(chosen.containers)}"] if chosen.containers else []
        return "".join(words)

    async def _check_namespace(self) -> None:
        if self.namespace is None:
            return
        try:
            found = await self._api.get(NAMESPACES, self.namespace)
        except ForbiddenError:
            return  # without the right, it is unknown whether it exists
        if found is None:
            raise ClusterError(f'namespaces "{self.namespace}" not found', "kubectl get namespaces")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 3, 0.5)
    return f" Running there: {', '.join(near)}" if near else ""


def _why_skipped(node: Object) -> str | None:
    if why := no_agent_possible(node):
        return f"{why}; it is skipped"
    why = not_ready(node)
    return why and f"{why}; it is skipped until it is ready"
