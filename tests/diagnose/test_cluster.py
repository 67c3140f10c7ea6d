"""The cluster as rules see it: records, peers, and who is selected."""

from typing import Any

import pytest

from kubectl_gadget.diagnose.cluster import Cluster, Listener, Places
from kubectl_gadget.diagnose.rules import OBJECTS
from kubectl_gadget.kube.cluster_options import Selection
from tests.diagnose.seen import NOW, endpoints, event, pod, service

WEB, DB = "web-5d4f8c9b7c-x2x7k", "db-7d4b9c6f58-kk2bz"


@pytest.fixture
def cluster() -> Cluster:
    web = pod(
        WEB, "10.1.0.1", {"app": "web"}, restarts=3, last={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    )
    web["spec"]["containers"][0] |= {
        "resources": {"limits": {"memory": "128Mi", "cpu": "250m"}},
        "env": [{"name": "PASSWORD", "value": "hunter2"}],
        "readinessProbe": {"httpGet": {"port": "http", "path": "/ready"}, "timeoutSeconds": 3},
        "ports": [{"name": "http", "containerPort": 8000}],
        "volumeMounts": [{"name": "conf", "mountPath": "/etc/shop"}],
    }
    web["spec"]["volumes"] = [{"name": "conf", "secret": {"secretName": "shop-conf"}}]
    return Cluster(
        {
            "pods": [web, pod(DB, "10.1.0.2", {"app": "db"})],
            "services": [
                service("db", "10.9.0.1", 5432, "sql", app="db"),
                service("web", "10.9.0.2", 80, "http", app="web"),
            ],
            "endpointslices": [endpoints("db", ["10.1.0.2"]), endpoints("web", ["10.1.0.1"])],
            "nodes": [
                {
                    "metadata": {"name": "node-1"},
                    "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.1"}]},
                }
            ],
            "events": [event(WEB, "BackOff", "back-off", 4), event("other", "BackOff", "back-off")],
            "replicasets": [],
        },
        NOW,
    )


def record(cluster: Cluster, kind: str, number: int = 0) -> dict[str, Any]:
    return list(cluster.records(kind, {("shop", WEB)}))[number]


def test_records_have_only_the_members_that_rules_may_name(cluster: Cluster) -> None:
    extra = {"first_ns", "times"}
    for kind, members in OBJECTS.items():
        for found in cluster.records(kind, set(cluster.pods)):
            assert set(found) - extra <= set(members), kind


def test_a_containers_status_limits_and_probes(cluster: Cluster) -> None:
    found = record(cluster, "container")
    assert (found["last_reason"], found["last_exit_code"], found["restarts"]) == ("OOMKilled", 137, 3)
    assert (found["memory_limit"], found["cpu_limit"]) == (128 << 20, 0.25)
    assert found["readiness"] == {
        **{"kind": "httpGet", "port": 8000, "path": "/ready", "timeout": 3, "period": 10, "failures": 3, "delay": 0},
        "command": [],
    }
    assert found["mounts"][0]["source"] == "shop-conf"


def test_values_of_the_environment_are_never_read(cluster: Cluster) -> None:
    found = record(cluster, "container")
    assert found["environment"] == ["PASSWORD"]
    assert "hunter2" not in str(found)


def test_events_are_those_of_the_selected_pods(cluster: Cluster) -> None:
    (found,) = cluster.records("event", {("shop", WEB)})
    assert (found["reason"], found["times"], found["container"]) == ("BackOff", 4, "app")


def test_a_service_leads_to_its_pods_and_their_port(cluster: Cluster) -> None:
    places = Places()
    places.saw_sockets(("shop", WEB), [Listener("0.0.0.0", 8000)])
    peer = cluster.peer("10.9.0.2", 80, places)
    assert (peer["kind"], peer["service"], peer["target_port"], peer["workload"]) == (
        "service",
        "web",
        8000,
        "deploy/web",
    )
    assert peer["listens"]
    assert peer["known_sockets"]
    assert peer["ready"] == 1


