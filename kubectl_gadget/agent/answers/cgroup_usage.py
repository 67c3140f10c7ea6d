"""Resource usage of containers, from the files of their cgroups (version 2): cpu.stat, memory.current, io.stat, …

The trap: a file exists only where its controller is enabled, or the kernel has PSI; without it the value is unknown,
and not 0. Counts start when the cgroup is made, so cgroups that existed at the start are counted from the first
reading.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.agent.answers.samplers import UNKNOWN, Row, Sampler
from kubectl_gadget.agent.containers.tracking import Containers


class ContainerUsage(NamedTuple):
    """None: unknown. Times in ns, sizes in bytes; all but `memory` and `processes` since the cgroup was made."""

    cpu_time: int | None
    throttled: int | None
    cpu_stalled: int | None
    memory_stalled: int | None
    io_stalled: int | None
    major_faults: int | None
    read_bytes: int | None
    written_bytes: int | None
    memory: int | None
    processes: int | None


_CONTROLLERS = {
    "cpu": "throttling by CPU limits",
    "memory": "memory and major faults",
    "io": "disk bytes",
    "pids": "the number of processes",
}
"""What is unknown without each of them."""
_NOTHING = ContainerUsage(0, 0, 0, 0, 0, 0, 0, 0, None, None)


def read_usage(cgroup: str) -> ContainerUsage | None:
    """Reads the cgroup in this folder; None when it is gone."""
    if not os.path.isdir(cgroup):
        return None
    cpu = _pairs(_read(f"{cgroup}/cpu.stat"))
    memory = _pairs(_read(f"{cgroup}/memory.stat"))
    disks = _read(f"{cgroup}/io.stat")
    return ContainerUsage(
        cpu_time=_nanoseconds(cpu.get("usage_usec")),
        throttled=_nanoseconds(cpu.get("throttled_usec")),
        cpu_stalled=_stalled(_read(f"{cgroup}/cpu.pressure")),
        memory_stalled=_stalled(_read(f"{cgroup}/memory.pressure")),
        io_stalled=_stalled(_read(f"{cgroup}/io.pressure")),
        major_faults=memory.get("pgmajfault"),
        read_bytes=_over_disks(disks, "rbytes"),
        written_bytes=_over_disks(disks, "wbytes"),
        memory=_number(_read(f"{cgroup}/memory.current")),
        processes=_number(_read(f"{cgroup}/pids.current")),
    )


def missing(root: str) -> Iterator[str]:
    """Yields messages about what this node's cgroups, whose tree is mounted at `root`, do not count."""
    enabled = (_read(f"{root}/cgroup.controllers") or "").split()
    if absent := [name for name in _CONTROLLERS if name not in enabled]:
        what = ", ".join(_CONTROLLERS[name] for name in absent)
        yield (
            f"not known on this node: {what}; its cgroup v2 hierarchy lacks the controllers {', '.join(absent)} "
            "(try: boot it with systemd.unified_cgroup_hierarchy=1)"
        )
    if _read(f"{root}/cpu.pressure") is None and _read("/proc/pressure/cpu") is None:
        what = "how long containers wait for CPU, memory and disks"
        yield f"not known on this node: {what}; its kernel has no PSI (try: boot it with psi=1)"


class CgroupUsage(Sampler):
    """The sampler `cgroups`."""

    def __init__(self, containers: Containers) -> None:
        super().__init__(containers)
        self.warnings += missing(self._root)
        everything = containers.everything()
        self._old = {id for id, _ in everything}
        self._last = {id: self._usage(path) or _NOTHING for id, path in containers.wanted_containers()}

    def rows(self) -> Iterator[Row]:
        """Yields a row for each wanted container, with the usage since the last call."""
        last, self._last = self._last, {}
        for id, path in self._containers.wanted_containers():
            now = self._usage(path)
            if now is None:
                continue
            self._last[id] = now
            # A cgroup that existed at the start and is wanted only since now is counted from this reading.
            before = last.get(id, now if id in self._old else _NOTHING)
            row = {"cgroup": id, "memory": _known(now.memory), "processes": _known(now.processes)}
            for name, new, old in zip(ContainerUsage._fields[:-2], now, before, strict=False):
                row[name] = UNKNOWN if new is None else max(0, new - (old or 0))
            yield row

    def _usage(self, path: str) -> ContainerUsage | None:
        return read_usage(f"{self._root}/{path}")


def _read(path: str) -> str | None:
    """Returns None when there is no such file, or the kernel refuses reads: PSI may be turned off for a cgroup."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def _nanoseconds(microseconds: int | None) -> int | None:
    return None if microseconds is None else 1000 * microseconds


def _pairs(text: str | None) -> dict[str, int]:
    """Parses a flat keyed file: `name number` in each line."""
    pairs = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _stalled(text: str | None) -> int | None:
    """Returns the nanoseconds that some task waited, from `some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROS`."""
    for line in (text or "").splitlines():
        kind, *fields = line.split()
        if kind == "some":
            return _nanoseconds(_number(dict(field.split("=") for field in fields).get("total")))
    return None


def _over_disks(text: str | None, name: str) -> int | None:
    """Returns the sum over devices, from lines like `8:0 rbytes=4096 wbytes=0 …`. A device without a line was not used
    by the cgroup."""
    if text is None:
        return None
    words = (word.partition("=") for line in text.splitlines() for word in line.split()[1:])
    return sum(int(value) for key, _, value in words if key == name and value.isdecimal())


def _known(number: int | None) -> int:
    return UNKNOWN if number is None else number
