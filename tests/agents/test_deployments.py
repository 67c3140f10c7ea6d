"""Which nodes undeploy takes for those with an agent."""

from typing import Any

from kubectl_gadget.agents.deployments import _residents


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}}


def running(name: str, node: str) -> dict[str, Any]:
    return pod(name, nodeName=node) | {"status": {"containerStatuses": [{"state": {"running": {}}}]}}


def ending(name: str, node: str) -> dict[str, Any]:
    found = running(name, node)
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return found


def test_a_pod_that_is_not_scheduled_is_named_by_the_node_it_waits_for() -> None:
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    names = [node.name for node in _residents([pod("a", affinity=affinity), pod("b"), pod("c", affinity={})])]
    assert names == ["node-1", "the node of pod b", "the node of pod c"]


def test_a_pod_that_another_one_has_replaced_is_no_node_without_an_agent() -> None:
    found = _residents([ending("old", "node-1"), running("new", "node-1"), ending("last", "node-2")])
    assert [(node.name, bool(node.problem)) for node in found] == [("node-1", False), ("node-2", True)]
