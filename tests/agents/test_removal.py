"""The namespace of agents on demand is deleted with the last run that uses it, and by nothing else."""

import asyncio
from typing import Any

import pytest

from kubectl_gadget.agents import manifests, shared_namespace
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import JOBS, NAMESPACES, PODS
from tests.fake_cluster import FakeCluster
from tests.waiting import until

NAMESPACE = "kubectl-gadget"


@pytest.fixture
async def made(cluster: FakeCluster, api: Api, agent_options: AgentOptions) -> None:
    """The namespace of a run, and the anchor jobs of two."""
    await api.create(NAMESPACES, manifests.namespace(agent_options))
    for run in ("one", "two"):
        await api.create(JOBS, manifests.anchor_job(agent_options, run, 20), NAMESPACE)


def is_there(cluster: FakeCluster) -> bool:
    found = cluster.store.get("namespaces", "", NAMESPACE)
    return found is not None and "deletionTimestamp" not in found["metadata"]


@pytest.mark.usefixtures("made")
async def test_the_last_of_two_runs_that_end_at_once_removes_the_namespace(cluster: FakeCluster, api: Api) -> None:
    for run in ("one", "two"):
        metadata = {"name": f"agent-{run}", "labels": manifests.run_labels(run)}
        cluster.store.add("pods", NAMESPACE, {"metadata": metadata, "spec": {}})
        cluster.store.change(
            "pods", NAMESPACE, metadata["name"], lambda pod: pod["metadata"].update(deletionTimestamp="now")
        )
    assert await asyncio.gather(*(shared_namespace.remove(api, NAMESPACE, run) for run in ("one", "two"))) == [[], []]
    await until(lambda: not is_there(cluster))


@pytest.mark.usefixtures("made")
async def test_a_run_that_has_no_pod_yet_keeps_the_namespace(cluster: FakeCluster, api: Api) -> None:
    assert await shared_namespace.remove(api, NAMESPACE, "one") == []
    assert is_there(cluster)
    assert [job["metadata"]["name"] for job in cluster.store.list("jobs", NAMESPACE)] == ["run-two"]


@pytest.mark.usefixtures("made")
async def test_a_pod_that_no_run_started_keeps_the_namespace(cluster: FakeCluster, api: Api) -> None:
    cluster.add_pod("of-somebody", "node-1", namespace=NAMESPACE)
    for run in ("one", "two"):
        assert await shared_namespace.remove(api, NAMESPACE, run) == []
    assert is_there(cluster)


@pytest.mark.usefixtures("made")
async def test_a_deploy_between_the_check_and_the_deletion_keeps_the_namespace(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.store.remove("jobs", NAMESPACE, "run-two")
    found = api.find

    async def find(resource: Any, *words: Any, **named: Any) -> Any:
        listing = await found(resource, *words, **named)
        if resource == PODS:
            annotation = {"metadata": {"annotations": {manifests.ON_DEMAND_ANNOTATION: None}}}
            await api.patch(NAMESPACES, NAMESPACE, annotation)
        return listing

    monkeypatch.setattr(api, "find", find)
    assert await shared_namespace.remove(api, NAMESPACE, "one") == []
    assert is_there(cluster)


@pytest.mark.usefixtures("made")
async def test_a_namespace_that_changes_at_the_same_time_is_examined_again(
    cluster: FakeCluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.store.remove("jobs", NAMESPACE, "run-two")
    found, looks = api.find, iter(range(100))

    async def find(resource: Any, *words: Any, **named: Any) -> Any:
        if resource == PODS and next(looks) == 0:
            await api.patch(NAMESPACES, NAMESPACE, {"metadata": {"labels": {"of": "somebody"}}})
        return await found(resource, *words, **named)

    monkeypatch.setattr(api, "find", find)
    assert await shared_namespace.remove(api, NAMESPACE, "one") == []
    await until(lambda: not is_there(cluster))
