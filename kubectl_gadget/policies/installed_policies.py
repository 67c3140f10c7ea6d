"""Installed policies: how a ConfigMap stores them, and the file that agents enforce without a client.

Each policy is stored as YAML, and all of them together as the file that agents read (policies.zip; docs/protocol.md,
"Installed policies"), since policies at the same hook share its program. The trap: each change therefore recompiles all
policies, including those that an older client installed.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.compiled_policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selector_metadata import metadata_spec
from kubectl_gadget.policies.compiler.selectors_at_hook import CompilerOptions
from kubectl_gadget.policies.language.policy_schema import POLICY_KINDS
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.wire.policy_events.policy_record import FORMAT
from kubectl_gadget.wire.policy_messages import InstalledFile, InstalledPolicy
from kubectl_gadget.yaml_reader import documents, items_of, peek

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
        """Whether enforcing it would deny calls or end processes."""
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
