"""The maps through which one object's programs deliver and count events (bpf/include/gadget/output.h)."""

from kubectl_gadget.agent.bpf import maps
from kubectl_gadget.agent.bpf.maps import BpfMap, CpuCounters
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.containers.ring_fairness import ContainerLosses, ContainerNumbers
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import GadgetStats

_MOST_RING_BYTES = 32 << 20
"""A whole ring has to fit into one EVENTS frame."""


class EventsOutput:
    """The ring and the counters of one object. `numbers`: to name the containers whose events were lost."""

    def __init__(self, events: BpfMap, cpus: BpfMap, fairness: BpfMap | None, numbers: ContainerNumbers) -> None:
        self.fd = events.fd
        """The ring's file descriptor."""
        self.counters = CpuCounters(cpus.fd, cpus.entries)
        self.ring = open_ring(events.fd, events.entries, self.counters)
        self._losses = ContainerLosses(fairness)
        self._numbers = numbers

    def stats(self, recursion: int = 0) -> GadgetStats:
        """Returns the entry in STATS. `recursion` counts programs skipped because one already ran on that CPU."""
        cpus = self.counters
        lost = {
            "ring_full": cpus.by_cpu(maps.LOST_RING_FULL),
            "map_full": cpus.by_cpu(maps.LOST_MAP_FULL),
            "unexamined": cpus.by_cpu(maps.LOST_UNEXAMINED),
        }
        if recursion:
            lost["recursion"] = {"all": recursion}
        return GadgetStats(
            events=cpus.total(maps.EVENTS),
            bytes=cpus.total(maps.BYTES),
            lost={cause: by_cpu for cause, by_cpu in lost.items() if by_cpu},
            cut_strings=cpus.total(maps.CUT_STRINGS),
            lost_by=self._losses.by_container(self._numbers) if lost["ring_full"] or lost["map_full"] else (),
        )

    def close(self) -> None:
        self.ring.close()
        self.counters.close()
        self._losses.close()


def ring_bytes(wanted: int) -> int:
    """Returns the ring's size for `wanted` bytes: the next power of two, at least a page. Raises AgentError."""
    if not 0 < wanted <= _MOST_RING_BYTES:
        raise AgentError(f"cannot create a ring buffer of {wanted} bytes", f"1 to {_MOST_RING_BYTES} bytes")
    return int(max(4096, 1 << (wanted - 1).bit_length()))
