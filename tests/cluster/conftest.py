"""A fake cluster of two nodes, and our API access to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kubectl_gadget.cluster.api import Api
from kubectl_gadget.cluster.kubeconfig import load
from kubectl_gadget.cluster.options import AgentOptions, KubeOptions
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
def api(cluster: FakeCluster, tmp_path: Path, warnings: list[str]) -> Api:
    path = cluster.write_kubeconfig(tmp_path / "kubeconfig")
    return Api(load(KubeOptions(kubeconfig=str(path))), warnings.append)


@pytest.fixture
def agent_options() -> AgentOptions:
    return AgentOptions(start_timeout=10)
