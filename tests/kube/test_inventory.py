"""Which pod a container belongs to, and what a pod that claims to be another one gets."""

from typing import Any

import pytest

from kubectl_gadget.kube.inventory import (
    Inventory,
    Mount,
    Node,
    Pod,
    PodValues,
    Port,
    Service,
    Workload,
    container_key,
    mirror_hash,
)

HASH = "0123456789abcdef0123456789abcdef"
VICTIM = "7e1c1a9e-0000-4000-8000-000000000001"


def pod(name: str, uid: str, namespace: str = "shop", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "uid": uid, **metadata}, "spec": {"nodeName": "node-1"}}


def mirror(name: str, uid: str, namespace: str = "kube-system", hash: str = HASH, node: str = "node-1") -> Any:
    """As a kubelet makes it, and as any user who may create pods can write it."""
    found = pod(name, uid, namespace, annotations=annotations(hash, hash), ownerReferences=[owner(node)])
    return {**found, "spec": {"nodeName": node}}


def annotations(hash: str, mirror: str) -> dict[str, str]:
    return {"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": mirror}


def owner(node: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "name": node, "uid": "node-uid", "controller": True, **more}


def test_a_mirror_pod_is_found_by_its_name_and_without_names_by_the_kubelets_uid() -> None:
    values = PodValues[str]()
    values.put(mirror("etcd-node-1", "uid-1"), "etcd")
    assert container_key(mirror("etcd-node-1", "uid-1")) == "kube-system/etcd-node-1"
    assert values.of(HASH, "kube-system/etcd-node-1") == "etcd"
    assert values.of(HASH, "") == "etcd"
    assert values.of("", "kube-system/etcd-node-1") == "etcd"


@pytest.mark.parametrize(
    "changed",
    [
        {"annotations": {"kubernetes.io/config.hash": HASH}},
        {"annotations": annotations(HASH, "another")},
        {"annotations": annotations("", "")},
        {"ownerReferences": []},
        {"ownerReferences": [owner("node-2")]},
        {"ownerReferences": [owner("node-1", kind="ReplicaSet")]},
        {"ownerReferences": [owner("node-1", controller=False)]},
        {"ownerReferences": [owner("node-1", apiVersion="example.org/v1")]},
    ],
)
def test_a_pod_that_a_kubelet_would_not_make_is_not_a_mirror_pod(changed: dict[str, Any]) -> None:
    found = mirror("etcd-node-1", "uid-1")
    found["metadata"] |= changed
    assert mirror_hash(found) == ""
    assert container_key(found) == "uid-1"


def test_a_pod_without_a_node_is_not_a_mirror_pod() -> None:
    found = mirror("etcd-node-1", "uid-1")
    del found["spec"]["nodeName"]
    assert mirror_hash(found) == ""


@pytest.mark.parametrize("first", [True, False])
def test_the_uid_of_the_api_wins_over_a_perfect_decoy(first: bool) -> None:
    values = PodValues[str]()
    both = [(pod("web", VICTIM), "web"), (mirror("decoy", "uid-2", "evil", hash=VICTIM), "decoy")]
    for found, value in both if first else reversed(both):
        values.put(found, value)
    assert values.of(VICTIM, "shop/web") == "web"
    assert values.of(VICTIM, "") == "web"


def test_a_perfect_decoy_of_a_static_pod_decides_nothing() -> None:
    values = PodValues[str]()
    values.put(mirror("etcd-node-1", "uid-1"), "etcd")
    values.put(mirror("decoy", "uid-2", "evil"), "decoy")
    assert values.of(HASH, "kube-system/etcd-node-1") == "etcd"
    assert values.of(HASH, "") is None  # two pods claim it, so it is undecided, and undecided pods are traced
    values.forget("uid-2")
    assert values.of(HASH, "") == "etcd"


def test_a_static_pod_that_is_not_listed_yet_is_not_taken_for_a_decoy() -> None:
    values = PodValues[str]()
    values.put(mirror("decoy", "uid-2", "evil"), "decoy")
    assert values.of(HASH, "kube-system/etcd-node-1") is None


def test_a_pod_that_replaces_another_of_its_name_does_not_speak_for_it() -> None:
    values = PodValues[str]()
    values.put(pod("web-0", "uid-1"), "old")
    values.put(pod("web-0", "uid-2"), "new")
    assert values.of("uid-1", "shop/web-0") == "old"
    assert values.of("uid-3", "shop/web-0") is None
    values.forget("uid-1")
    assert values.of("", "shop/web-0") == "new"
    assert values.of("uid-1", "shop/web-0") is None


