"""Cgroup ids to containers."""

import gc

import numpy as np
import pytest

from kubectl_gadget.rows.container_lookup import HOST, KEEP_SECONDS, UNKNOWN, Container, ContainerFilter, Identity
from kubectl_gadget.wire.client_messages import FilterSpec
from tests.messages import changes

XWING = {"id": "c1", "namespace": "default", "pod": "xwing", "container": "ship", "pod_uid": "u1", "kind": "container"}
PAUSE = {"id": "c2", "namespace": "default", "pod": "xwing", "pod_uid": "u1", "kind": "sandbox"}


def pods(identity: Identity, *cgroups: int) -> list[str]:
    """The pod of each cgroup."""
    owners = identity.lookup(np.array(cgroups, np.uint64))
    return [owners.containers[code].pod or owners.containers[code].kind for code in owners.codes]


def known() -> Identity:
    """A node with one pod, its sandbox, and a host cgroup."""
    identity = Identity("node-1")
    identity.apply(
        changes({"containers": [XWING, PAUSE], "cgroups": {"7": "c1", "8": "c1", "9": "c2", "10": None}}),
        0.0,
    )
    return identity


def test_rows_are_named_by_their_cgroup() -> None:
    assert pods(known(), 7, 8, 10, 99, 0, 2**64 - 1) == ["xwing", "xwing", "host", "unknown", "unknown", "unknown"]


def test_a_container_is_an_object_once_a_row_names_it() -> None:
    gc.collect()
    of_other_tests = _objects("c1")
    identity = known()
    assert _objects("c1") == of_other_tests
    owners = identity.lookup(np.array([7, 8, 7], np.uint64))
    assert _objects("c1") == of_other_tests + 1
    assert owners.containers[owners.codes[0]] == Container(
        "container", "default", "xwing", "ship", container_id="c1", pod_uid="u1"
    )


def _objects(container_id: str) -> int:
    return sum(type(one) is Container and one.container_id == container_id for one in gc.get_objects())


def test_a_container_may_be_named_after_its_cgroup() -> None:
    identity = Identity("node-1")
    identity.apply(changes({"cgroups": {"7": "c1"}}), 0.0)
    assert pods(identity, 7) == ["unknown"]
    identity.apply(changes({"containers": [XWING]}), 0.0)
    assert pods(identity, 7) == ["xwing"]


def test_unknown_cgroups_are_counted() -> None:
    assert known().lookup(np.array([7, 99, 1], np.uint64)).unattributed() == 2
    assert Identity("node-1").lookup(np.array([7], np.uint64)).unattributed() == 1


def test_a_removed_container_stays_known_for_some_minutes() -> None:
    identity = known()
    identity.apply(changes({"removed": [7]}), 10.0)
    identity.expire(10.0 + KEEP_SECONDS)
    assert pods(identity, 7) == ["xwing"]
    identity.expire(11.0 + KEEP_SECONDS)
    assert pods(identity, 7, 8) == ["unknown", "xwing"]


def test_a_cgroup_that_comes_back_is_not_forgotten() -> None:
    identity = known()
    identity.apply(changes({"removed": [7]}), 10.0)
    identity.apply(changes({"cgroups": {"7": "c1"}}), 20.0)
    identity.expire(1e6)
    assert pods(identity, 7) == ["xwing"]


def test_a_container_is_forgotten_with_its_last_cgroup() -> None:
    identity = known()
    identity.apply(changes({"removed": [7, 8], "cgroups": {"7": "c1"}}), 10.0)
    identity.apply(changes({"removed": [7]}), 11.0)
    identity.expire(12.0 + KEEP_SECONDS)
    assert {container.kind for container in identity.containers()} == {"sandbox", "host"}
    identity.apply(changes({"cgroups": {"11": "c1"}}), 1e6)
    assert pods(identity, 11) == ["unknown"]


def test_a_cgroup_that_changes_hands_belongs_to_its_new_owner() -> None:
    identity = known()
    assert pods(identity, 7, 10) == ["xwing", "host"]
    identity.apply(changes({"cgroups": {"7": None, "10": "c1"}}), 0.0)
    assert pods(identity, 7, 10) == ["host", "xwing"]


@pytest.mark.slow
def test_a_container_that_makes_and_removes_cgroups_without_end_does_not_fill_the_memory() -> None:
    identity = known()
    for first in range(100, 200_100, 1000):
        made = range(first, first + 1000)
        identity.apply(changes({"cgroups": dict.fromkeys(map(str, made), "c1"), "removed": list(made)}), 1.0)
        assert pods(identity, first, 7) == ["xwing", "xwing"]
    assert len(identity) < 70_000
    assert pods(identity, 200_099, 100, 8, 9, 10) == ["xwing", "unknown", "xwing", "xwing", "host"]


