"""The API's objects as an address book."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kubectl_gadget.kube.addresses import Addresses, OwnEnd, Peer, addresses, followed
from kubectl_gadget.kube.informer import kept
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.kube.resources import GONE, NODES, PODS


def pod(name: str, ip: str, **spec: Any) -> dict[str, Any]:
    owner = {"kind": "ReplicaSet", "name": "web-abc", "controller": True}
    labels = {"app": "web", "pod-template-hash": "abc"}
    metadata = {"namespace": "shop", "name": name, "uid": name, "labels": labels, "ownerReferences": [owner]}
    return {
        "metadata": metadata,
        "spec": {"nodeName": "n1"} | spec,
        "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
    }


SERVICE = {
    "metadata": {"namespace": "shop", "name": "web"},
    "spec": {
        "clusterIPs": ["10.96.0.9", "fd00::9"],
        "ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}],
    },
}
HEADLESS = {"metadata": {"namespace": "shop", "name": "db"}, "spec": {"clusterIP": "None", "ports": [{"port": 5432}]}}
SLICE = {
    "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
    "ports": [{"name": "http", "port": 8080}],
    "endpoints": [{"addresses": ["10.1.0.5"]}],
}
NODE = {
    "metadata": {"name": "n1"},
    "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.11"}, {"type": "Hostname", "address": "n1"}]},
}


def test_pods_are_known_by_address_and_by_name_with_their_workload() -> None:
    book = addresses([pod("web-abc-1", "10.1.0.5")], [], [], [])
    facts = book.pods["10.1.0.5"]
    assert (facts.namespace, facts.name, facts.node) == ("shop", "web-abc-1", "n1")
    assert facts.workload == Workload("shop", "Deployment", "web")
    assert facts.labels == ("app=web", "pod-template-hash=abc")
    assert book.by_name["shop", "web-abc-1"] is facts


def test_pods_of_a_cron_job_are_its_and_not_each_jobs() -> None:
    job = pod("backup-28311240-x", "10.1.0.6")
    job["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "backup-28311240", "controller": True}]
    bare = pod("bare", "10.1.0.7")
    del bare["metadata"]["ownerReferences"]
    book = addresses([job, bare], [], [], [])
    assert book.pods["10.1.0.6"].workload == Workload("shop", "CronJob", "backup")
    assert book.pods["10.1.0.7"].workload is None


def test_an_address_of_the_hosts_network_is_the_nodes() -> None:
    book = addresses([pod("proxy", "172.30.0.11", hostNetwork=True)], [], [], [NODE])
    assert book.pods == {}
    assert book.nodes == {"172.30.0.11": "n1"}


def test_the_pod_that_is_there_last_has_the_address() -> None:
    done = pod("old", "10.1.0.5")
    done["status"]["phase"] = "Succeeded"
    book = addresses([pod("older", "10.1.0.5"), pod("new", "10.1.0.5"), done], [], [], [])
    assert book.pods["10.1.0.5"].name == "new"


def test_services_are_known_by_their_addresses_and_their_pods() -> None:
    book = addresses([], [SERVICE, HEADLESS], [SLICE], [])
    assert book.services == {"10.96.0.9": "shop/web", "fd00::9": "shop/web"}
    assert book.services_of_backend == {"10.1.0.5": (("10.96.0.9", 80), ("fd00::9", 80))}


# Peers: who had an address, at a time, as seen from one end.


START = datetime(2026, 1, 1, tzinfo=UTC)
NS = 1_000_000_000
API_SLICE = {
    "metadata": {"namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
    "ports": [{"name": "https", "port": 6443}],
    "endpoints": [{"addresses": ["172.30.0.11"]}],
}
PEERED_NODE = NODE | {"spec": {"podCIDRs": ["10.1.0.0/24"]}}


def at(seconds: int) -> int:
    return int(START.timestamp() + seconds) * NS


def lived(name: str, ip: str, since: int, until: int | None = None, **spec: Any) -> dict[str, Any]:
    """A pod of a time; one that has ended is deleted."""
    found = pod(name, ip, **spec)
    found["metadata"]["creationTimestamp"] = (START + timedelta(seconds=since)).isoformat()
    if until is not None:
        end = (START + timedelta(seconds=until)).isoformat()
        found["status"]["containerStatuses"] = [{"name": "c", "state": {"terminated": {"finishedAt": end}}}]
        found[GONE] = (START + timedelta(seconds=until + 7)).isoformat()
    return found


def test_a_replaced_pod_keeps_the_rows_of_its_time() -> None:
    book = addresses([lived("new", "10.1.0.5", 20), lived("old", "10.1.0.5", 0, 30)], [], [], [])
    assert book.peer("10.1.0.5") is None, "it depends on the time"
    names = [book.peer_at("10.1.0.5", at_ns=at(second)).pod for second in (10, 29, 40)]
    assert names == ["old", "old", "new"], "the new pod exists before the old one has lost the address"
    assert book.peer_at("10.1.0.5").pod == "new"


def test_an_address_that_its_pod_has_lost_says_so() -> None:
    book = addresses([lived("old", "10.1.0.5", 0, 30)], [], [], [PEERED_NODE])
    before, after = (book.peer_at("10.1.0.5", at_ns=at(second)) for second in (10, 40))
    assert (before.kind, after.kind) == ("pod", "ended pod")
    assert after.text("10.1.0.5") == "shop/old (ended)"


def test_a_killed_pod_without_an_end_has_its_address_until_it_is_gone() -> None:
    found = lived("old", "10.1.0.5", 0, 30)
    found["status"]["containerStatuses"].append({"name": "d", "state": {}})
    book = addresses([found], [], [], [])
    assert [book.peer_at("10.1.0.5", at_ns=at(second)).kind for second in (33, 50)] == ["pod", "ended pod"]


@pytest.mark.parametrize(
    ("all_pods", "kind", "text"), [(True, "no pod", "10.1.0.9 (no pod)"), (False, "pod", "10.1.0.9")]
)
def test_no_pod_has_an_address_only_where_all_pods_are_known(all_pods: bool, kind: str, text: str) -> None:
    peer = addresses([], [], [], [PEERED_NODE], all_pods).peer_at("10.1.0.9")
    assert (peer.kind, peer.text("10.1.0.9")) == (kind, text.format("10.1.0.9"))


def test_the_api_server_is_known_by_its_endpoint_and_not_by_its_nodes_address() -> None:
    book = addresses([], [], [API_SLICE], [PEERED_NODE])
    assert book.peer_at("172.30.0.11", 6443).kind == "kube-apiserver"
    assert book.peer_at("172.30.0.11", 10250) == Peer("node", "n1")


PROBED = {
    "containers": [
        {
            "name": "c",
            "ports": [{"name": "http", "containerPort": 8080}],
            "livenessProbe": {"httpGet": {"port": "http"}},
            "readinessProbe": {"tcpSocket": {"port": 9000}},
            "startupProbe": {"httpGet": {"port": 443, "host": "example.com"}},
        }
    ]
}


@pytest.mark.parametrize(
    ("ip", "own", "kind"),
    [
        ("10.1.0.1", OwnEnd("n1", "shop", "web", 8080), "kubelet"),
        ("172.30.0.11", OwnEnd("n1", "shop", "web", 9000), "kubelet"),
        ("172.30.0.11", OwnEnd("n1", "shop", "web", 443), "node"),  # that probe goes to another host
        ("172.30.0.11", OwnEnd("n1", "shop", "web", 80), "node"),
        ("172.30.0.11", OwnEnd("n2", "shop", "web", 8080), "node"),
        ("172.30.0.11", OwnEnd("n1", "shop", "other", 8080), "node"),
        ("10.1.0.7", OwnEnd("n1", "shop", "web", 8080), "pod"),  # another pod calls the port of the probe
    ],
)
def test_only_the_pods_own_node_probes_it(ip: str, own: OwnEnd, kind: str) -> None:
    pods = [kept("Pod", pod("web", "10.1.0.5", **PROBED)), pod("other", "10.1.0.7")]
    assert addresses(pods, [], [], [PEERED_NODE]).peer_at(ip, 40000, None, own).kind == kind


def test_addresses_that_nothing_has_are_of_the_world_only_if_they_are_public() -> None:
    book = addresses([], [SERVICE], [], [PEERED_NODE])
    kinds = {ip: book.peer_at(ip).kind for ip in ("1.1.1.1", "192.168.7.7", "127.0.0.1", "169.254.1.1", "224.0.0.1")}
    assert list(kinds.values()) == ["world", "private", "loopback", "link-local", "multicast"]
    assert book.peer_at("10.96.0.9").text("10.96.0.9") == "svc/shop/web"
    assert Addresses().peer_at("1.1.1.1") == Peer(), "without a cluster, nothing is known of it"


def test_a_user_of_one_namespace_gets_no_claim_about_all_pods() -> None:
    found: list[Addresses] = []
    follower = followed(found.append, 1.0, "names are missing")
    objects = {PODS: [], NODES: [PEERED_NODE]}
    for narrow, kind in ((False, "no pod"), (True, "pod")):
        if narrow:
            follower.narrowed(PODS)
        commit = follower.take(objects)
        assert commit is not None
        commit()
        assert found[-1].peer_at("10.1.0.9").kind == kind
