"""What runs left in the fake cluster."""

from kubectl_gadget.agents.manifests import EXPIRY
from tests.fake_cluster import FakeCluster


def left(cluster: FakeCluster, before: set[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """Return the keys of objects that were not there before, without namespaces that expire by themselves."""
    found = set(cluster.store.objects) - before
    for namespace in cluster.store.list("namespaces"):
        name = namespace["metadata"]["name"]
        owners = namespace["metadata"].get("ownerReferences", ())
        if any(("ipaddresses", "", owner["name"]) in cluster.store.objects for owner in owners):
            found -= {("namespaces", "", name), ("jobs", name, EXPIRY), ("services", name, EXPIRY)}
            found -= {("ipaddresses", "", owner["name"]) for owner in owners}
    return found
