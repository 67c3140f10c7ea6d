"""A fake Kubernetes cluster that speaks the real protocols, for tests and for trying things by hand.

It has REST with watches, the exec websocket in v5 and v4, refusals of Pod Security and RBAC, and nodes whose exec runs
the real agent as a child process. `python -m tests.fake_cluster --nodes 3` starts one. Requests that it does not
support are answered with 404, never with an empty success, so that a test cannot pass by requesting nothing.
"""

from tests.fake_cluster.cluster import FakeCluster
from tests.fake_cluster.faults import Faults

__all__ = ["FakeCluster", "Faults"]
