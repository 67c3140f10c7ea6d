"""What is kept of the API's objects says the same to everything that reads objects, and holds no secrets."""

import json
from typing import Any

import pytest

from kubectl_gadget.flows.addresses import known
from kubectl_gadget.kube.api.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES
from kubectl_gadget.kube.inventory import Node, Pod, Service
from kubectl_gadget.kube.kept_parts import kept
from kubectl_gadget.kube.pod_identity import container_key, full_name, mirror_hash
from kubectl_gadget.policies.network.run import inventory
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.run.recipes.pod_details import PodDetails

POD: dict[str, Any] = {
    "metadata": {
        "namespace": "ns",
        "name": "p",
        "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": "web", "pod-template-hash": "abc"},
        "annotations": {"note": "S3CRET", "kubernetes.io/config.hash": "h", "kubernetes.io/config.mirror": "h"},
        "ownerReferences": [
            {"kind": "X", "name": "other"},
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "controller": True},
        ],
        "managedFields": [{"manager": "S3CRET"}],
    },
    "spec": {
        "nodeName": "n1",
        "hostNetwork": True,
        "volumes": [{"name": "v", "secret": {"secretName": "S3CRET"}}],
        "initContainers": [{"name": "i", "args": ["S3CRET"]}],
        "containers": [
            {
                "name": "c",
                "env": [{"name": "TOKEN", "value": "S3CRET"}],
                "command": ["S3CRET"],
                "ports": [{"containerPort": 80, "name": "http", "hostPort": 8080}],
                "volumeMounts": [{"name": "v", "mountPath": "/data", "readOnly": True}],
            }
        ],
    },
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
}
BARE = {"metadata": {"namespace": "ns", "name": "bare", "uid": "b"}}
SERVICE: dict[str, Any] = {
    "metadata": {"namespace": "ns", "name": "web", "uid": "s", "annotations": {"x": "S3CRET"}},
    "spec": {
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"],
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080}],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}},
}
SLICE: dict[str, Any] = {
    "metadata": {"namespace": "ns", "name": "web-1", "uid": "e", "labels": {"kubernetes.io/service-name": "web"}},
    "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
    "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
}
NODE: dict[str, Any] = {
    "metadata": {"name": "n1", "uid": "n", "labels": {"zone": "a"}},
    "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "images": ["S3CRET"]},
}
ALL = {PODS: [POD, BARE], SERVICES: [SERVICE], ENDPOINT_SLICES: [SLICE], NODES: [NODE]}
KEPT = {kind: [kept(kind.kind, found) for found in several] for kind, several in ALL.items()}


def test_every_reader_reads_the_same() -> None:
    for before, after in zip(ALL[PODS], KEPT[PODS], strict=True):
        assert Pod.from_object(after) == Pod.from_object(before)
        assert mirror_hash(after) == mirror_hash(before)
        assert container_key(after) == container_key(before)
        assert full_name(after) == full_name(before)
    assert mirror_hash(KEPT[PODS][0]) == "h"
    assert Service.from_object(KEPT[SERVICES][0], KEPT[ENDPOINT_SLICES]) == Service.from_object(SERVICE, [SLICE])
    assert Node.from_object(KEPT[NODES][0]) == Node.from_object(NODE)
    assert known(KEPT) == known(ALL)
    assert known(KEPT).services_of_backend
    assert inventory(KEPT) == inventory(ALL)
    found, same = PodDetails(), PodDetails()
    found.take(ALL)
    same.take(KEPT)
    container = Container("container", "ns", "p", pod_uid="h")
    assert same.of(container) == found.of(container) != {}


def test_nothing_else_is_kept() -> None:
    assert "S3CRET" not in json.dumps([*KEPT.values()])
    assert len(json.dumps(KEPT[PODS][0])) < 900


@pytest.mark.parametrize("kind", ["NetworkPolicy", "Deployment"])
def test_other_kinds_lose_only_the_notes_of_the_server(kind: str) -> None:
    found = {"metadata": {"name": "x", "managedFields": [1]}, "spec": {"a": 1}}
    assert kept(kind, found) == {"metadata": {"name": "x"}, "spec": {"a": 1}}
