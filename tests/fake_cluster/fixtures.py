"""Fixtures: a fake cluster of two nodes, and API access to it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.kube.cluster_options import AgentOptions, KubeOptions
from kubectl_gadget.kube.kubeconfig import load
from kubectl_gadget.kube.requests import Api
from tests.fake_cluster import FakeCluster


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(2) as cluster:
        yield cluster


@pytest.fixture
def warnings() -> list[str]:
    """What the API server warned of, or we."""
    return []


@pytest.fixture
def api(cluster: FakeCluster, tmp_path: Path, warnings: list[str]) -> Iterator[Api]:
    path = cluster.write_kubeconfig(tmp_path / "kubeconfig")
    with closing(Api(load(KubeOptions(kubeconfig=str(path))), warnings.append)) as api:
        yield api


@pytest.fixture
async def failures() -> list[GadgetError]:
    """With what background tasks died."""
    return []


@pytest.fixture
async def tasks(failures: list[GadgetError]) -> AsyncIterator[Tasks]:
    async with Tasks(failures.append) as tasks:
        yield tasks


@pytest.fixture
def agent_options() -> AgentOptions:
    return AgentOptions(start_timeout=10)
