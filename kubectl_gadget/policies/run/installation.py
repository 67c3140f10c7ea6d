"""Installed policies in a cluster: the ConfigMap that resident agents mount, and what each node reports about it.

The trap: a kubelet updates a mounted ConfigMap only every minute or so. A change of the pod makes it update at once, so
the pods get an annotation; users without that permission wait longer.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kubectl_gadget import gadgets
from kubectl_gadget.agents import deployments, manifests
from kubectl_gadget.agents.node_status import NodeStatus, status
from kubectl_gadget.errors import ClusterError, DeployError, ForbiddenError, UsageError
from kubectl_gadget.gadgets.schema import ARCHITECTURES
from kubectl_gadget.kube.api.failure import Access, StatusError
from kubectl_gadget.kube.api.requests import Api
from kubectl_gadget.kube.api.resources import CONFIG_MAPS, DAEMON_SETS, NAMESPACES, PODS, Object
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.policies.installed_policies import StoredPolicy, installed_file, stored_policies
from kubectl_gadget.wire.agent_messages import OwnedPins, PoliciesState

_ANNOTATION = "kubectl-gadget/policies"
_WEAKER = "kubectl-gadget/allow-weaker"
_DIGEST = "kubectl-gadget/digest"
_FILE = "policies.zip"
_MOST_BYTES = 1_000_000
"""A ConfigMap may hold 1 MiB, including names."""
_TRIES = 5
_POLL_SECONDS = 1.0
_KIND = "installed"
"""The kind of gadget that agents list in HELLO if they support installed policies."""
_REMEDY = "ask for the role in manifests/rbac-deployer.yaml"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Installed:
    """The content of the ConfigMap."""

    policies: tuple[StoredPolicy, ...] = ()
    allow_weaker: bool = False
    digest: str = ""
    version: str | None = None
    """None: there is no ConfigMap"""


@dataclass(frozen=True)
class PolicyChange:
    """`add` replaces policies of the same name; `remove` lists keys."""

    add: Sequence[StoredPolicy] = ()
    remove: Sequence[str] = ()
    allow_weaker: bool | None = None
    """None: unchanged"""


@dataclass(frozen=True)
class NodePolicies:
    """What one node reports."""

    node: str
    state: PoliciesState | None = None
    """as in HELLO; None: nothing was ever installed there, or it did not answer"""
    problem: str = ""
    has_agent: bool = True
    """a resident agent; without one, nothing is in force there"""
    others: tuple[OwnedPins, ...] = ()
    """pinned policies of other deployments"""

    @property
    def digest(self) -> str:
        """Digest of the node's set of policies; empty: none."""
        return "" if self.state is None else self.state.digest


async def read(api: Api, options: AgentOptions) -> Installed:
    """Reads what is installed. Raises ClusterError, or UsageError when this version cannot read it."""
    return _installed(await api.get(CONFIG_MAPS, manifests.POLICIES, options.namespace))


async def change(api: Api, options: AgentOptions, wanted: PolicyChange) -> Installed:
    """Adds and removes policies, and returns what is installed then. Raises ForbiddenError before anything is changed,
    DeployError when no agent would read it, UsageError when the policies cannot be installed together."""
    await api.require(_accesses(options), "install policies", _REMEDY)
    await _require_agents(api, options)
    owner = await _owner(api, options)
    for attempt in range(_TRIES):
        before = await read(api, options)
        try:
            return await _write(api, options, before, wanted, owner)
        except StatusError as error:
            if error.code != 409 or attempt + 1 == _TRIES:  # changed by another client meanwhile
                raise
    raise AssertionError("the loop ends by itself")


async def _owner(api: Api, options: AgentOptions) -> str:
    """Returns the namespace's UID, which nodes record with what they pin; empty for users who may not read it."""
    try:
        namespace = await api.get(NAMESPACES, options.namespace)
    except ForbiddenError:
        return ""
    return str(namespace["metadata"]["uid"]) if namespace else ""


async def _write(api: Api, options: AgentOptions, before: Installed, wanted: PolicyChange, owner: str) -> Installed:
    by_key = {one.key: one for one in before.policies}
    gone = [key for key in wanted.remove if by_key.pop(key, None)]
    by_key |= {one.key: one for one in wanted.add}
    allow_weaker = before.allow_weaker if wanted.allow_weaker is None else wanted.allow_weaker
    # The flag has to be given again with the next policy; otherwise it would stay in force unnoticed.
    allow_weaker = allow_weaker and bool(by_key)
    policies = [by_key[key] for key in sorted(by_key)]
    objects = {architecture: gadgets.object_bytes("policy", architecture) for architecture in ARCHITECTURES}
    digest, file = installed_file(policies, allow_weaker, objects, owner)
    data: dict[str, str | None] = {key: one.text for key, one in by_key.items()}
    encoded = base64.b64encode(file).decode()
    size = len(encoded) + sum(len(text or "") for text in data.values())
    if size > _MOST_BYTES:
        what = f"{len(policies)} policies take {size:,} bytes; a ConfigMap holds at most {_MOST_BYTES:,}"
        raise UsageError(what, "fewer policies, or shorter lists of values in them")
    annotations = {_DIGEST: digest, _WEAKER: str(allow_weaker).lower()}
    metadata: Object = {"name": manifests.POLICIES, "labels": manifests.OWN_LABELS, "annotations": annotations}
    body: Object = {"apiVersion": CONFIG_MAPS.api_version, "kind": CONFIG_MAPS.kind, "metadata": metadata}
    body["binaryData"] = {_FILE: encoded}
    if before.version is None:
        body["data"] = data
        written = await api.create(CONFIG_MAPS, body, options.namespace)
    else:
        metadata["resourceVersion"] = before.version
        body["data"] = data | dict.fromkeys(gone)
        written = await api.patch(CONFIG_MAPS, manifests.POLICIES, body, options.namespace)
    return Installed(tuple(policies), allow_weaker, digest, written["metadata"].get("resourceVersion", ""))


