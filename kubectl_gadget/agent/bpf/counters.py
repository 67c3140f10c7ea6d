"""The per-CPU counters of BPF programs: the map `gadget_cpus`, which is mapped with mmap and read without system calls.

The layout is struct gadget_cpu in bpf/include/gadget/counters.h. The trap: a CPU's words must be read as aligned u64,
which a memoryview cast to "Q" does.
"""

import mmap

WORDS = 16
"""u64 per CPU: two cache lines."""

IN_FLIGHT, EVENTS, BYTES, LOST_RING_FULL, LOST_MAP_FULL, CUT_STRINGS, LOST_UNEXAMINED = range(7)


class CpuCounters:
    """Reads the map `fd`, which has `cpus` entries."""

    def __init__(self, fd: int, cpus: int) -> None:
        size = -(-cpus * WORDS * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._words = memoryview(self._memory).cast("Q")[: cpus * WORDS]

    def column(self, word: int) -> list[int]:
        """Returns one counter (IN_FLIGHT, …) of every CPU."""
        return self._words[word::WORDS].tolist()

    def busy(self, cpus: list[int] | None = None) -> list[int]:
        """Returns those of `cpus` (None: all) on which a program is between reserving and committing a record."""
        if cpus is None:
            return [cpu for cpu, count in enumerate(self.column(IN_FLIGHT)) if count]
        words = self._words
        return [cpu for cpu in cpus if words[cpu * WORDS]]

    def total(self, word: int) -> int:
        """Returns one counter, summed over all CPUs."""
        return sum(self.column(word))

    def by_cpu(self, word: int) -> dict[str, int]:
        """Returns the count by CPU number (as text, for JSON in the STATS frame); CPUs with 0 are left out."""
        return {str(cpu): count for cpu, count in enumerate(self.column(word)) if count}

    def close(self) -> None:
        self._words.release()
        self._memory.close()
