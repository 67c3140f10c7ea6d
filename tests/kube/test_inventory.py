"""Pods, services and nodes as the API has them, and what they are replicas of."""

import pytest

from kubectl_gadget.kube.inventory import Inventory, Mount, Node, Pod, Port, Service, Workload


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
