"""The mapped ring against libbpf's own consumer, in the running kernel."""

from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.bpf import libbpf, maps
from kubectl_gadget.agent.bpf.maps import CpuCounters, HashMap
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.ring import CopiedRing, MappedRing, Ring
from tests.agent.conftest import Compiled, Opener
from tests.agent.records import records

pytestmark = pytest.mark.bpf

SIZE = 64 << 10


class Traced:
    """The test gadget attached to one process, its ring read by `reader`."""

    def __init__(self, opens: Compiled, pid: int, reader: type[MappedRing] | type[CopiedRing]) -> None:
        self._object = BpfObject(opens.elf, "opens", ["openat_exit"])
        self._object.set_variable(opens.variables["gadget_filter_pid"]["offset"], pid.to_bytes(4, "little"))
        events, cpus = self._object.map("gadget_events"), self._object.map("gadget_cpus")
        assert events
        assert cpus
        events.resize(SIZE)
        cpus.resize(libbpf.load().call("libbpf_num_possible_cpus"))
        self._object.load()
        self._object.attach("openat_exit")
        self.counters = CpuCounters(cpus.fd, cpus.entries)
        self.ring: Ring = reader(events.fd, events.entries, self.counters)

    def close(self) -> None:
        self._object.detach()
        self.ring.close()
        self.counters.close()
        self._object.close()


def read(ring: Ring) -> bytes:
    while not ring.settle():
        continue  # a CPU was taken away from the program, as a virtual one may be
    batch = ring.batch()
    data = bytes(batch)
    batch.release()
    ring.advance(len(data))
    return data


@pytest.fixture
def mapped(opens: Compiled, opener: Opener) -> Iterator[Traced]:
    traced = Traced(opens, opener.pid, MappedRing)
    yield traced
    traced.close()


@pytest.fixture
def copied(opens: Compiled, opener: Opener) -> Iterator[Traced]:
    traced = Traced(opens, opener.pid, CopiedRing)
    yield traced
    traced.close()


def test_both_readers_see_the_same_records(mapped: Traced, copied: Traced, opener: Opener) -> None:
    ours, theirs = [], []
    for times in (1, 0, 7, 641, 3):  # goes round the ring
        opener.open(times)
        ours += list(records(read(mapped.ring)))
        theirs += list(records(read(copied.ring)))
    assert len(ours) == len(theirs) == 652
    # Two programs ran for each open, so all but the time of day is the same.
    assert [record[8:] for record in ours] == [record[8:] for record in theirs]


def test_the_ring_wraps_around_many_times_without_a_gap(mapped: Traced, opener: Opener) -> None:
    seen = 0
    for _ in range(23):
        opener.open(509)
        seen += len(list(records(read(mapped.ring))))
    assert seen == 23 * 509
    assert mapped.counters.total(maps.LOST_RING_FULL) == 0


def test_records_read_while_a_program_writes_are_complete(mapped: Traced, opener: Opener) -> None:
    opener.begin(100_003)
    seen = 0
    while seen + mapped.counters.total(maps.LOST_RING_FULL) < 100_003:
        seen += len(list(records(read(mapped.ring))))
    opener.end()
    assert seen == mapped.counters.total(maps.EVENTS)


def test_a_ring_is_quiet_until_something_is_written_and_once_it_was_given_back(
    mapped: Traced, copied: Traced, opener: Opener
) -> None:
    assert mapped.ring.is_quiet
    assert copied.ring.is_quiet
    opener.open(3)
    for ring in (mapped.ring, copied.ring):
        assert not ring.is_quiet
        while not ring.settle():
            continue
        assert not ring.is_quiet, "it was not given back"
        read(ring)
        assert ring.is_quiet


def test_a_full_ring_drops_and_counts(mapped: Traced, opener: Opener) -> None:
    opener.open(5003)
    fits = SIZE // 88
    assert len(list(records(read(mapped.ring)))) == mapped.counters.total(maps.EVENTS)
    assert mapped.counters.total(maps.EVENTS) in (fits, fits - 1)
    assert mapped.counters.total(maps.EVENTS) + mapped.counters.total(maps.LOST_RING_FULL) == 5003
    assert sum(mapped.counters.by_cpu(maps.LOST_RING_FULL).values()) > 0


def test_the_ring_can_advance_in_steps(mapped: Traced, opener: Opener) -> None:
    opener.open(5)
    assert mapped.ring.settle()
    whole = bytes(mapped.ring.batch())
    mapped.ring.advance(8)
    assert bytes(mapped.ring.batch()) == whole[8:]
    mapped.ring.advance(len(whole) - 8)
    assert len(mapped.ring.batch()) == 0
    opener.open(2)
    assert len(list(records(read(mapped.ring)))) == 2


def test_the_copying_reader_holds_no_more_than_it_may(opens: Compiled, opener: Opener, copied: Traced) -> None:
    copied.ring._most = 1000  # type: ignore[union-attr]
    opener.open(101)
    sizes = []
    while batch := read(copied.ring):
        sizes.append(len(batch))
    assert sum(sizes) == 101 * 88
    assert max(sizes) < 1000 + 88


def test_a_map_can_be_filled_and_emptied() -> None:
    verdicts = HashMap("test", 2)
    assert verdicts.add(1 << 40, 3)
    assert verdicts.add(7, 1)
    assert not verdicts.add(8, 1)
    assert verdicts.get((1 << 40).to_bytes(8, "little")) == bytes((3, 0, 0, 0))
    verdicts.remove((7).to_bytes(8, "little"))
    verdicts.set(1 << 40, 4)
    assert verdicts.get((1 << 40).to_bytes(8, "little")) == bytes((4, 0, 0, 0))
    verdicts.remove((1 << 40).to_bytes(8, "little"))
    verdicts.remove((7).to_bytes(8, "little"))
    assert verdicts.add(8, 1)
    verdicts.close()
