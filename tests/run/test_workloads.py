"""Workloads and services as targets: their pods, and no others, as they come and go."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError, ForbiddenError
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.kube.informer import Informer
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.run.selection import Targets
from tests.fake_cluster import FakeCluster

Begin = Callable[..., Any]
WEB = {"app": "web"}


@pytest.fixture
async def begin(api: Api, tasks: Tasks, warnings: list[str]) -> AsyncIterator[Begin]:
    """begin((kind, name), …) → (targets, next change)."""
    async with AsyncExitStack() as stack:

        async def start(*workloads: tuple[str, str], **more: Any) -> tuple[Targets, Any]:
            selection = Selection(workloads=workloads, **more)
            targets = Targets(api, Informer(api, tasks, warnings.append), tasks, selection, warnings.append, linger=0.0)
            changes = await stack.enter_async_context(aclosing(targets.watch()))
            return targets, lambda: asyncio.wait_for(anext(changes), 10)

        yield start


def add(cluster: FakeCluster, plural: str, name: str, spec: Mapping[str, Any] | None = None, **metadata: Any) -> None:
    cluster.store.add(plural, "default", {"metadata": {"name": name, **metadata}, "spec": dict(spec or {})})


def owner(kind: str, name: str, api_version: str = "apps/v1") -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}


def add_web_pod(cluster: FakeCluster, name: str, node: str = "node-1", template: str = "5d4f") -> str:
    labels = {**WEB, "pod-template-hash": template}
    pod = cluster.add_pod(name, node, labels=labels, owners=[owner("ReplicaSet", f"web-{template}")])
    return str(pod["metadata"]["uid"])


async def test_pods_of_a_deployment_are_followed_through_a_rollout(cluster: FakeCluster, begin: Begin) -> None:
    add(cluster, "deployments", "web")
    add_web_pod(cluster, "web-5d4f-a")
    stranger = cluster.add_pod("stranger", "node-1", labels=WEB)["metadata"]["uid"]
    other = owner("ReplicaSet", "web-api-5d4f")
    api = cluster.add_pod("web-api", "node-1", labels={"pod-template-hash": "5d4f"}, owners=[other])["metadata"]["uid"]
    targets, change = await begin(("deployment", "web"))
    found = (await change()).add
    assert list(found) == ["node-1"]
    assert found["node-1"].exclude_pods == tuple(sorted([stranger, api]))
    assert found["node-1"].pods is None
    assert found["node-1"].namespaces == ("default",)
    new = add_web_pod(cluster, "web-77aa-b", "node-2", "77aa")
    assert list((await change()).add) == ["node-2"]
    cluster.delete_pod("web-5d4f-a")
    assert (await change()).remove == ("node-1",)
    assert targets.wants(new, "default/web-77aa-b") is True
    assert targets.wants(stranger, "default/stranger") is False
    assert targets.wants("new", "default/new") is None


@pytest.mark.parametrize(
    ("kind", "plural", "controller", "other"),
    [
        ("replicaset", "replicasets", owner("ReplicaSet", "x"), owner("ReplicaSet", "x-y")),
        ("statefulset", "statefulsets", owner("StatefulSet", "x"), owner("StatefulSet", "x", "apps.kruise.io/v1beta1")),
        ("daemonset", "daemonsets", owner("DaemonSet", "x"), owner("StatefulSet", "x")),
        ("job", "jobs", owner("Job", "x", "batch/v1"), {**owner("Job", "x", "batch/v1"), "controller": False}),
        (
            "replicationcontroller",
            "replicationcontrollers",
            owner("ReplicationController", "x", "v1"),
            owner("Job", "x"),
        ),
    ],
)
async def test_pods_belong_to_what_controls_them(
    cluster: FakeCluster, begin: Begin, kind: str, plural: str, controller: Any, other: Any
) -> None:
    add(cluster, plural, "x")
    cluster.add_pod("mine", "node-1", owners=[controller])
    stranger = cluster.add_pod("stranger", "node-1", owners=[other])["metadata"]["uid"]
    cluster.add_pod("elsewhere", "node-2", owners=[other])
    _, change = await begin((kind, "x"))
    found = (await change()).add
    assert {node: filter.exclude_pods for node, filter in found.items()} == {"node-1": (stranger,)}


async def test_pods_of_a_cron_job_are_those_of_its_jobs_whatever_these_are_called(
    cluster: FakeCluster, begin: Begin
) -> None:
    add(cluster, "cronjobs", "backup")
    backup = owner("CronJob", "backup", "batch/v1")
    add(cluster, "jobs", "backup-28800000", ownerReferences=[backup])
    add(cluster, "jobs", "backup-1")  # of that name, and not of the CronJob
    cluster.add_pod("a", "node-1", owners=[owner("Job", "backup-28800000", "batch/v1")])
    stranger = cluster.add_pod("b", "node-1", owners=[owner("Job", "backup-1", "batch/v1")])["metadata"]["uid"]
    targets, change = await begin(("cronjob", "backup"))
    assert (await change()).add["node-1"].exclude_pods == (stranger,)
    # A Job that a user starts by hand, seen after its pod.
    by_hand = cluster.add_pod("c", "node-2", owners=[owner("Job", "by-hand", "batch/v1")])["metadata"]["uid"]
    add(cluster, "jobs", "by-hand", ownerReferences=[backup])
    assert list((await change()).add) == ["node-2"]
    assert targets.wants(by_hand, "default/c") is True


async def test_pods_of_a_service_change_with_its_selector(cluster: FakeCluster, begin: Begin) -> None:
    add(cluster, "services", "web", {"selector": WEB})
    cluster.add_pod("a", "node-1", labels={**WEB, "tier": "front"})
    cluster.add_pod("b", "node-2", labels={"app": "db"})
    _, change = await begin(("service", "web"))
    assert list((await change()).add) == ["node-1"]
    cluster.store.change("services", "default", "web", lambda found: found["spec"].update(selector={"app": "db"}))
    changed = await change()
    assert (list(changed.add), changed.remove) == (["node-2"], ("node-1",))


async def test_named_pods_and_workloads_are_added_up(cluster: FakeCluster, begin: Begin, warnings: list[str]) -> None:
    add(cluster, "deployments", "web")
    add_web_pod(cluster, "web-5d4f-a")
    cluster.add_pod("xwing", "node-2")
    stranger = cluster.add_pod("stranger", "node-2")["metadata"]["uid"]
    _, change = await begin(("deployment", "web"), pods=("xwing", "ywing"))
    found = (await change()).add
    assert {node: filter.exclude_pods for node, filter in found.items()} == {"node-1": (), "node-2": (stranger,)}
    assert warnings == ['pods "ywing" not found in default namespace; waiting for it. Running there: xwing']


async def test_a_workload_without_pods_is_waited_for(cluster: FakeCluster, begin: Begin, warnings: list[str]) -> None:
    add(cluster, "deployments", "web")
    _, change = await begin(("deployment", "web"))
    assert (await change()).add == {}
    assert warnings == ["No running pods found in default namespace of deployment/web; waiting for them."]
    add_web_pod(cluster, "web-5d4f-a")
    assert list((await change()).add) == ["node-1"]


@pytest.mark.parametrize(
    ("kind", "plural", "qualified"),
    [
        ("deployment", "deployments", "deployments.apps"),
        ("service", "services", "services"),
        ("job", "jobs", "jobs.batch"),
    ],
)
async def test_what_does_not_exist_is_an_error_with_the_nearest_name(
    cluster: FakeCluster, begin: Begin, kind: str, plural: str, qualified: str
) -> None:
    add(cluster, plural, "web", {"selector": WEB})
    cluster.add_pod("a", "node-1", labels=WEB)
    _, change = await begin((kind, "wbe"))
    with pytest.raises(ClusterError, match=f'{qualified} "wbe" not found in namespace default') as error:
        await change()
    assert error.value.remedy == f"{kind}/web"


async def test_a_workload_of_a_namespace_that_does_not_exist_names_the_namespace(begin: Begin) -> None:
    _, change = await begin(("deployment", "web"), namespace="nothing")
    with pytest.raises(ClusterError, match='namespaces "nothing" not found'):
        await change()


async def test_a_service_without_a_selector_has_no_pods(cluster: FakeCluster, begin: Begin) -> None:
    add(cluster, "services", "outside")
    _, change = await begin(("service", "outside"))
    with pytest.raises(ClusterError, match='services "outside" in namespace default has no selector'):
        await change()


async def test_rights_that_are_missing_are_named_with_all_others(cluster: FakeCluster, begin: Begin) -> None:
    add(cluster, "deployments", "web")
    cluster.faults.forbidden |= {("get", "deployments"), ("watch", "jobs"), ("list", "services"), ("watch", "pods")}
    _, change = await begin(("deployment", "web"), ("cronjob", "backup"), ("service", "web"))
    with pytest.raises(ForbiddenError) as error:
        await change()
    for missing in (
        "get deployments.apps in namespace default",
        "watch jobs.batch in namespace default",
        "list services in namespace default",
        "watch pods in namespace default",
    ):
        assert missing in str(error.value)
    assert "get cronjobs" not in str(error.value)


async def test_rights_for_other_kinds_are_not_needed(cluster: FakeCluster, begin: Begin) -> None:
    add(cluster, "deployments", "web")
    add_web_pod(cluster, "web-5d4f-a")
    cluster.faults.forbidden |= {("list", plural) for plural in ("deployments", "replicasets", "jobs", "services")}
    _, change = await begin(("deployment", "web"))
    assert list((await change()).add) == ["node-1"]
