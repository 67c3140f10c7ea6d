"""An export for days: a Deployment of one pod that runs the client with the rights of an observer.

The pod is stateless: what happens while it is replaced is not sent, and nothing is sent twice. It needs contained
agents (`deploy --contained`), since the right to exec in any other agent is root on its node.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.pod_readiness import is_running, trouble
from kubectl_gadget.errors import ClusterError, DeployError, UsageError
from kubectl_gadget.export.targets import METRICS_PORT, SECRET_FOLDER
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    Object,
)

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_LABEL = "kubectl-gadget/export"
_SELECTOR = f"{manifests.NAME_LABEL}={manifests.NAME},{manifests.COMPONENT_LABEL}=export"
_KINDS = (SERVICE_ACCOUNTS, CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS, DEPLOYMENTS)
_POLL_SECONDS = 0.5
_CONTAINER = "export"
_LOG_LINES, _LOG_BYTES = 50, 1 << 16
Say = Callable[[str], None]


@dataclass(frozen=True)
class Installation:
    """The options of `export install`."""

    name: str
    gadgets: str
    """the words after `trace`: exec+tcp"""
    to: tuple[str, ...]
    """values of --export"""
    image: str
    """has `kubectl-gadget` with its packages for exports"""
    namespace: str = manifests.NAME
    """that of the agents"""
    more: tuple[str, ...] = ()
    """more words of the command"""
    secret: str | None = None
    """its keys are variables of the pod, and files in SECRET_FOLDER"""
    pull_policy: str | None = None
    pull_secret: str | None = None
    node_selector: str | None = None
    """labels of the nodes that it exports, in kubectl's notation"""
    pod_node_selector: Mapping[str, str] = field(default_factory=dict)
    """nodes where the pod may run"""

    def validate(self) -> None:
        """Raises UsageError."""
        if not NAME.fullmatch(self.name):
            raise UsageError(f"--name {self.name!r} is no name of at most 32 small letters, digits and hyphens")

    def command(self) -> list[str]:
        """Return the words of the run in the pod."""
        exports = [word for target in self.to for word in ("--export", target)]
        served = ["--export", f"prometheus=0.0.0.0:{METRICS_PORT}"]
        nodes = ["--node-selector", self.node_selector] if self.node_selector else []
        command = ["trace", self.gadgets, "-A", *nodes, "--agent-namespace", self.namespace]
        return [*command, *exports, *served, *self.more]


def objects(wanted: Installation) -> list[Object]:
    """Return the objects to apply, in their order."""
    found = manifests.documents("export")
    name = f"{manifests.NAME}-export-{wanted.name}"
    for one in found:
        metadata = one["metadata"]
        metadata["name"], metadata["labels"] = name, {**metadata["labels"], _LABEL: wanted.name}
        if "namespace" in metadata:
            metadata["namespace"] = wanted.namespace
        for subject in one.get("subjects", ()):
            subject["name"], subject["namespace"] = name, wanted.namespace
    spec = found[-1]["spec"]
    spec["selector"] = {"matchLabels": dict(found[-1]["metadata"]["labels"])}
    template = spec["template"]
    template["metadata"]["labels"] = dict(found[-1]["metadata"]["labels"])
    _fill(template["spec"], wanted, name)
    return found


def _fill(pod: Object, wanted: Installation, account: str) -> None:
    pod["serviceAccountName"] = account
    pod["nodeSelector"] |= wanted.pod_node_selector
    container = pod["containers"][0]
    container["image"] = wanted.image
    container["command"] += wanted.command()
    if wanted.pull_policy:
        container["imagePullPolicy"] = wanted.pull_policy
    if wanted.pull_secret:
        pod["imagePullSecrets"] = [{"name": wanted.pull_secret}]
    if wanted.secret:
        container["envFrom"] = [{"secretRef": {"name": wanted.secret}}]
        container["volumeMounts"].append({"name": "secret", "mountPath": SECRET_FOLDER, "readOnly": True})
        pod["volumes"].append({"name": "secret", "secret": {"secretName": wanted.secret, "defaultMode": 0o440}})


async def install(api: Api, wanted: Installation, say: Say, seconds: float | None) -> None:
    """Apply everything and wait until the pod is ready; `seconds` None: do not wait. Raises ClusterError."""
    await api.require(
        [
            Access(verb, kind.qualified, _place(kind, wanted.namespace))
            for kind in _KINDS
            for verb in ("create", "patch")
        ],
        "install an export",
        f"ask for these rights, and for bind on the role {manifests.OBSERVER}",
    )
    if await api.get(CLUSTER_ROLES, manifests.OBSERVER) is None:
        raise ClusterError(
            f"there are no contained agents in namespace {wanted.namespace}: an export has the rights of an observer, "
            "and with other agents its right to exec would be root on the nodes",
            "kubectl gadget deploy --contained",
        )
    namespace = await api.get(NAMESPACES, wanted.namespace)
    for one in objects(wanted):
        if one["kind"] == CLUSTER_ROLE_BINDINGS.kind and namespace is not None:
            # Goes with the namespace: undeploy removes all other objects with it.
            one["metadata"]["ownerReferences"] = [manifests.owner_reference(NAMESPACES, namespace)]
        kind = next(kind for kind in _KINDS if kind.kind == one["kind"])
        await api.apply(kind, one, one["metadata"].get("namespace"))
        say(f"{one['kind'].lower()}/{one['metadata']['name']} applied")
    if seconds is not None:
        await _until_ready(api, wanted, time.monotonic() + seconds)
        say(f"export {wanted.name} is ready; kubectl gadget export status shows it")


