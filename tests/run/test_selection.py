"""From selections to nodes and filters."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError, ForbiddenError, InternalError
from kubectl_gadget.kube import informer as informer_module
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.kube.informer import Informer
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.run.selection import TargetChange, Targets
from kubectl_gadget.wire.client_messages import FilterSpec
from tests.fake_cluster import FakeCluster

Next = Callable[[], Any]
Begin = Callable[..., Any]


@pytest.fixture
async def begin(api: Api, tasks: Tasks, warnings: list[str]) -> AsyncIterator[Begin]:
    """begin(**selection) → (targets, next change)."""
    async with AsyncExitStack() as stack:

        async def start(**selection: Any) -> tuple[Targets, Next]:
            informer = Informer(api, tasks, warnings.append)
            targets = Targets(api, informer, tasks, Selection(**selection), warnings.append, linger=0.0)
            changes = await stack.enter_async_context(aclosing(targets.watch()))
            return targets, lambda: asyncio.wait_for(anext(changes), 10)

        yield start


async def test_a_watch_that_dies_of_a_fault_of_ours_ends_the_targets_with_its_reason(
    cluster: FakeCluster, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> AsyncIterator[Any]:
        raise LookupError("a fault")
        yield

    monkeypatch.setattr(informer_module, "follow", broken)
    _, change = await begin()
    with pytest.raises(InternalError, match="LookupError: a fault"):
        await change()


async def test_an_error_found_elsewhere_ends_the_targets(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("a", "node-1")
    targets, change = await begin()
    await change()
    targets.fail(ClusterError("the agents will not stay"))
    with pytest.raises(ClusterError, match="will not stay"):
        await change()


async def test_pods_chosen_by_a_pattern_are_followed_and_others_left_out(
    cluster: FakeCluster, begin: Begin, warnings: list[str]
) -> None:
    cluster.add_pod("api-1", "node-1")
    other = cluster.add_pod("web-1", "node-1")["metadata"]["uid"]
    cluster.add_pod("web-2", "node-2")
    targets, change = await begin(pods=("api-*", "db-*", "web-2"))
    found = (await change()).add
    assert list(found) == ["node-1", "node-2"]
    assert found["node-1"] == FilterSpec(namespaces=("default",), exclude_pods=(other,))
    assert warnings == ['pods "db-*" not found in default namespace; waiting for it.']
    new = cluster.add_pod("api-2", "node-3")["metadata"]["uid"]
    assert list((await change()).add) == ["node-3"]
    assert targets.wants(new, "default/api-2") is True
    assert targets.wants(other, "default/web-1") is False
    assert targets.absent() == ('pod "db-*" did not exist in default namespace',)


async def test_the_nodes_are_those_that_host_pods_of_the_namespace(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("a", "node-2")
    cluster.add_namespace("other")
    cluster.add_pod("b", "node-1", "other")
    _, change = await begin()
    assert await change() == TargetChange(add={"node-2": FilterSpec(namespaces=("default",))})


async def test_pods_that_have_ended_or_wait_for_a_node_bring_no_node(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("done", "node-1", phase="Succeeded")
    cluster.add_pod("pending", None, phase="Pending")
    _, change = await begin()
    assert await change() == TargetChange()


async def test_all_namespaces_means_all_nodes(cluster: FakeCluster, begin: Begin) -> None:
    _, change = await begin(all_namespaces=True)
    assert await change() == TargetChange(add={"node-1": FilterSpec(), "node-2": FilterSpec()})
    cluster.add_node("node-3")
    assert await change() == TargetChange(add={"node-3": FilterSpec()})
    cluster.store.remove("nodes", "", "node-1")
    assert await change() == TargetChange(remove=("node-1",))


async def test_names_and_containers_narrow_nodes_and_filter(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("a", "node-1", containers=("main", "side"))
    cluster.add_pod("b", "node-2")
    _, change = await begin(pods=("a", "b"), containers=("side",))
    wanted = FilterSpec(namespaces=("default",), pods=("a", "b"), containers=("side",))
    assert await change() == TargetChange(add={"node-1": wanted})


async def test_named_nodes_and_the_host_are_taken_without_any_pod(begin: Begin) -> None:
    _, change = await begin(nodes=("node-2",), host=True)
    assert await change() == TargetChange(add={"node-2": FilterSpec(namespaces=("default",), host=True)})


async def test_nodes_are_chosen_by_their_labels_as_these_change(
    cluster: FakeCluster, begin: Begin, warnings: list[str]
) -> None:
    _, change = await begin(all_namespaces=True, node_selector="pool in (a, c)")
    assert await change() == TargetChange()
    assert warnings == ["No nodes found with labels pool in (a, c); waiting for them."]

    def label(pool: str) -> Callable[[Any], None]:
        return lambda node: node["metadata"]["labels"].update(pool=pool)

    cluster.store.change("nodes", "", "node-1", label("a"))
    assert await change() == TargetChange(add={"node-1": FilterSpec()})
    cluster.add_node("node-3", {"pool": "c"})
    assert await change() == TargetChange(add={"node-3": FilterSpec()})
    cluster.store.change("nodes", "", "node-1", label("b"))
    assert await change() == TargetChange(remove=("node-1",))


async def test_pods_that_the_label_selector_does_not_want_are_excluded(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("a", "node-1", labels={"app": "x"})
    other = cluster.add_pod("b", "node-1")["metadata"]["uid"]
    cluster.add_pod("c", "node-2")
    targets, change = await begin(selector="app in (x, y)")
    assert await change() == TargetChange(add={"node-1": FilterSpec(namespaces=("default",), exclude_pods=(other,))})
    new = cluster.add_pod("d", "node-1", labels={"app": "z"})["metadata"]["uid"]
    excluded = tuple(sorted([other, new]))
    assert await change() == TargetChange(update={"node-1": FilterSpec(namespaces=("default",), exclude_pods=excluded)})
    assert targets.wants(new, "default/d") is False
    assert targets.wants("never-seen", "default/e") is None


def mirror_of(hash: str, node: str = "node-1") -> dict[str, Any]:
    """Arguments of add_pod that make a pod look as a kubelet makes mirror pods, which any user can write, too."""
    annotations = {"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash}
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": "node-uid", "controller": True}
    return {"annotations": annotations, "owners": [owner]}


async def test_a_static_pod_is_excluded_by_the_name_that_its_containers_have(
    cluster: FakeCluster, begin: Begin
) -> None:
    cluster.add_pod("a", "node-1", labels={"app": "x"})
    cluster.add_pod("s", "node-1", **mirror_of("from-the-kubelet"))
    targets, change = await begin(selector="app")
    assert (await change()).add["node-1"].exclude_pods == ("default/s",)
    assert targets.wants("from-the-kubelet", "default/s") is False
    assert targets.wants("from-the-kubelet", "") is False


@pytest.mark.parametrize("phase", ["Running", "Pending"])
@pytest.mark.parametrize("perfect", [False, True])
async def test_a_pod_does_not_vanish_because_another_claims_its_uid(
    cluster: FakeCluster, begin: Begin, phase: str, perfect: bool
) -> None:
    victim = cluster.add_pod("victim", "node-1", labels={"app": "x"})["metadata"]["uid"]
    cluster.add_namespace("evil")
    targets, change = await begin(selector="app=x", all_namespaces=True)
    await change()
    more = mirror_of(victim) if perfect else {"annotations": {"kubernetes.io/config.hash": victim}}
    decoy = cluster.add_pod("decoy", "node-1", "evil", phase=phase, **more)["metadata"]["uid"]
    excluded = (await change()).update["node-1"].exclude_pods
    assert excluded == (("evil/decoy",) if perfect else (decoy,))
    assert targets.wants(victim, "default/victim") is True
    assert targets.wants(victim, "") is True
    cluster.delete_pod("decoy", "evil")
    assert (await change()).update["node-1"].exclude_pods == ()
    assert targets.wants(victim, "default/victim") is True


async def test_nodes_follow_the_pods(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("a", "node-1")
    _, change = await begin()
    await change()
    cluster.add_pod("b", "node-2")
    assert list((await change()).add) == ["node-2"]
    cluster.delete_pod("a")
    assert await change() == TargetChange(remove=("node-1",))


async def test_a_node_is_kept_for_a_while_after_its_last_pod(cluster: FakeCluster, api: Api, tasks: Tasks) -> None:
    cluster.add_pod("a", "node-1")
    targets = Targets(api, Informer(api, tasks, print), tasks, Selection(), lambda _: None, linger=1000)
    async with aclosing(targets.watch()) as changes:
        await anext(changes)
        cluster.delete_pod("a")
        cluster.add_pod("b", "node-2")
        change = await asyncio.wait_for(anext(changes), 10)
        assert (list(change.add), change.remove) == (["node-2"], ())


async def test_pods_that_are_not_there_are_waited_for(cluster: FakeCluster, begin: Begin, warnings: list[str]) -> None:
    cluster.add_pod("xwing", None, phase="Pending")
    _, change = await begin(pods=("xwin",))
    assert await change() == TargetChange()
    assert warnings == ['pods "xwin" not found in default namespace; waiting for it.']
    cluster.add_pod("xwin", "node-1")
    assert list((await change()).add) == ["node-1"]


async def test_near_names_are_offered(cluster: FakeCluster, begin: Begin, warnings: list[str]) -> None:
    cluster.add_pod("xwing", "node-1")
    _, change = await begin(pods=("xwin",))
    await change()
    assert "Running there: xwing" in warnings[0]


async def test_an_empty_namespace_is_reported(begin: Begin, warnings: list[str]) -> None:
    _, change = await begin(selector="app=x")
    await change()
    assert warnings == ["No running pods found in default namespace with labels app=x; waiting for them."]


async def test_a_namespace_that_does_not_exist_is_an_error(begin: Begin) -> None:
    _, change = await begin(namespace="nothing")
    with pytest.raises(ClusterError, match='namespaces "nothing" not found'):
        await change()


async def test_a_node_that_does_not_exist_is_an_error_that_names_those_that_do(begin: Begin) -> None:
    _, change = await begin(nodes=("node-9", "node-1"))
    with pytest.raises(ClusterError, match='nodes "node-9" not found') as error:
        await change()
    assert error.value.remedy == "one of: node-1, node-2"


async def test_nodes_that_cannot_run_an_agent_are_skipped_with_the_reason(
    cluster: FakeCluster, begin: Begin, warnings: list[str]
) -> None:
    cluster.add_node("windows", {"kubernetes.io/os": "windows"})
    cluster.add_node("fargate", {"eks.amazonaws.com/compute-type": "fargate"})
    cluster.add_node("aci", {"type": "virtual-kubelet"})
    cluster.add_node("down", ready=False)
    _, change = await begin(all_namespaces=True)
    assert list((await change()).add) == ["node-1", "node-2"]
    assert sorted(line.split(" ")[1] for line in warnings) == ["aci", "down", "fargate", "windows"]


async def test_forbidden_lists_end_the_watch(cluster: FakeCluster, begin: Begin) -> None:
    cluster.faults.forbidden.add(("list", "pods"))
    _, change = await begin()
    with pytest.raises(ForbiddenError):
        await change()


async def test_all_rights_that_are_missing_are_reported_before_the_first_node(
    cluster: FakeCluster, begin: Begin
) -> None:
    cluster.add_pod("a", "node-1")
    cluster.faults.forbidden |= {("list", "pods"), ("watch", "pods"), ("watch", "nodes")}
    _, change = await begin(nodes=("node-1",), selector="app=x")
    with pytest.raises(ForbiddenError) as error:
        await change()
    for missing in ("list pods in namespace default", "watch pods in namespace default", "watch nodes in the whole"):
        assert missing in str(error.value)
    assert "list nodes" not in str(error.value)


async def test_a_list_that_is_refused_is_not_asked_for_again(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("a", "node-1")
    cluster.faults.forbidden |= {("list", "pods"), ("watch", "pods")}
    _, change = await begin(nodes=("node-1",), selector="app=x")
    with pytest.raises(ForbiddenError, match="list pods in namespace default"):
        await change()
    assert cluster.server.requests.count(("list", "pods")) == 1


async def test_a_watch_that_will_be_refused_is_known_before_the_first_node(cluster: FakeCluster, begin: Begin) -> None:
    cluster.add_pod("a", "node-1")
    cluster.faults.forbidden.add(("watch", "pods"))
    _, change = await begin()
    with pytest.raises(ForbiddenError, match="watch pods in namespace default"):
        await change()
