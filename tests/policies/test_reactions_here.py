"""`kubectl gadget enforce --action delete-pod` against a double of a cluster, with real pods on this machine."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import DemoPod, DemoPods
from kubectl_gadget.policies.reactions import PodIsolation
from tests.fake_cluster import FakeCluster
from tests.gadget_run import GADGET
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("catalogue_built", "tracefs")]
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: secrets}
spec:
  kprobes:
  - call: sys_openat
    syscall: true
    args: [{index: 1, type: string}]
    selectors:
    - matchArgs: [{index: 1, operator: Equal, values: [/no/such/secret]}]
      matchActions: [{action: Sigkill}]
"""
READS = ["/bin/sh", "-c", "while :; do read x < /no/such/secret; sleep 0.2; done"]
SLEEPS = ["/bin/sleep", "1000"]


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(1) as cluster:
        yield cluster


def add(cluster: FakeCluster, pod: DemoPod) -> None:
    """The cluster's object of a pod that runs here."""
    metadata = {"name": pod.name, "uid": pod.uid, "labels": {}}
    status: dict[str, Any] = {"phase": "Running", "containerStatuses": []}
    spec = {"nodeName": "node-1", "containers": [{"name": "main", "image": "busybox"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}
    cluster.store.add("pods", pod.namespace, body)


async def enforce(cluster: FakeCluster, folder: Path, *flags: str) -> asyncio.subprocess.Process:
    (folder / "policy.yaml").write_text(POLICY)
    kubeconfig = cluster.write_kubeconfig(folder / "kubeconfig")
    command = [*GADGET, "enforce", "-f", str(folder / "policy.yaml")]
    command += ["--action", "delete-pod", "--kubeconfig", str(kubeconfig), *flags]
    pipe = subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)


async def until_deleted(cluster: FakeCluster, process: asyncio.subprocess.Process, pod: str) -> None:
    async def is_deleted() -> bool:
        assert process.returncode is None, (await process.communicate())[1].decode()
        return cluster.store.get("pods", "default", pod) is None

    await until(is_deleted, f"the deletion of {pod}")


async def test_the_pod_that_did_it_is_deleted_once_and_no_other(
    cluster: FakeCluster, pods: DemoPods, tmp_path: Path
) -> None:
    for name, command in (("reader", READS), ("sleeper", SLEEPS)):
        add(cluster, await asyncio.to_thread(pods.start_pod, "default", name, {"main": command}))
    process = await enforce(cluster, tmp_path, "-n", "default", "--yes")
    await until_deleted(cluster, process, "reader")
    process.send_signal(2)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert said.decode().count("default/reader deleted: policy secrets") == 1
    assert cluster.store.get("pods", "default", "sleeper") is not None
    assert cluster.server.requests.count(("delete", "pods")) == 1


async def test_what_is_not_shown_is_deleted_as_well(cluster: FakeCluster, pods: DemoPods, tmp_path: Path) -> None:
    add(cluster, await asyncio.to_thread(pods.start_pod, "default", "unseen", {"main": READS}))
    process = await enforce(cluster, tmp_path, "-n", "default", "--yes", "-e", "exit")
    await until_deleted(cluster, process, "unseen")
    process.send_signal(2)
    told, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert "/no/such/secret" not in told.decode()


async def test_without_an_answer_nothing_is_begun(cluster: FakeCluster, tmp_path: Path) -> None:
    process = await enforce(cluster, tmp_path)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 2
    assert "any pod in the namespace default that violates these policies is deleted" in said.decode()
    assert not cluster.pods("kubectl-gadget")


async def test_without_the_right_to_delete_nothing_is_begun(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.faults.forbidden.add(("delete", "pods"))
    process = await enforce(cluster, tmp_path, "-A", "--yes")
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 1
    assert "to delete pods you need" in said.decode()
    assert not cluster.pods("kubectl-gadget")


# Which pods the table of isolated pods names.


def test_a_pod_is_isolated_by_its_uid_so_that_a_later_pod_of_its_name_is_not() -> None:
    said: list[str] = []
    isolation = PodIsolation(said.append)
    for _ in range(2):
        isolation.isolate("shop", "db-0", "u1", "secrets")
    assert set(isolation.tables.of("node-1").pods) == {"u1"}
    assert said == ["shop/db-0 is cut off from the network: policy secrets"]


def test_pods_without_a_uid_are_isolated_by_name_each_of_them_and_it_is_said() -> None:
    said: list[str] = []
    isolation = PodIsolation(said.append)
    for pod in ("a", "b", "a"):
        isolation.isolate("shop", pod, "", "secrets")
    assert set(isolation.tables.of("node-1").pods) == {"shop/a", "shop/b"}
    assert [text.partition(" (")[0] for text in said] == [
        f"shop/{pod} is cut off from the network: policy secrets" for pod in "ab"
    ]
    assert all("later pods of this name are cut off too" in text for text in said)
