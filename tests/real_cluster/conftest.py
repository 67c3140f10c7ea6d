"""Fixtures: a namespace in the real cluster, and agents on its nodes."""

import secrets
from collections.abc import Iterator

import pytest

from tests.real_cluster.real_cluster import AGENT_FLAGS, gadget, kubectl


@pytest.fixture
def namespace() -> Iterator[str]:
    """A new one in the real cluster."""
    name = f"kg-test-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def deployed() -> Iterator[None]:
    """Resident agents in the real cluster."""
    result = gadget("deploy", *AGENT_FLAGS)
    assert result.returncode == 0, result.stderr
    yield
    assert gadget("undeploy").returncode == 0
