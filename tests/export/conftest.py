"""The fixtures of the fake cluster."""

from tests.fake_cluster.fixtures import agent_options, api, cluster, failures, tasks, warnings

__all__ = ["agent_options", "api", "cluster", "failures", "tasks", "warnings"]