def test_a_pod_of_a_file_without_uids_is_found_by_its_name() -> None:
    values = PodValues[str]()
    values.put(pod("web", "shop/web"), "web")
    assert values.of("uid-1", "shop/web") == "web"


# Pods, services and nodes as the API has them, and what they are replicas of.


@pytest.mark.parametrize(
    ("kind", "owner", "labels", "workload"),
    [
        ("ReplicaSet", "web-abc", {"pod-template-hash": "abc"}, "ns/deployment/web"),
        ("ReplicaSet", "alone", {}, "ns/replicaset/alone"),
        ("StatefulSet", "db", {}, "ns/statefulset/db"),
        ("DaemonSet", "agent", {}, "ns/daemonset/agent"),
        ("Job", "once", {}, "ns/job/once"),
        ("Job", "nightly-29012345", {}, "ns/cronjob/nightly"),
        ("Node", "n1", {}, "ns/pod/p"),
        ("", "", {}, "ns/pod/p"),
    ],
)
def test_a_pod_is_a_replica_of_what_its_owner_says(
    kind: str, owner: str, labels: dict[str, str], workload: str
) -> None:
    pod = Pod("ns", "p", labels=labels, owner_kind=kind, owner_name=owner)
    assert str(pod.workload) == workload


def test_labels_of_one_replica_or_generation_do_not_select() -> None:
    labels = {"app": "x", "pod-template-hash": "1", "controller-revision-hash": "2", "job-name": "j-29012345"}
    assert Pod("ns", "p", labels=labels).selecting_labels == {"app": "x", "job-name": "j-29012345"}
    of_cron = Pod("ns", "p", labels=labels, owner_kind="Job", owner_name="j-29012345")
    assert of_cron.selecting_labels == {"app": "x"}


def test_a_pod_of_the_api_is_read() -> None:
    pod = Pod.from_object(
        {
            "metadata": {
                "namespace": "ns",
                "name": "p",
                "uid": "u",
                "labels": {"a": "b"},
                "ownerReferences": [{"kind": "X", "name": "other"}, {"kind": "Job", "name": "j", "controller": True}],
            },
            "spec": {
                "initContainers": [{"name": "i"}],
                "containers": [
                    {
                        "name": "c",
                        "ports": [{"containerPort": 80, "name": "http"}],
                        "volumeMounts": [{"name": "v", "mountPath": "/data"}],
                    }
                ],
            },
            "status": {
                "phase": "Succeeded",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            },
        }
    )
    assert (pod.addresses, pod.init_containers, pod.ended) == (("10.0.0.1", "fd00::1"), ("i",), True)
    assert pod.ports == (Port("http", "TCP", 80),)
    assert pod.mounts == (Mount("c", "/data"),)
    assert pod.workload == Workload("ns", "Job", "j")


def test_a_service_of_the_api_is_read_with_its_endpoints() -> None:
    metadata = {"namespace": "ns", "name": "s"}
    plain = Service.from_object(
        {
            "metadata": metadata,
            "spec": {
                "clusterIPs": ["10.96.0.1", "fd01::1"],
                "externalIPs": ["192.0.2.1"],
                "selector": {"app": "x"},
                "ports": [{"port": 80, "targetPort": "http"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "x"}]}},
        }
    )
    assert plain.addresses == ("10.96.0.1", "fd01::1", "192.0.2.1", "192.0.2.2")
    assert plain.ports == (Port("", "TCP", 80, "http"),)
    slices = [
        {
            "metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [address]}],
            "ports": [{"port": 6443}],
        }
        for name, address in (("s", "192.0.2.9"), ("other", "192.0.2.8"))
    ]
    fixed = Service.from_object({"metadata": metadata, "spec": {"clusterIP": "None", "ports": [{"port": 443}]}}, slices)
    assert fixed.backends == (("192.0.2.9", "TCP", 6443),)
    assert fixed.addresses == ()


def test_a_nodes_addresses_are_those_that_packets_bear() -> None:
    addresses = [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"}]
    found = {"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.1.0.0/24"]}, "status": {"addresses": addresses}}
    assert Node.from_object(found) == Node("n", ("192.0.2.1",), ("10.1.0.0/24",))


def test_without_a_cluster_pods_are_known_by_their_names_and_addresses() -> None:
    inventory = Inventory()
    for address in (None, "10.0.0.1", "10.0.0.1", "fd00::1"):
        inventory.add_local("ns", "p", address)
    (pod,) = inventory.pods
    assert pod.addresses == ("10.0.0.1", "fd00::1")
    assert pod.selecting_labels == {"app.kubernetes.io/name": "p"}
