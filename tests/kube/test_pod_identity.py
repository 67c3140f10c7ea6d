"""Which pod a container belongs to, and what a pod that claims to be another one gets."""

from typing import Any

import pytest

from kubectl_gadget.kube.pod_identity import PodValues, container_key, mirror_hash

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
