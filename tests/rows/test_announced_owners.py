"""The containers of cgroups, packed until they change."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kubectl_gadget.rows.announced_owners import Announced, AnnouncedOwners, announced, shared_names

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
