"""What cannot stay without a client is refused when it is to be installed."""

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.installed import installed_file, keep

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: p}
spec:
  podSelector: {matchLabels: {%s: web}}
  kprobes: [{call: sys_openat, selectors: [{%s}]}]
"""


@pytest.mark.parametrize(
    ("label", "selector", "why"),
    [
        ("app", "", "labels of pods or nodes"),
        ("'k8s:io.kubernetes.pod.namespace'", "matchNamespaceChanges: [{operator: In, values: [Mnt]}]", "the exec"),
        (
            "'k8s:io.kubernetes.pod.namespace'",
            "matchBinaries: [{operator: In, values: [/bin/sh], followChildren: true}]",
            "followChildren",
        ),
    ],
)
def test_what_needs_a_client_or_a_running_agent_is_refused(label: str, selector: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        installed_file(keep([("p.yaml", POLICY % (label, selector))], "default"), False, {})
