"""`kubectl gadget enforce -f` by labels, against a double of a cluster: what changes there changes who is guarded."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kubectl_gadget.demo.pods import DemoPod, DemoPods
from tests.conftest import why_no_bpf, why_no_containers
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.runner import Runner
from tests.observe.test_policies_here import policy
from tests.waiting import until

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("catalogue_built", "tracefs"),
    pytest.mark.skipif(bool(why_no_containers()), reason=str(why_no_containers())),
]
KILLED = 128 + signal.SIGKILL
NAMESPACE = f"labels-{os.getpid()}"
"""Its own, since processes of unknown containers are killed."""


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPods]:
    if why_no_bpf():
        pytest.skip(str(why_no_bpf()))
    with DemoPods(Path("/run") / f"kubectl-gadget-labels-{tmp_path_factory.getbasetemp().name}") as found:
        yield found


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(1) as cluster:
        yield cluster


async def test_pods_with_the_label_and_unknown_pods_are_guarded(
    cluster: FakeCluster, pods: DemoPods, tmp_path: Path
) -> None:
    numbers = itertools.count()

    async def does_it(pod: DemoPod) -> int | None:
        """How a new container of the pod ends whose first deed is the one that is forbidden."""
        command = ["/bin/sh", "-c", "echo x > /tmp/guarded"]
        container = await asyncio.to_thread(pods.add_container, pod, f"c{next(numbers)}", command, until_end=True)
        return container.exit_code

    async def is_killed() -> bool:
        return await does_it(web) == KILLED

    async def is_let_through() -> bool:
        return await does_it(web) == 0

    def label(app: str) -> None:
        cluster.store.change("pods", NAMESPACE, "web", lambda pod: pod["metadata"].update(labels={"app": app}))

    web, stranger = (pods.start_pod(NAMESPACE, name, {}) for name in ("web", "stranger"))
    cluster.add_namespace(NAMESPACE)
    cluster.add_pod("web", "node-1", NAMESPACE, labels={"app": "db"}, uid=web.uid)
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    scope, actions = "podSelector: {matchLabels: {app: web}}", "matchActions: [{action: Sigkill}]"
    file = policy(tmp_path, scope, actions, "/tmp/guarded")
    await runner.start("enforce", "-f", file, "-n", NAMESPACE, "--allow-weaker", "-o", "json", "-e", "kprobe")
    await runner.until_said("tracing processes on 1/1 nodes")
    assert await does_it(web) == 0
    assert await does_it(stranger) == KILLED
    label("web")
    await until(is_killed)
    label("db")
    await until(is_let_through)
    outcome = await runner.finish()
    told = {row["process_kprobe"]["process"]["pod"]["name"] for row in outcome.rows}
    assert told == {"web", "stranger"}


async def test_labels_that_may_not_be_listed_are_reported_and_nothing_is_started(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.faults.forbidden.add(("list", "pods"))
    runner = Runner(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
    file = policy(tmp_path, "podSelector: {matchLabels: {app: web}}")
    await runner.start("observe", "-f", file, "-A", "-o", "json")
    outcome = await runner.finish(interrupt=False)
    assert outcome.code
    assert "pods" in outcome.errors
    assert not outcome.rows