def _installed(found: Object | None) -> Installed:
    if found is None:
        return Installed()
    annotations = found["metadata"].get("annotations") or {}
    try:
        policies = tuple(stored_policies(found.get("data") or {}))
    except UsageError as error:
        remedy = f"update the client; or kubectl delete configmap {manifests.POLICIES}, which removes them all"
        raise UsageError(f"the installed policies cannot be decoded: {error}", remedy) from None
    return Installed(
        policies,
        annotations.get(_WEAKER) == "true",
        annotations.get(_DIGEST, ""),
        found["metadata"]["resourceVersion"],
    )


async def _require_agents(api: Api, options: AgentOptions) -> None:
    daemon_set = await api.get(DAEMON_SETS, manifests.NAME, options.namespace)
    if daemon_set is None:
        raise DeployError("installed policies need deployed agents, and there are none", "kubectl gadget deploy")
    if manifests.is_contained(daemon_set["spec"]["template"]):
        raise DeployError(
            "the resident agents are contained, and run no policies", "kubectl gadget deploy, without --contained"
        )
    volumes = daemon_set["spec"]["template"]["spec"].get("volumes") or []
    if not any((volume.get("configMap") or {}).get("name") == manifests.POLICIES for volume in volumes):
        raise DeployError(
            "the resident agents are too old for installed policies", "kubectl gadget deploy, which updates them"
        )


async def lacks_priority(api: Api, options: AgentOptions) -> bool:
    """Whether the resident agents may be evicted on a full node (`deploy --enforcing` prevents that)."""
    daemon_set = await api.get(DAEMON_SETS, manifests.NAME, options.namespace)
    return daemon_set is not None and not daemon_set["spec"]["template"]["spec"].get("priorityClassName")


def _accesses(options: AgentOptions) -> list[Access]:
    namespace, name = options.namespace, manifests.POLICIES
    wanted = [Access("create", CONFIG_MAPS.plural, namespace)]
    wanted += [Access(verb, CONFIG_MAPS.plural, namespace, name=name) for verb in ("get", "patch")]
    wanted += [Access("get", DAEMON_SETS.qualified, namespace, name=manifests.NAME)]
    return [*wanted, Access("list", PODS.plural, namespace), Access("create", PODS.plural, namespace, "exec")]


async def nudge(api: Api, options: AgentOptions, digest: str) -> bool:
    """Makes kubelets update the ConfigMap now. Returns False when that is not permitted."""
    pods = (await api.find(PODS, options.namespace, labels=manifests.RESIDENT_SELECTOR)).items
    annotation = {"metadata": {"annotations": {_ANNOTATION: digest[:16]}}}
    names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    results = await asyncio.gather(
        *(api.patch(PODS, name, annotation, options.namespace) for name in names), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, ClusterError):
            raise result
    return not any(isinstance(result, ForbiddenError) for result in results)


async def nodes(api: Api, options: AgentOptions) -> list[NodePolicies]:
    """Returns what each node reports."""
    return [_of_node(one) for one in await status(api, options)]


def _of_node(one: NodeStatus) -> NodePolicies:
    if one.pod is None:
        return NodePolicies(one.node, has_agent=False)
    if one.hello is None:
        return NodePolicies(one.node, problem=one.problem or "its agent does not answer")
    if _KIND not in one.hello.kinds:
        return NodePolicies(one.node, problem="its agent is too old for installed policies")
    state, others = one.hello.policies, one.hello.pins
    problem = state.problem if state else ""
    if state and not state.running:
        problem = "the process that enforces them is not running; pinned policies stay in force"
    return NodePolicies(one.node, state, problem, others=others)


async def reports_of_others(api: Api, options: AgentOptions, found: Sequence[NodePolicies]) -> list[str]:
    """Returns what users should know about policies of other deployments."""
    exist = await deployments.exist(api, (pins for one in found for pins in one.others))
    return [line for one in found for line in deployments.reports(one.node, one.others, exist)]


async def wait(api: Api, options: AgentOptions, digest: str, seconds: float, say: Say) -> list[NodePolicies]:
    """Waits at most `seconds` until every node with an agent has the ConfigMap's policies. Returns all reports."""
    deadline = time.monotonic() + seconds
    said = ""
    while True:
        found = await nodes(api, options)
        asked = [one for one in found if one.has_agent]
        there = sum(one.digest == digest for one in asked)
        text = f"{there}/{len(asked)} nodes have the change"
        if text != said:
            said = text
            say(text)
        if there == len(asked) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(_POLL_SECONDS)
