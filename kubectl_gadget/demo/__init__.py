"""Pods without a cluster: real containers, started by runc, in the cgroups and bundles that kubelet and containerd
would make.

`kubectl gadget demo` runs a gadget on them, and tests use them as pods of their own. The agent gets no list of
them: it finds them as it finds a node's. The trap: they must vanish whatever becomes of us, see `shim`.
"""

from kubectl_gadget.demo.pods import DemoContainer, DemoPod, DemoPods
from kubectl_gadget.demo.scene import NETWORK_POLICIES, PODS, Scene, demo_pods, stage

__all__ = ["NETWORK_POLICIES", "PODS", "DemoContainer", "DemoPod", "DemoPods", "Scene", "demo_pods", "stage"]
