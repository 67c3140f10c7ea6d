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
        installed_file(keep([("p.yaml", POLICY % (label, hook))], "default"), False, {})