def test_a_containers_name_may_come_after_its_cgroup() -> None:
    identity = Identity("node-1")
    identity.apply(changes({"cgroups": {"7": "c1"}}), 0.0)
    assert pods(identity, 7) == ["unknown"]
    identity.apply(changes({"containers": [XWING]}), 0.0)
    assert pods(identity, 7) == ["xwing"]


@pytest.mark.parametrize(
    ("filter", "wanted"),
    [
        (ContainerFilter(FilterSpec()), [True, True, False, True, True]),
        (ContainerFilter(FilterSpec(host=True)), [True, True, True, True, True]),
        (ContainerFilter(FilterSpec(namespaces=("default",))), [True, False, False, True, False]),
        (ContainerFilter(FilterSpec(pods=("other",))), [False, False, False, False, False]),
        (ContainerFilter(FilterSpec(containers=("ship",))), [True, False, False, False, False]),
        (ContainerFilter(FilterSpec(exclude_pods=("u1",))), [False, True, False, False, True]),
        (ContainerFilter(FilterSpec(exclude_pods=("default/xwing",))), [False, True, False, False, True]),
    ],
)
def test_the_late_decision_is_the_agents_rule(filter: ContainerFilter, wanted: list[bool]) -> None:
    containers = [
        Container("container", "default", "xwing", "ship", pod_uid="u1"),
        Container("container", "", "", "my-docker"),
        HOST,
        Container("sandbox", "default", "xwing", "POD", pod_uid="u1"),
        UNKNOWN,
    ]
    assert [filter.wanted(container) for container in containers] == wanted


def test_many_rows_are_decided_at_once() -> None:
    owners = known().lookup(np.array([7, 9, 10, 7], np.uint64))
    assert owners.judged(ContainerFilter(FilterSpec()).wanted).tolist() == [1, 1, 0, 1]


def test_a_container_that_was_seen_to_begin_stays_that_when_the_connection_is_made_again() -> None:
    identity = Identity("node-1")
    identity.apply(
        changes({"containers": [{**XWING, "earlier": True}, PAUSE], "cgroups": {"7": "c1", "9": "c2"}}),
        0.0,
    )
    assert {item.container_id: item.earlier for item in identity.containers()} == {"c1": True, "c2": False}
    identity.apply(changes({"containers": [{**XWING, "earlier": True}, {**PAUSE, "earlier": True}]}), 1.0)
    assert {item.container_id: item.earlier for item in identity.containers()} == {"c1": True, "c2": False}


@pytest.mark.parametrize("id", ["c1", "0f" * 32, "0F" * 32, "0x" + "1" * 62, "1" * 64, "1" * 32, "", "-" + "1" * 63])
def test_a_containers_id_is_given_as_the_agent_sent_it(id: str) -> None:
    identity = Identity("node-1")
    identity.apply(changes({"containers": [{**XWING, "id": id}], "cgroups": {"7": id}}), 0.0)
    assert [item.container_id for item in identity.containers()] == [id]


UID = "6d4cf56d-0b1a-4c7e-9f00-00000000abcd"


@pytest.mark.parametrize("uid", [UID, UID.upper(), UID.replace("-", ""), UID[::-1], f"{UID[:-1]}g", "u1", "-", ""])
def test_a_pods_uid_is_given_as_the_agent_sent_it(uid: str) -> None:
    identity = Identity("node-1")
    identity.apply(changes({"containers": [{**XWING, "pod_uid": uid}], "cgroups": {"7": "c1"}}), 0.0)
    assert [item.pod_uid for item in identity.containers()] == [uid]


def test_a_container_may_be_named_before_its_cgroup() -> None:
    identity = Identity("node-1")
    identity.apply(changes({"containers": [XWING, PAUSE], "cgroups": {"9": "c2"}}), 0.0)
    identity.apply(changes({"cgroups": {"7": "c1", "8": "c2"}}), 0.0)
    assert pods(identity, 7, 8) == ["xwing", "xwing"]
    assert len(identity.containers()) == 2


def test_a_container_without_a_cgroup_keeps_its_names() -> None:
    identity = known()
    identity.apply(changes({"cgroups": {"9": None}}), 0.0)
    identity.apply(changes({"cgroups": {"11": "c2"}}), 0.0)
    assert pods(identity, 9, 11) == ["host", "xwing"]
