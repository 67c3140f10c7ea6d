"""Numbers of containers, and which of them lose events while a ring is full. BPF programs use a container's number as
the index of its counters (bpf/include/gadget/fairness.h).

A container that has ended is still reported for a while, so numbers are reused as late as possible.
"""

import mmap
from collections import Counter, deque
from typing import Any

from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.wire.agent_messages import Loser

MOST = 2048
"""GADGET_SHARES."""
_UNKNOWN, _HOST = 0, 1
_WORDS, _LOST = 4, 2
"""Number of u64 in struct gadget_share, and the index of the one that counts lost events."""
_MOST_NAMED = 20
"""The number of containers with most losses that are reported."""
_MOST_LOSERS = 2 * MOST
"""Containers that are kept. Above that, the half with fewer losses is dropped."""

Named = tuple[tuple[str, Any], ...]
"""A container's names, as STATS reports them."""


class ContainerNumbers:
    """Numbers of containers, by the container's own cgroup; 0 is the host."""

    def __init__(self) -> None:
        self._numbers = {0: _HOST}
        self._losers: list[Named] = [() for _ in range(MOST)]
        self._losers[_HOST] = (("host", True),)
        self._free = deque(range(_HOST + 1, MOST))

    def of(self, owner: int, container: ContainerIdentity | None) -> int:
        """Returns the container's number, assigned at first use; _UNKNOWN when all are taken."""
        if owner not in self._numbers:
            if not self._free:
                return _UNKNOWN
            self._numbers[owner] = self._free.popleft()
        number = self._numbers[owner]
        if container:
            names = {"namespace": container.namespace, "pod": container.pod, "container": container.container}
            self._losers[number] = tuple((key, name) for key, name in names.items() if name)
        return number

    def give_back(self, owner: int) -> None:
        """Frees the number of a container that has ended."""
        if (number := self._numbers.pop(owner, None)) is not None:
            self._free.append(number)

    def loser(self, number: int) -> Named:
        """Returns the container that has, or last had, this number."""
        return self._losers[number]


class ContainerLosses:
    """The losses of one gadget's containers, from its map `gadget_shares`; without the map it reports nothing."""

    def __init__(self, map: BpfMap | None) -> None:
        self._counts = [0] * MOST
        self._lost: Counter[Named] = Counter()
        self._memory: mmap.mmap | None = None
        if map is not None:
            self._memory = mmap.mmap(map.fd, MOST * _WORDS * 8, mmap.MAP_SHARED, mmap.PROT_READ)
            self._words = memoryview(self._memory).cast("Q")

    def by_container(self, numbers: ContainerNumbers) -> tuple[Loser, ...]:
        """Returns `lost_by` of STATS: counts since the start, largest first. Losses of unknown containers are left
        out."""
        if self._memory is None:
            return ()
        counts = self._words[_LOST::_WORDS].tolist()
        if counts != self._counts:
            for number, (now, before) in enumerate(zip(counts, self._counts, strict=True)):
                if now > before:
                    self._lost[numbers.loser(number)] += now - before
            self._counts = counts
            if len(self._lost) > _MOST_LOSERS:
                self._lost = Counter(dict(self._lost.most_common(MOST)))
        named = [(loser, lost) for loser, lost in self._lost.most_common() if loser][:_MOST_NAMED]
        return tuple(Loser(**dict(loser), lost=lost) for loser, lost in named)

    def close(self) -> None:
        if self._memory is not None:
            self._words.release()
            self._memory.close()
            self._memory = None
