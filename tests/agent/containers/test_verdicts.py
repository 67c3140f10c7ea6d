"""FILTER: which containers are wanted."""

import pytest

from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.tracking import UNWANTED, UNWANTED_HOST, WANTED, WANTED_HOST, ContainerSelection
from kubectl_gadget.errors import FrameError
from tests.messages import filter_spec

SHIP = ContainerIdentity("i", 1, "default", "xwing", "uid-1", "spaceship", "", "containerd", "container")


def filter_of(value: dict[str, object], own_pod: str = "", own_namespace: str = "") -> ContainerSelection:
    return ContainerSelection(filter_spec(value), own_pod, own_namespace)


def test_null_means_any() -> None:
    assert filter_of({"namespaces": None, "pods": None, "containers": None}).verdict(SHIP) == WANTED
    assert filter_of({}).verdict(SHIP) == WANTED


@pytest.mark.parametrize("member", ["namespaces", "pods", "containers"])
def test_each_list_has_to_hold_the_name(member: str) -> None:
    name = {"namespaces": "default", "pods": "xwing", "containers": "spaceship"}[member]
    assert filter_of({member: ["other", name]}).verdict(SHIP) == WANTED
    assert filter_of({member: ["other"]}).verdict(SHIP) == UNWANTED
    assert filter_of({member: []}).verdict(SHIP) == UNWANTED


def test_a_pod_may_be_chosen_by_a_pattern() -> None:
    assert filter_of({"pods": ["other", "x*ng"]}).verdict(SHIP) == WANTED
    assert filter_of({"pods": ["x*", "-*"]}).verdict(SHIP._replace(pod="web-1")) == UNWANTED


def test_a_pod_can_be_excluded_by_its_uid() -> None:
    assert filter_of({"exclude_pods": ["uid-1"]}).verdict(SHIP) == UNWANTED
    assert filter_of({"exclude_pods": [f"{SHIP.namespace}/{SHIP.pod}"]}).verdict(SHIP) == UNWANTED
    assert filter_of({"exclude_pods": [f"another/{SHIP.pod}", "/"]}).verdict(SHIP) == WANTED
    assert filter_of({"exclude_pods": [""]}).verdict(SHIP._replace(pod_uid="")) == WANTED


def test_the_agents_own_pod_is_wanted_only_where_its_namespace_is_named() -> None:
    assert filter_of({}, "uid-1").verdict(SHIP) == UNWANTED
    assert filter_of({"pods": ["xwing"], "exclude_pods": ["uid-2"]}, "uid-1").verdict(SHIP) == UNWANTED
    assert filter_of({"namespaces": ["default"]}, "uid-1").verdict(SHIP) == WANTED
    assert filter_of({}, "uid-2").verdict(SHIP) == WANTED
    assert filter_of({}).verdict(SHIP._replace(pod_uid="")) == WANTED


def test_a_sandbox_is_selected_like_other_containers_of_its_pod() -> None:
    sandbox = SHIP._replace(kind="sandbox", container="POD")
    assert filter_of({}).verdict(sandbox) == WANTED
    assert filter_of({"containers": ["POD"]}).verdict(sandbox) == WANTED
    assert filter_of({"containers": ["spaceship"]}).verdict(sandbox) == UNWANTED


def test_the_host_is_wanted_when_asked_for() -> None:
    assert filter_of({"host": True}).host == WANTED_HOST
    assert filter_of({}).host == UNWANTED_HOST


@pytest.mark.parametrize("value", [{"pods": "xwing"}, {"namespaces": [1]}, {"exclude_pods": {}}])
def test_a_value_that_is_not_a_list_of_names_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(FrameError):
        filter_spec(value)


def test_other_agents_are_left_out_by_their_namespace_unless_they_are_asked_for() -> None:
    agent = SHIP._replace(namespace="kubectl-gadget", container="agent", pod_uid="uid-9")
    assert filter_of({}, "uid-2", "kubectl-gadget").verdict(agent) == UNWANTED
    assert filter_of({}, "uid-2", "kubectl-gadget").verdict(agent._replace(namespace="kubectl-gadget-2")) == WANTED
    assert filter_of({}, "uid-2", "kubectl-gadget").verdict(agent._replace(container="sidecar")) == WANTED
    assert filter_of({}, "uid-2", "kubectl-gadget").verdict(agent._replace(namespace="shop")) == WANTED
    assert filter_of({"namespaces": ["kubectl-gadget"]}, "uid-2", "kubectl-gadget").verdict(agent) == WANTED
    assert filter_of({"own_processes": True}, "uid-2", "kubectl-gadget").verdict(agent) == WANTED
    assert filter_of({"own_processes": True}, "uid-9", "kubectl-gadget").verdict(agent) == WANTED
