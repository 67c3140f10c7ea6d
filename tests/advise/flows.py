"""Recordings made by hand."""

from typing import Any

from kubectl_gadget.advise import networkpolicy
from kubectl_gadget.advise.uses import SeenUses, Use, WatchPeriod
from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Port, Service

WEB = Pod("shop", "web-7d9f-x1", "u1", {"app": "web", "pod-template-hash": "7d9f"}, ("10.0.0.1", "fd00::1"), False,
          "ReplicaSet", "web-7d9f")  # fmt: skip
WEB_2 = Pod("shop", "web-7d9f-x2", "u2", {"app": "web", "pod-template-hash": "7d9f"}, ("10.0.0.2",), False,
            "ReplicaSet", "web-7d9f")  # fmt: skip
DB = Pod("data", "db-0", "u3", {"app": "db", "statefulset.kubernetes.io/pod-name": "db-0"}, ("10.0.0.3",), False,
         "StatefulSet", "db", (Port("postgres", "TCP", 5432),))  # fmt: skip
DNS = Pod("kube-system", "coredns-1", "u4", {"k8s-app": "kube-dns"}, ("10.0.0.4",))
ON_HOST = Pod("kube-system", "proxy", "u5", {"app": "proxy"}, ("192.168.0.1",), True)
BARE = Pod("shop", "bare", "u6", {}, ("10.0.0.6",))
SERVICES = [
    Service("data", "db", ("10.96.0.3",), (Port("", "TCP", 80, "postgres"),), {"app": "db"}),
    Service("kube-system", "kube-dns", ("10.96.0.10",),
            (Port("dns", "UDP", 53, 53), Port("dns-tcp", "TCP", 53, 53)), {"k8s-app": "kube-dns"}),
    Service("default", "kubernetes", ("10.96.0.1",), (Port("https", "TCP", 443, 6443),), {},
            (("192.168.0.1", "TCP", 6443),)),
]  # fmt: skip
NODE = Node("n1", ("192.168.0.1",))


def recording(*uses: Use) -> SeenUses:
    """Of ten hours in this small cluster."""
    inventory = Inventory([WEB, WEB_2, DB, DNS, ON_HOST, BARE], list(SERVICES), [NODE])
    made = SeenUses(networkpolicy.KIND, [WatchPeriod("2026-01-01T12:00:00Z", 36_000.0, ("n1",), 0)], inventory)
    made.add(uses)
    return made


def flow(pod: Pod, direction: str, remote: str, port: int, protocol: str = "TCP", **others: Any) -> Use:
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "container": "main",
        "local": pod.addresses[0],
        "direction": direction,
        "protocol": protocol,
        "remote": remote,
        "port": port,
        "connections": 1,
        "sent_packets": 3,
        "received_packets": 2,
        **others,
    }
