"""Pods without a cluster: real containers, started by runc, in cgroups and bundles as made by kubelet and
containerd.

`kubectl gadget demo` runs a gadget on them, and tests use such pods, too. The agent gets no list of them: it finds them
like the pods of a node. They must be removed however this process ends, see `shim`.
"""

from kubectl_gadget.demo.pods import DemoContainer, DemoPod, DemoPods
from kubectl_gadget.demo.scene import NETWORK_POLICIES, PODS, Scene, demo_pods, stage

__all__ = ["NETWORK_POLICIES", "PODS", "DemoContainer", "DemoPod", "DemoPods", "Scene", "demo_pods", "stage"]