@pytest.mark.parametrize(
    ("address", "kind", "name"),
    [
        ("10.1.0.2", "pod", "deploy/db"),
        ("172.30.0.1", "node", "node node-1"),
        ("10.1.0.99", "nobody", "10.1.0.99"),
        ("93.184.216.34", "world", "93.184.216.34"),
        ("127.0.0.1", "loopback", "127.0.0.1"),
    ],
)
def test_an_address_is_somebodys(cluster: Cluster, address: str, kind: str, name: str) -> None:
    peer = cluster.peer(address, 80, Places())
    assert (peer["kind"], peer["name"]) == (kind, name)


def test_sockets_that_were_not_read_say_nothing(cluster: Cluster) -> None:
    peer = cluster.peer("10.1.0.2", 5432, Places())
    assert not peer["known_sockets"]
    assert not peer["listens"]
    assert not peer["loopback_only"]


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), {WEB, DB}),
        (Selection(pods=(WEB,)), {WEB}),
        (Selection(selector="app=db"), {DB}),
        (Selection(workloads=(("deploy", "web"),)), {WEB}),
        (Selection(workloads=(("svc", "db"),)), {DB}),
        (Selection(nodes=("node-2",)), set()),
    ],
)
def test_the_selected_pods(cluster: Cluster, selection: Selection, names: set[str]) -> None:
    assert {name for _, name in cluster.selected(selection, "shop")} == names
    assert not cluster.selected(selection, "another")


def test_the_last_rollout_names_what_it_changed_and_no_values() -> None:
    def replica_set(revision: int, image: str, *names: str) -> dict[str, Any]:
        env = [{"name": name, "value": "secret"} for name in names]
        return {
            "metadata": {
                "name": f"web-{revision}",
                "namespace": "shop",
                "creationTimestamp": "2026-09-21T14:00:00Z",
                "annotations": {"deployment.kubernetes.io/revision": str(revision)},
                "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": True}],
            },
            "spec": {
                "replicas": 1,
                "template": {"spec": {"containers": [{"name": "app", "image": image, "env": env}]}},
            },
        }

    sets = [replica_set(10, "shop:2", "NEW"), replica_set(9, "shop:1", "OLD")]
    cluster = Cluster({"pods": [pod(WEB, "10.1.0.1")], "replicasets": sets}, NOW)
    (found,) = cluster.records("change", {("shop", WEB)})
    assert found["images"] == ["+app=shop:2", "-app=shop:1"]
    assert found["environment"] == ["+app.NEW", "-app.OLD"]
    assert found["revision"] == 10
    assert "secret" not in str(found)


def test_an_address_belongs_to_nobody_only_where_all_pods_are_known() -> None:
    objects = {"pods": [pod("web-5d4f8c9b7c-x2x7k", "10.1.0.1")]}

    def kind(address: str, has_all_pods: bool = True) -> str:
        cluster = Cluster(objects, NOW, has_all_pods)
        return str(cluster.peer(address, 80, Places())["kind"])

    assert kind("10.1.0.1") == kind("10.1.0.1", False) == "pod"
    assert kind("10.1.0.77") == "nobody"
    assert kind("10.1.0.77", False) == "unknown"
    assert kind("192.168.7.7") == "world", "a machine beside the cluster"
    assert kind("127.0.0.1") == kind("0.0.0.0") == kind("169.254.1.1") == "loopback"


def test_an_address_of_an_ended_pod_belongs_to_nobody() -> None:
    ended = pod("web-5d4f8c9b7c-x2x7k", "10.1.0.1", phase="Failed", state={"terminated": {"exitCode": 1}})
    found = Cluster({"pods": [ended]}, NOW).peer("10.1.0.1", 80, Places())
    assert (found["kind"], found["name"]) == ("nobody", "shop/web-5d4f8c9b7c-x2x7k (ended)")
