"""The containers of cgroups, packed until they change."""

import gc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from kubectl_gadget.rows.containers import (
    HOST,
    KEEP_SECONDS,
    UNKNOWN,
    Announced,
    AnnouncedOwners,
    Container,
    ContainerFilter,
    Identity,
    announced,
    shared_names,
)
from kubectl_gadget.wire.client_messages import FilterSpec
from tests.messages import changes

Described = tuple[object, object] | None
CONTAINERS = st.dictionaries(st.integers(0, 2**64 - 1), st.none() | st.integers(0, 9))
"""by cgroup, the number of its container"""


def container(number: int) -> Announced:
    """Some have no names yet."""
    made = announced(f"c{number}" * number)
    if number % 4:
        names = shared_names(f"ns-{number % 2}", "main", "image", "")
        made.name((made.id, number % 3 == 0, False, f"pod-{number}", b"u" * 16), names)
    return made


def described(owner: Announced | None) -> Described:
    return None if owner is None else (owner.id if owner.shared is None else owner.own, owner.shared)


def owners_of(numbers: dict[int, int | None]) -> AnnouncedOwners:
    made = {number: container(number) for number in numbers.values() if number is not None}
    owners = AnnouncedOwners()
    for cgroup, number in numbers.items():
        owner = owners.unpack()[cgroup] = None if number is None else made[number]
        if owner is not None:
            owner.uses += 1
    return owners


@given(CONTAINERS, st.integers(0, 2**64))
def test_what_is_packed_has_the_same_cgroups_and_containers(numbers: dict[int, int | None], other: int) -> None:
    owners = owners_of(numbers)
    before = dict(owners.unpack())
    wanted = {cgroup: described(owner) for cgroup, owner in before.items()}
    owners.pack()
    assert len(owners) == len(numbers)
    assert {cgroup: described(owners[cgroup]) for cgroup in numbers} == wanted
    assert sorted(map(str, map(described, owners.values()))) == sorted(map(str, wanted.values()))
    assert all(cgroup in owners for cgroup in numbers)
    assert (other in owners) == (other in numbers)
    after = owners.unpack()
    assert {cgroup: described(owner) for cgroup, owner in after.items()} == wanted
    assert {cgroup: owner and owner.uses for cgroup, owner in after.items()} == {
        cgroup: owner and owner.uses for cgroup, owner in before.items()
    }
    assert len({id(owner) for owner in after.values()}) == len({id(owner) for owner in before.values()})


def test_it_changes_after_it_was_packed() -> None:
    owners = owners_of({7: 1, 8: 2})
    owners.pack()
    owners.unpack()[3] = None
    del owners.unpack()[7]
    for _ in range(2):
        assert (len(owners), 7 in owners, owners[3]) == (2, False, None)
        assert described(owners[8]) == described(container(2))
        owners.pack()


@pytest.mark.parametrize("cgroup", [-1, 2**64])
def test_a_number_of_more_than_64_bits_is_kept(cgroup: int) -> None:
    owners = owners_of({cgroup: 1})
    owners.pack()
    assert described(owners[cgroup]) == described(container(1))


def test_names_that_many_containers_have_are_one_object() -> None:
    assert shared_names("ns", "main", "image", "containerd") is shared_names("ns", "main", "image", "containerd")


# Cgroup ids to containers.


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
