"""Installed policies: the ConfigMap that stores them, the file that agents enforce without a client, and what each node
reports about it.
"""

import asyncio
import base64
import hashlib
import io
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from kubectl_gadget import gadgets
from kubectl_gadget.agents import deployments, manifests
from kubectl_gadget.agents.node_status import NodeStatus, status
from kubectl_gadget.errors import ClusterError, DeployError, ForbiddenError, UsageError
from kubectl_gadget.gadgets.schema import ARCHITECTURES
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.failure import Access, StatusError
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import CONFIG_MAPS, DAEMON_SETS, NAMESPACES, PODS, Object
from kubectl_gadget.policies.compiler.policies import CompiledPolicies, metadata_spec
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.language import POLICY_KINDS
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.wire.agent_messages import OwnedPins, PoliciesState
from kubectl_gadget.wire.policy_messages import InstalledFile, InstalledPolicy
from kubectl_gadget.wire.policy_record import FORMAT
from kubectl_gadget.yaml_reader import documents, items_of, peek

# Installed policies: how a ConfigMap stores them, and the file that agents enforce without a client.
#
# Each policy is stored as YAML, and all of them together as the file that agents read (policies.zip;
# docs/protocol.md, "Installed policies"), since policies at the same hook share its program. Each change therefore
# recompiles all policies, including those that an older client installed.

_WHOLE_CLUSTER = "_cluster"
"""Stands for the namespace in the keys of cluster-wide policies; no namespace can have this name."""
_SUFFIX = ".yaml"
_NAMESPACE = "namespace"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Kubernetes' syntax for names of objects, and so for a policy's name."""
_Sources = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class StoredPolicy:
    """One installed policy and its YAML."""

    policy: Policy
    text: str

    @property
    def key(self) -> str:
        """The policy's key in the ConfigMap."""
        return f"{self.policy.namespace or _WHOLE_CLUSTER}.{self.policy.name}{_SUFFIX}"

    @property
    def title(self) -> str:
        """The policy's name, for people."""
        return f"{self.policy.namespace}/{self.policy.name}" if self.policy.namespace else self.policy.name

    @property
    def enforces(self) -> bool:
        """Return True if enforcing it would deny calls or end processes."""
        return any(
            hook.enforces
            for hook in CompiledPolicies([self.policy], CompilerOptions(enforce=True, allow_weaker=True)).hooks
        )


def policies_to_store(sources: _Sources, namespace: str) -> list[StoredPolicy]:
    """The policies of some files, given as names and texts; `namespace` is for policies that name none. Raises
    UsageError with all errors."""
    texts = list(sources)
    for policy in parse_policies(texts, namespace):
        if not _NAME.fullmatch(policy.name):
            where = f"{policy.place.position}: metadata.name"
            raise UsageError(
                f"{where} {policy.name!r} is not a valid Kubernetes name", "lower-case letters, digits, - and ."
            )
    found = []
    for file, text in texts:
        for document in documents(file, text):
            for _, node in items_of(file, document):
                if peek(node, "kind") in POLICY_KINDS:
                    found += _stored(file, _with_namespace(node, namespace))
    return found


def stored_policies(data: Mapping[str, str]) -> list[StoredPolicy]:
    """The policies in a ConfigMap. Raises UsageError when this version cannot read them."""
    return [one for key in sorted(data) if key.endswith(_SUFFIX) for one in _stored(f"installed {key}", data[key])]


def _stored(file: str, text: str) -> list[StoredPolicy]:
    return [StoredPolicy(replace(policy, notes=()), text) for policy in parse_policies([(file, text)], "default")]


def _with_namespace(node: yaml.Node, namespace: str) -> str:
    """The object's YAML; a namespaced object always gets its namespace."""
    if peek(node, "kind") == POLICY_KINDS[1] and isinstance(node, yaml.MappingNode):
        metadata = next(value for key, value in node.value if key.value == "metadata")
        if not peek(metadata, _NAMESPACE):
            text = "tag:yaml.org,2002:str"
            metadata.value.append((yaml.ScalarNode(text, _NAMESPACE), yaml.ScalarNode(text, namespace)))
    return str(yaml.serialize(node))


