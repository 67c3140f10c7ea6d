"""The API's objects as an address book."""

from typing import Any

from kubectl_gadget.flows.addresses import addresses
from kubectl_gadget.kube.inventory import Workload


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
