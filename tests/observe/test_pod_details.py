"""Labels and workloads of pods for JSON of events."""

from typing import Any

from kubectl_gadget.kube.resources import PODS
from kubectl_gadget.observe.pod_details import PodDetails
from kubectl_gadget.rows.containers import Container


def pod(name: str, uid: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, "uid": uid, **metadata}}


OWNED = pod(
    "web-5d4f-x2k9",
    "uid-1",
    labels={"app": "web", "pod-template-hash": "5d4f"},
    ownerReferences=[{"kind": "ReplicaSet", "name": "web-5d4f", "controller": True}],
)
STATIC = pod(
    "etcd-node",
    "uid-2",
    annotations={"kubernetes.io/config.hash": "hash-2", "kubernetes.io/config.mirror": "hash-2"},
    ownerReferences=[{"apiVersion": "v1", "kind": "Node", "name": "node", "uid": "uid-0", "controller": True}],
) | {"spec": {"nodeName": "node"}}
DECOY = pod("decoy", "uid-3", labels={"app": "none"}, annotations={"kubernetes.io/config.hash": "uid-1"})


def test_a_pod_is_known_by_its_uid_with_labels_and_what_it_is_a_replica_of() -> None:
    details = PodDetails()
    details.take({PODS: [OWNED, DECOY]})
    assert details.of(Container(pod_uid="uid-1")) == {
        "pod_labels": {"app": "web", "pod-template-hash": "5d4f"},
        "workload": "web",
        "workload_kind": "Deployment",
    }


def test_a_static_pod_is_known_by_the_uid_that_its_containers_bear_and_any_by_its_name() -> None:
    details = PodDetails()
    details.take({PODS: [OWNED, STATIC]})
    known = details.of(Container(pod_uid="hash-2"))
    assert (known["workload"], known["workload_kind"]) == ("etcd-node", "Pod")
    assert details.of(Container(namespace="shop", pod="web-5d4f-x2k9"))["workload"] == "web"


def test_a_pod_that_was_not_listed_has_no_details() -> None:
    assert PodDetails().of(Container(pod_uid="uid-1", namespace="shop", pod="web")) == {}