async def _until_ready(api: Api, wanted: Installation, deadline: float) -> None:
    why = "its pod was not created"
    name = f"{manifests.NAME}-export-{wanted.name}"
    while True:
        found = await api.get(DEPLOYMENTS, name, wanted.namespace) or {}
        status = found.get("status") or {}
        current = status.get("observedGeneration") == (found.get("metadata") or {}).get("generation")
        if current and status.get("updatedReplicas") == status.get("readyReplicas") == status.get("replicas") == 1:
            return
        pods = (await api.find(PODS, wanted.namespace, labels=f"{_SELECTOR},{_LABEL}={wanted.name}")).items
        for pod in pods:
            why = str(trouble(pod, "its pod") or _ended(pod) or "its pod is not ready")
        if time.monotonic() > deadline:
            remedy = f"kubectl logs -n {wanted.namespace} deploy/{name}; kubectl gadget export uninstall {wanted.name}"
            raise DeployError(f"export {wanted.name} is not ready: {why}", remedy)
        await asyncio.sleep(_POLL_SECONDS)


def _ended(pod: Object) -> str:
    """Return how the pod's container ended last; empty: it did not."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        for state in (status.get("state") or {}, status.get("lastState") or {}):
            if "terminated" in state:
                return f"its client ended with exit code {state['terminated'].get('exitCode')}"
    return ""


@dataclass(frozen=True)
class Installed:
    """An export that is there."""

    name: str
    namespace: str
    is_ready: bool
    restarts: int
    gadgets: str
    to: tuple[str, ...]
    age_seconds: int
    problem: str = ""


async def installed(api: Api) -> list[Installed]:
    """Return all exports of the cluster. Raises ClusterError."""
    deployments = (await api.find(DEPLOYMENTS, labels=_SELECTOR)).items
    pods = (await api.find(PODS, labels=_SELECTOR)).items if deployments else []
    found = sorted((_installed(one, pods) for one in deployments), key=lambda one: (one.namespace, one.name))
    return [replace(one, problem=one.problem or await _undelivered(api, one, pods)) for one in found]


async def _undelivered(api: Api, export: Installed, pods: Sequence[Object]) -> str:
    """Return what a ready export said last of its targets, if they do not take all; empty without the right to read
    logs. A target that is slow or down does not make the pod unready: it would be restarted, and lose what waits."""
    for pod in pods:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        if (namespace, pod["metadata"]["labels"].get(_LABEL)) != (export.namespace, export.name) or not is_running(pod):
            continue
        with suppress(ClusterError):
            log = await api.log(name, namespace, _CONTAINER, previous=False, lines=_LOG_LINES, size=_LOG_BYTES)
            last = {line.split(": ")[0]: line for line in log.splitlines() if line.startswith("export ")}
            return "; ".join(line for line in last.values() if ": it takes " not in line)
    return ""


def _installed(deployment: Object, pods: Sequence[Object]) -> Installed:
    metadata, status = deployment["metadata"], deployment.get("status") or {}
    name = metadata["labels"].get(_LABEL, metadata["name"])
    own = [pod for pod in pods if pod["metadata"]["namespace"] == metadata["namespace"]]
    own = [pod for pod in own if pod["metadata"]["labels"].get(_LABEL) == name]
    words = deployment["spec"]["template"]["spec"]["containers"][0].get("command") or []
    to = [value for word, value in pairwise(words) if word == "--export"]
    statuses = [one for pod in own for one in (pod.get("status") or {}).get("containerStatuses") or ()]
    is_ready = bool(status.get("readyReplicas"))
    found = [str(trouble(pod, "its pod") or _ended(pod) or "its pod is not ready") for pod in own]
    problem = "" if is_ready else (found or ["it has no pod"])[0]
    return Installed(
        name,
        metadata["namespace"],
        is_ready,
        sum(one.get("restartCount", 0) for one in statuses),
        words[words.index("trace") + 1] if "trace" in words else "",
        tuple(value for value in to if not value.endswith(f":{METRICS_PORT}")),
        _age(metadata.get("creationTimestamp")),
        problem,
    )


def _age(created: str | None) -> int:
    if not created:
        return 0
    return max(0, int(time.time() - datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()))


async def uninstall(api: Api, names: Sequence[str], namespace: str, say: Say) -> None:
    """Remove these exports, or all. Raises UsageError if one is not there, and ClusterError."""
    there = [one for one in await installed(api) if one.namespace == namespace]
    if unknown := [name for name in names if name not in {one.name for one in there}]:
        known = ", ".join(one.name for one in there) or "none"
        raise UsageError(f"namespace {namespace} has no export {', '.join(unknown)}; it has: {known}")
    for one in there:
        if names and one.name not in names:
            continue
        for kind in reversed(_KINDS):
            await api.delete(kind, f"{manifests.NAME}-export-{one.name}", _place(kind, namespace))
        say(f"export {one.name} removed")


def _place(kind: object, namespace: str) -> str | None:
    return None if kind is CLUSTER_ROLE_BINDINGS else namespace
