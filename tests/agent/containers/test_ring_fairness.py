"""Who loses events is counted by container, whatever number of cgroups that has."""

import itertools
import os
import tracemalloc
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.bpf import maps
from kubectl_gadget.agent.bpf.maps import CpuCounters, HashMap
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.ring_fairness import MOST, ContainerLosses, ContainerNumbers
from kubectl_gadget.wire.agent_messages import Loser
from tests.agent.bpf.test_ring import read
from tests.agent.conftest import Compiled, Opener
from tests.agent.records import cgroups

POD = ContainerIdentity("c1", 7, "default", "xwing", "u1", "spaceship", "", "containerd", "container")
OTHER = ContainerIdentity("c2", 8, "", "", "", "web", "", "docker", "container")


def test_a_container_keeps_its_number_and_the_host_has_its_own() -> None:
    numbers = ContainerNumbers()
    assert numbers.of(7, POD) == numbers.of(7, None)
    assert len({numbers.of(0, None), numbers.of(7, POD), numbers.of(8, OTHER), 0}) == 4
    assert dict(numbers.loser(numbers.of(8, OTHER))) == {"container": "web"}
    assert dict(numbers.loser(numbers.of(0, None))) == {"host": True}


def test_numbers_are_reused_as_late_as_possible_and_can_run_out() -> None:
    numbers = ContainerNumbers()
    first = numbers.of(1, POD)
    numbers.give_back(1)
    given = [numbers.of(2 + number, OTHER) for number in range(MOST - 2)]
    assert given[-1] == first
    assert len(set(given)) == MOST - 2
    assert numbers.of(1 << 40, POD) == 0
    assert not numbers.loser(0)


def test_names_take_no_more_memory_once_all_numbers_were_given() -> None:
    new = itertools.count(2)

    def come_and_go(count: int) -> int:
        for cgroup in itertools.islice(new, count):
            names = [f"{kind}-{cgroup:08}" for kind in ("namespace", "pod", "container")]
            numbers.of(cgroup, POD._replace(namespace=names[0], pod=names[1], container=names[2]))
            numbers.give_back(cgroup)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        numbers = ContainerNumbers()
        before = come_and_go(0)
        full = come_and_go(2 * MOST)
        assert full - before < 600 * MOST
        assert come_and_go(2 * MOST) < full + 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.bpf
class TestInTheKernel:
    @pytest.fixture
    def verdicts(self) -> Iterator[HashMap]:
        verdicts = HashMap("verdicts", 16)
        yield verdicts
        verdicts.close()

    def test_events_lost_to_a_full_ring_are_counted_by_container(
        self, opens: Compiled, opener: Opener, verdicts: HashMap
    ) -> None:
        numbers = ContainerNumbers()
        object = BpfObject(opens.elf, "opens", ["openat_exit"])
        try:
            events, cpus, containers = map(object.map, ("gadget_events", "gadget_cpus", "gadget_containers"))
            assert events is not None
            assert cpus is not None
            assert containers is not None
            events.resize(1 << 16)
            cpus.resize(os.cpu_count() or 1)
            containers.reuse(verdicts.fd)
            object.set_constant("gadget_ring_wake_bytes", 1 << 14)
            object.set_constant("gadget_filter_pid", opener.pid)
            object.load()
            object.attach("openat_exit")
            counts, losses = CpuCounters(cpus.fd, cpus.entries), ContainerLosses(object.map("gadget_shares"))
            ring = open_ring(events.fd, events.entries, counts)
            opener.open(1)
            [cgroup] = cgroups(read(ring))
            verdicts.add(cgroup, 1 | numbers.of(7, POD) << 8)
            opener.open(1009)
            lost = counts.total(maps.LOST_RING_FULL)
            told = losses.by_container(numbers)
            held = len(read(ring))
            ring.close()
            losses.close()
            counts.close()
        finally:
            object.close()
        assert told == (Loser(namespace="default", pod="xwing", container="spaceship", lost=lost),)
        # Nobody else is there, so three quarters are filled, to within a record.
        assert abs(held - (3 << 14)) < 100
