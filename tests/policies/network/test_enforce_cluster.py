"""`kubectl gadget enforce --from-cluster` against a double of a cluster: what changes there changes what is refused."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from kubectl_gadget.demo.pods import DemoPods
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.policies.network.test_enforce_here import CALL, POLICY
from tests.waiting import until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built")]
ELSEWHERE = {"namespace": "other"}


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(1) as cluster:
        cluster.add_namespace("shop")
        yield cluster


@pytest.fixture
def runner(cluster: FakeCluster, tmp_path: Path) -> Runner:
    return Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))


async def is_refused(pods: DemoPods, name: str) -> bool:
    pod = await asyncio.to_thread(pods.run_short, "shop", name, CALL)
    return pod.containers["main"].exit_code == 0


async def until_refused(pods: DemoPods, name: str, wanted: bool) -> None:
    async def is_as_wanted() -> bool:
        return await is_refused(pods, name) is wanted

    await until(is_as_wanted, f"{name} to be {'refused' if wanted else 'let through'}")


async def test_pods_labels_and_policies_are_followed(cluster: FakeCluster, runner: Runner, pods: DemoPods) -> None:
    cluster.add_pod("web", "node-1", "shop", {"app": "web"})
    cluster.store.add("networkpolicies", "shop", POLICY)
    await runner.start("enforce", "--from-cluster", "-A", "-o", "json")
    await runner.until_said("enforcing network policies on 1/1 nodes")
    # The first container of a runtime may begin before its pod is known (docs/evasions.md).
    await until_refused(pods, "web", True)
    cluster.store.change("pods", "shop", "web", lambda pod: pod["metadata"].update(labels={"app": "db"}))
    await until_refused(pods, "web", False)
    cluster.store.change("pods", "shop", "web", lambda pod: pod["metadata"].update(labels={"app": "web"}))
    await until_refused(pods, "web", True)
    cluster.store.remove("networkpolicies", "shop", "no-way-out")
    await until_refused(pods, "web", False)
    outcome = await runner.finish()
    assert {(row["node"], row["pod"], row["policy"]) for row in outcome.rows} == {("node-1", "web", "no-way-out")}


async def test_a_file_without_a_namespace_belongs_to_the_runs_namespace(
    cluster: FakeCluster, tmp_path: Path, pods: DemoPods
) -> None:
    cluster.add_pod("web", "node-1", "shop", {"app": "web"})
    elsewhere, here = ({**POLICY, "metadata": {"name": name, **other}} for name, other in (("a", ELSEWHERE), ("b", {})))
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump_all([elsewhere, here]))
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig", namespace="shop"))
    await runner.start("enforce", "--network-policy", str(tmp_path / "policies.yaml"), "-o", "json")
    await runner.until_said("enforcing network policies on 1/1 nodes")
    # The first container of a runtime may begin before its pod is known (docs/evasions.md).
    await until_refused(pods, "web", True)
    outcome = await runner.finish()
    assert {row["policy"] for row in outcome.rows} == {"b"}
    assert "policies of namespace other have no effect here: the run is limited to pods of shop" in outcome.errors


async def test_a_cluster_whose_pods_may_not_be_listed_is_refused(cluster: FakeCluster, runner: Runner) -> None:
    cluster.faults.forbidden.add(("list", "networkpolicies"))
    await runner.start("enforce", "--from-cluster", "-A", "-o", "json")
    outcome = await runner.finish(interrupt=False)
    assert outcome.code == 1
    assert "networkpolicies" in outcome.errors


async def test_a_dry_run_without_any_policy_says_both(runner: Runner) -> None:
    await runner.start("enforce", "--from-cluster", "-A", "--dry-run", "-o", "json")
    await runner.until_said("there is no NetworkPolicy", "trying (dry run) network policies on 1/1 nodes")
    assert (await runner.finish()).code == 130
