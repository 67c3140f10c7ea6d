"""What cannot stay without a client is refused when it is to be installed."""

import json

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.installed_policies import installed_file, policies_to_store
from kubectl_gadget.wire.policy_events.event_metadata import EventMetadata, read_metadata

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: p}
spec:
  podSelector: {matchLabels: {%s: web}}
  %s
"""
OF_A_NAMESPACE = "'k8s:io.kubernetes.pod.namespace'"


@pytest.mark.parametrize(
    ("label", "hook", "why"),
    [
        ("app", "kprobes: [{call: sys_openat}]", "labels of pods or nodes"),
        (OF_A_NAMESPACE, "uprobes: [{path: /bin/sh, symbols: [main]}]", "a uprobe cannot be installed"),
    ],
)
def test_what_needs_a_client_or_a_running_agent_is_refused(label: str, hook: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        installed_file(policies_to_store([("p.yaml", POLICY % (label, hook))], "default"), False, {})


@pytest.mark.parametrize("name", ["a b", "Up", "-a", "a/b"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    text = (POLICY % ("app", "kprobes: [{call: sys_openat}]")).replace("name: p", f"name: '{name}'")
    with pytest.raises(UsageError, match=rf"p\.yaml:2:1: metadata\.name '{name}' is not a valid Kubernetes name"):
        policies_to_store([("p.yaml", text)], "default")


@pytest.mark.parametrize("would_be", ["", "SENT SIGKILL"])
def test_a_description_is_read_as_it_was(would_be: str) -> None:
    described = EventMetadata("kprobe", function="f", policy="p", tags=("t",), returned=("int", "r"), would_be=would_be)
    assert read_metadata(json.loads(json.dumps(described.spec()))) == described
