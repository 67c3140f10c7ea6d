"""Waiting for what happens by itself, without depending on when.

The trap: a condition that never comes must fail the test, so there is a limit, far beyond what any machine needs.
"""

import asyncio
from collections.abc import Callable

from kubectl_gadget.agents.manifests import EXPIRY
from tests.fake_cluster import FakeCluster

_SECONDS = 120.0


async def until(condition: Callable[[], bool]) -> None:
    """Returns when `condition` holds. Raises TimeoutError after two minutes."""
    async with asyncio.timeout(_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def left(cluster: FakeCluster, before: set[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """What there is that was not there before, without namespaces that expire by themselves."""
    found = set(cluster.store.objects) - before
    for namespace in cluster.store.list("namespaces"):
        name = namespace["metadata"]["name"]
        owners = namespace["metadata"].get("ownerReferences", ())
        if any(("ipaddresses", "", owner["name"]) in cluster.store.objects for owner in owners):
            found -= {("namespaces", "", name), ("jobs", name, EXPIRY), ("services", name, EXPIRY)}
            found -= {("ipaddresses", "", owner["name"]) for owner in owners}
    return found