def installed_file(
    policies: Sequence[StoredPolicy], allow_weaker: bool, objects: Mapping[str, bytes], owner: str = ""
) -> tuple[str, bytes]:
    """The file that agents load, and the digest of the state that it puts in force, empty for none. `objects` are the
    engine's BPF objects, by architecture; `owner` is the UID of the namespace. Raises UsageError for what cannot be
    done without a client."""
    everything = [one.policy for one in policies]
    compiled = CompiledPolicies(
        everything, CompilerOptions(enforce=True, allow_weaker=allow_weaker, names_process=True)
    )
    if compiled.by_labels:
        what = "policies that select by labels of pods or nodes cannot be installed: only a client knows the labels"
        raise UsageError(what, "podSelector with k8s:io.kubernetes.pod.namespace, or a TracingPolicyNamespaced")
    if any(hook.encoded.files for hook in compiled.hooks):
        what = "SameFile and NotSameFile cannot be installed: files are looked up only while a session runs"
        raise UsageError(what, "kubectl gadget observe -f, for as long as it runs")
    everything = compiled.policies
    numbers = {id(policy): number for number, policy in enumerate(everything)}
    spec = compiled.spec()
    hooks = (
        spec_hook.replace(
            policies=tuple(-1 if place is None else numbers[id(place.policy)] for place in hook.bits),
            metadata=metadata_spec(hook, everything),
        )
        for spec_hook, hook in zip(spec.hooks, compiled.hooks, strict=True)
    )
    enforcing = {id(place.policy) for hook in compiled.hooks for place in hook.bits if place and hook.enforces}
    described = tuple(
        InstalledPolicy(name=policy.name, namespace=policy.namespace, enforces=id(policy) in enforcing)
        for policy in everything
    )
    value = InstalledFile(format=FORMAT, digest="", policies=described, spec=spec.replace(hooks=tuple(hooks)))
    content = hashlib.sha256(value.to_bytes())
    for architecture in sorted(objects):
        content.update(objects[architecture])
    digest = content.hexdigest() if policies else ""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        _add(archive, "set.json", value.replace(digest=digest, owner=owner).to_bytes())
        for architecture, data in sorted(objects.items() if policies else ()):
            _add(archive, f"{architecture}.bpf.o", data)
    return digest, file.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Adds a file without the time of day, so that the same policies give the same archive."""
    archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_LZMA)


def refuse_enforcing(policies: Iterable[StoredPolicy]) -> None:
    """Raises UsageError when a policy does more than report."""
    enforcing = [one.title for one in policies if one.enforces]
    if enforcing:
        what = f"{', '.join(enforcing)} would deny or kill while installed"
        raise UsageError(what, "--enforce, if that is intended; or the option policy-mode: monitor in its spec")


# Installed policies in a cluster: the ConfigMap that resident agents mount, and what each node reports about it.
#
# A kubelet updates a mounted ConfigMap only every minute or so. A change of the pod makes it update immediately, so the
# pods get an annotation; users without that permission wait longer.


_ANNOTATION = "kubectl-gadget/policies"
_WEAKER = "kubectl-gadget/allow-weaker"
_DIGEST = "kubectl-gadget/digest"
_FILE = "policies.zip"
MOST_BYTES = 1_000_000
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
    """The report of one node."""

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
            if error.code != 409 or attempt + 1 == _TRIES:  # another client has changed it
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
    if size > MOST_BYTES:
        what = f"{len(policies)} policies take {size:,} bytes; a ConfigMap holds at most {MOST_BYTES:,}"
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
    """Return True if the resident agents may be evicted on a full node (`deploy --enforcing` prevents that)."""
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
