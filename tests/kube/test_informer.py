"""One list and one watch for all that a run needs of a resource, and what becomes of refusals."""

import asyncio
import gc
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError, ForbiddenError, GadgetError, InternalError, UsageError
from kubectl_gadget.kube import informer as informer_module
from kubectl_gadget.kube.addresses import Addresses, followed, known
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.kube.informer import Change, Follower, Informer, Objects, Subscription, Synced, kept
from kubectl_gadget.kube.inventory import Node, Pod, SeenInventory, Service, container_key, full_name, mirror_hash
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Resource
from kubectl_gadget.observe.messages import PodDetails
from kubectl_gadget.policies.network.run import inventory
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.run.selection import Targets
from tests.fake_cluster import FakeCluster
from tests.waiting import until


class Names:
    """The names of objects as a follower has them."""

    def __init__(self) -> None:
        self.now: dict[str, list[str]] = {}

    def take(self, found: Objects) -> None:
        self.now = {kind.plural: sorted(item["metadata"]["name"] for item in items) for kind, items in found.items()}


class Seen:
    """What one subscriber was given."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.errors: list[GadgetError] = []

    def take(self, change: Change) -> None:
        found = change.items if isinstance(change, Synced) else [change.object]
        self.names += [item["metadata"]["name"] for item in found]

    def subscription(self, resource: Resource = PODS, namespace: str | None = None) -> Subscription:
        return Subscription(resource, self.take, namespace, self.errors.append)


@pytest.fixture
def informer(api: Api, tasks: Tasks, warnings: list[str]) -> Informer:
    return Informer(api, tasks, warnings.append, "default")


@pytest.fixture
def two_namespaces(cluster: FakeCluster) -> None:
    cluster.add_pod("a", "node-1")
    cluster.add_namespace("other")
    cluster.add_pod("b", "node-2", "other")


def follower(take: Callable[[Objects], object], *kinds: Resource, **more: Any) -> Follower:
    return Follower(kinds or (PODS,), take, 10.0, missing="events have no labels", **more)


def asked(cluster: FakeCluster, resource: str = "pods") -> list[str]:
    return [verb for verb, what in cluster.server.requests if what == resource]


@pytest.mark.usefixtures("two_namespaces")
async def test_all_subscribers_of_a_run_share_one_list_and_one_watch(
    cluster: FakeCluster, api: Api, tasks: Tasks, informer: Informer
) -> None:
    first, second = Names(), Names()
    informer.follow(follower(first.take))
    informer.follow(follower(second.take, PODS, NODES))
    targets = Targets(api, informer, tasks, Selection(namespace="other"), print)
    changes = targets.watch()
    assert list((await anext(changes)).add) == ["node-2"]
    await informer.known()
    assert first.now == {"pods": ["a", "b"]}
    assert second.now == {"pods": ["a", "b"], "nodes": ["node-1", "node-2"]}
    cluster.add_pod("c", "node-1", "other")
    assert list((await anext(changes)).add) == ["node-1"]
    await until(lambda: first.now == {"pods": ["a", "b", "c"]} and second.now["pods"] == ["a", "b", "c"])
    assert asked(cluster) == ["list", "watch"]
    await changes.aclose()


@pytest.mark.usefixtures("two_namespaces")
async def test_a_run_in_one_namespace_lists_that_alone(cluster: FakeCluster, informer: Informer) -> None:
    seen = Seen()
    informer.subscribe(seen.subscription(namespace="other"))
    informer.start()
    await until(lambda: seen.names == ["b"])


@pytest.mark.usefixtures("two_namespaces")
async def test_what_is_forbidden_in_all_namespaces_is_taken_from_the_own_one_and_reported_once(
    cluster: FakeCluster, informer: Informer, warnings: list[str], failures: list[GadgetError]
) -> None:
    cluster.faults.forbidden_in_whole |= {("list", "pods"), ("list", "services"), ("list", "nodes")}
    first, second, seen = Names(), Names(), Seen()
    informer.follow(follower(first.take, PODS, SERVICES, NODES))
    informer.follow(follower(second.take))
    informer.subscribe(seen.subscription(namespace="other"))
    informer.start()
    await informer.known()
    assert (first.now, second.now) == ({"pods": ["a"], "services": [], "nodes": []}, {"pods": ["a"]})
    await until(lambda: bool(warnings) and seen.names == ["b"])
    assert (seen.errors, failures) == ([], [])
    (warning,) = warnings
    assert warning.startswith(
        "events have no labels, since you may not list nodes, pods, services in the whole cluster"
    )
    assert "kubectl auth can-i list pods --all-namespaces" in warning


async def test_a_list_is_not_kept_while_the_watch_waits_for_changes(cluster: FakeCluster, informer: Informer) -> None:
    cluster.add_pod("listed", "node-1")
    there = _described("listed")
    seen = Seen()
    informer.subscribe(seen.subscription())
    informer.start()
    await until(lambda: seen.names == ["listed"])
    await until(lambda: ("watch", "pods") in cluster.server.requests)
    await until(lambda: _described("listed") <= there)


def _described(name: str) -> int:
    """The number of objects of this name in memory, as the API server describes them."""
    return sum(type(one) is dict and one.get("name") == name and "uid" in one for one in gc.get_objects())


async def test_a_run_cannot_be_without_what_it_requires(
    cluster: FakeCluster, informer: Informer, warnings: list[str]
) -> None:
    cluster.faults.forbidden_in_whole.add(("list", "pods"))
    informer.follow(follower(Names().take, required=frozenset([PODS])))
    informer.follow(follower(Names().take))
    informer.start()
    with pytest.raises(ForbiddenError, match=r"cannot list resource \"pods\""):
        await informer.known()


async def test_a_right_that_is_lost_later_ends_a_run_that_requires_it(
    cluster: FakeCluster, informer: Informer, failures: list[GadgetError]
) -> None:
    names = Names()
    informer.follow(follower(names.take, required=frozenset([PODS])))
    informer.start()
    await informer.known()
    cluster.faults.forbidden.add(("watch", "pods"))
    cluster.break_watches()
    await until(lambda: bool(failures))
    assert isinstance(failures[0], ForbiddenError)


async def test_an_error_of_all_resources_is_one_line(
    cluster: FakeCluster, informer: Informer, warnings: list[str]
) -> None:
    cluster.faults.unauthorized = True
    informer.follow(follower(Names().take, PODS, SERVICES, NODES))
    informer.start()
    await informer.known()
    await until(lambda: bool(warnings))
    (warning,) = warnings
    assert warning.startswith("events have no labels, since nodes, pods, services cannot be listed: ")
    assert "does not accept the credentials" in warning


async def test_an_error_that_ends_the_run_is_not_reported_beside_it(
    cluster: FakeCluster, informer: Informer, warnings: list[str]
) -> None:
    cluster.faults.unauthorized = True
    seen = Seen()
    informer.follow(follower(Names().take, PODS, SERVICES, NODES))
    informer.subscribe(seen.subscription())
    informer.start()
    await until(lambda: bool(seen.errors))
    await informer.known()
    informer._flush()
    assert warnings == []


async def test_a_subscriber_that_fails_leaves_the_others_their_changes(
    cluster: FakeCluster, informer: Informer
) -> None:
    def fails(_: Change) -> None:
        raise LookupError("a fault")

    errors: list[GadgetError] = []
    seen = Seen()
    informer.subscribe(Subscription(PODS, fails, failed=errors.append))
    informer.subscribe(seen.subscription())
    informer.start()
    cluster.add_pod("a", "node-1")
    await until(lambda: seen.names == ["a"])
    assert [type(error) for error in errors] == [InternalError]


@pytest.mark.usefixtures("two_namespaces")
async def test_one_namespace_does_not_wait_for_a_list_of_all_that_takes_long(
    cluster: FakeCluster, informer: Informer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer_module, "WIDE_SECONDS", 0.0)
    cluster.faults.held_lists.add("pods")
    seen = Seen()
    informer.follow(follower(Names().take))
    informer.subscribe(seen.subscription(namespace="other"))
    informer.start()
    await until(lambda: seen.names == ["b"])


@pytest.mark.usefixtures("two_namespaces")
async def test_names_that_nobody_waits_for_do_not_delay_the_runs_own_pods(
    cluster: FakeCluster, informer: Informer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer_module, "WIDE_SECONDS", 1e6)
    cluster.faults.held_lists.add("pods")
    seen = Seen()
    informer.follow(Follower((PODS,), Names().take, 0.0))
    informer.subscribe(seen.subscription(namespace="other"))
    informer.start()
    await informer.known()
    await until(lambda: seen.names == ["b"])


@pytest.mark.usefixtures("two_namespaces")
async def test_a_follower_is_told_that_it_gets_the_own_namespace_only(cluster: FakeCluster, informer: Informer) -> None:
    cluster.faults.forbidden_in_whole |= {("list", "pods"), ("list", "nodes")}
    views: list[Addresses] = []
    informer.follow(followed(views.append, 10.0, "some addresses have no names"))
    informer.start()
    await informer.known()
    await until(lambda: bool(views and views[-1].by_name))
    assert list(views[-1].by_name) == [("default", "a")]
    assert not views[-1].has_all_pods


async def test_a_deleted_pod_is_known_to_have_lost_its_address(cluster: FakeCluster, informer: Informer) -> None:
    views: list[Addresses] = []
    cluster.add_pod("a", "node-1")
    cluster.store.change("pods", "default", "a", lambda pod: pod["status"].update(podIP="10.1.0.5"))
    informer.follow(followed(views.append, 10.0, "some addresses have no names"))
    informer.start()
    await informer.known()
    assert views[-1].has_all_pods
    assert views[-1].peer_at("10.1.0.5").kind == "pod"
    cluster.delete_pod("a")
    await until(lambda: views[-1].peer_at("10.1.0.5").kind == "ended pod")
    assert views[-1].peer_at("10.1.0.5").pod == "a"


async def test_what_a_follower_refuses_first_ends_the_run_and_is_reported_later(
    cluster: FakeCluster, informer: Informer, warnings: list[str]
) -> None:
    def refuses(found: Objects) -> None:
        if any(item["metadata"]["name"] == "bad" for item in found[PODS]):
            raise UsageError("a bad pod")

    informer.follow(follower(refuses, required=frozenset([PODS]), unchanged="the tables are not updated"))
    informer.start()
    await informer.known()
    cluster.add_pod("bad", "node-1")
    await until(lambda: warnings == ["the tables are not updated: a bad pod"])


async def test_a_follower_that_refuses_the_first_state_ends_the_run(cluster: FakeCluster, informer: Informer) -> None:
    def refuses(_: Objects) -> None:
        raise UsageError("a bad pod")

    informer.follow(follower(refuses, required=frozenset([PODS])))
    informer.start()
    with pytest.raises(UsageError, match="a bad pod"):
        await informer.known()


async def test_lists_that_do_not_come_are_not_waited_for_for_ever(cluster: FakeCluster, informer: Informer) -> None:
    cluster.faults.held_lists.add("pods")
    informer.follow(Follower((PODS,), Names().take, 0.0))
    informer.follow(Follower((PODS,), Names().take, 0.0, required=frozenset([PODS])))
    informer.start()
    with pytest.raises(ClusterError, match="pods of the cluster were not listed within 0 s"):
        await informer.known()


async def test_an_object_that_is_gone_is_passed_on_for_a_while(cluster: FakeCluster, informer: Informer) -> None:
    cluster.add_pod("a", "node-1")
    with_gone, without = Names(), Names()
    informer.follow(follower(with_gone.take, keep_seconds=600.0))
    informer.follow(follower(without.take))
    informer.start()
    await informer.known()
    cluster.delete_pod("a")
    cluster.add_pod("b", "node-1")
    await until(lambda: without.now == {"pods": ["b"]} and with_gone.now == {"pods": ["a", "b"]})
    cluster.faults.expire_watches = True
    cluster.break_watches()
    cluster.add_pod("c", "node-1")
    await until(lambda: without.now == {"pods": ["b", "c"]} and with_gone.now == {"pods": ["a", "b", "c"]})


def names(found: Sequence[Pod | Node]) -> list[str]:
    return [one.name for one in found]


async def test_all_objects_of_a_run_are_seen_and_the_last_of_one_name_counts(
    cluster: FakeCluster, informer: Informer, warnings: list[str]
) -> None:
    for name in ("a", "b", "c"):
        cluster.add_pod(name, "node-1", namespace="other" if name == "c" else "default")
    seen = SeenInventory()
    informer.follow(seen.follower("peers have no names"))
    informer.start()
    await informer.known()
    before = seen.inventory()
    assert (names(before.pods), names(before.nodes)) == (["a", "b", "c"], cluster.nodes)
    assert seen.inventory() is before
    cluster.delete_pod("b")
    cluster.add_pod("b", "node-1", labels={"x": "y"})
    cluster.store.change("pods", "default", "a", lambda pod: pod["metadata"].update(labels={"x": "y"}))
    await until(lambda: names(seen.inventory().pods) == ["a", "b", "c", "b"])
    await until(lambda: all(seen.inventory().pod("default", name).labels == {"x": "y"} for name in ("a", "b")))  # type: ignore[union-attr]
    assert warnings == []


async def test_objects_that_may_not_be_listed_are_not_waited_for(
    cluster: FakeCluster, informer: Informer, warnings: list[str]
) -> None:
    cluster.faults.forbidden |= {("list", "nodes")}
    cluster.add_pod("a", "node-1")
    seen = SeenInventory()
    informer.follow(seen.follower("peers have no names"))
    informer.start()
    await informer.known()
    assert (names(seen.inventory().pods), names(seen.inventory().nodes)) == (["a"], [])
    await until(lambda: bool(warnings))
    assert warnings[0].startswith("peers have no names, since you may not list nodes in the whole cluster (try: ")


@pytest.mark.usefixtures("two_namespaces")
async def test_objects_of_one_namespace_are_seen_without_the_others(cluster: FakeCluster, informer: Informer) -> None:
    seen = SeenInventory((PODS,), "default")
    informer.follow(seen.follower(""))
    informer.start()
    async with asyncio.timeout(60):
        await informer.known()
    assert names(seen.inventory().pods) == ["a"]


# What is kept of the API's objects says the same to everything that reads objects, and holds no secrets.


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
