"""Maps that the sources of a session share: some exist from the start, others are made when a source first needs them.

A set of descendants has to be filled before the programs that read it are attached, so it is made before the source's
object is loaded.
"""

import ctypes
import os
import select
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import OpenMap
from kubectl_gadget.agent.bpf.object import BpfObject, own_object
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.kernel import refusal
from kubectl_gadget.errors import AgentError

# A process and its descendants, for --pid with --descendants. Runs bpf/descendants.bpf.c.
#
# The trap: children that are forked while the set is filled are added by the program at fork, which is therefore
# attached first, and also before any gadget's own programs at fork, which look up the child.

DESCENDANTS = "gadget_descendants"
OF_DESCENDANTS = "gadget_filter_descendants"
PID = "gadget_filter_pid"
PROCESSES = 32768
_MOST_PASSES = 1000
"""Passes over all tasks. Each adds at least one generation; a pass that adds nothing is the last."""
_ZERO = bytes(4)


class Descendants:
    """The set of the process with this PID on the node and its descendants. Raises AgentError."""

    def __init__(self, pid: int, pid_level: int) -> None:
        def prepare(object: BpfObject) -> None:
            object.set_constant(PID, pid)
            object.set_constant("gadget_node_pid_level", pid_level)
            object.required_map(DESCENDANTS).resize(PROCESSES)

        with ExitStack() as undo:
            try:
                self._object = own_object("descendants", prepare=prepare, attached=("forks", "is_freed", "finds"))
                undo.callback(self._object.close)
                self._fill()
            except Failure as failure:
                raise refusal.refused("the program that follows descendants", failure) from None
            undo.pop_all()
        self.fd = self._object.required_map(DESCENDANTS).fd

    def _fill(self) -> None:
        for _ in range(_MOST_PASSES):
            if not self._object.iterate("finds"):
                return
        raise AgentError(f"processes start faster than they can be listed, even after {_MOST_PASSES} attempts")

    def warning(self) -> str | None:
        """Returns a warning if there was no room for a process."""
        missing = int.from_bytes(self._object.required_map("not_added").get(_ZERO) or b"", "little")
        if not missing:
            return None
        return f"--descendants: more than {PROCESSES:,} descendants live; further ones are not followed"

    def close(self) -> None:
        self._object.close()


# Finds what other agents of this node refuse by network policies: bpf/include/gadget/network/refused.h.
#
# Each such agent has a map of what it refused. An iterator finds the map's id, /proc shows which process holds it,
# and pidfd_getfd(2), which needs only CAP_SYS_PTRACE, duplicates its descriptor. So nothing is pinned: when either
# agent ends, the kernel closes its maps. A map exists as long as this agent holds it, so this agent watches the other
# process and releases the map at its end.

REFUSALS = "gadget_refusals"
_PROGRAM = "find_refused"
_SECONDS = 0.25
"""Seconds between two checks. An agent's map exists a while before its programs run."""
_TRIES = 4
_PIDFD_GETFD = 438
"""The same on all architectures; Linux 5.6 and later."""


class Refusals:
    """The map of maps. Raises AgentError when this kernel does not support the iterator."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        try:
            self._object = own_object("policy_refusals", attached=[_PROGRAM])
        except Failure as failure:
            raise AgentError(f"this kernel does not report which policies refuse packets: {failure}") from None
        self._map = self._object.required_map(REFUSALS)
        self._holders: dict[int, tuple[int, int]] = {}
        """pidfd and index of each map, by its id"""
        self._tries: Counter[int] = Counter()
        """by map id; a holder that is not found may be about to open or close the map"""
        self._ended = select.poll()
        self._due = 0.0

    @property
    def fd(self) -> int:
        """File descriptor of the map of maps."""
        return self._map.fd

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic()."""
        if now < self._due:
            return
        self._due = now + _SECONDS
        if self._holders:
            self._release_ended()
        existing = {number for piece in self._object.pieces(_PROGRAM) for (number,) in struct.iter_unpack("<I", piece)}
        tried = {number for number, tries in self._tries.items() if tries >= _TRIES}
        if new := existing - self._holders.keys() - tried:
            for number, pid, fd in _holders(new):
                self._add(number, pid, fd)
            self._tries.update(new - self._holders.keys())

    def close(self) -> None:
        for pidfd, _ in self._holders.values():
            os.close(pidfd)
        self._holders.clear()
        self._object.close()

    def _add(self, number: int, pid: int, fd: int) -> None:
        free = set(range(self._map.entries)) - {place for _, place in self._holders.values()}
        if not free:
            self._warn(
                "too many agents have network policies in force: refusals by one of them are shown without policy names"
            )
            return
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            map = OpenMap(_file_of(pidfd, fd))
            try:
                self._map.put(struct.pack("<I", min(free)), struct.pack("<I", map.fd))
            finally:
                map.close()
        except (OSError, Failure) as error:
            if pidfd >= 0:
                os.close(pidfd)
            if not isinstance(error, ProcessLookupError):
                self._warn(f"refusals by agent {pid} are shown without policy names: {error}")
            return
        self._holders[number] = pidfd, min(free)
        self._ended.register(pidfd, select.POLLIN)

    def _release_ended(self) -> None:
        """Releases the maps of agents that have ended."""
        ended = {fd for fd, _ in self._ended.poll(0)}
        for number, (pidfd, place) in list(self._holders.items()):
            if pidfd in ended:
                self._map.remove(struct.pack("<I", place))
                self._ended.unregister(pidfd)
                os.close(pidfd)
                del self._holders[number]
                self._tries[number] = _TRIES  # the kernel will free it in a moment


def _holders(numbers: set[int]) -> Iterator[tuple[int, int, int]]:
    """Yields id, process and file descriptor of each of these maps; the newest processes are checked first."""
    wanted = set(numbers)
    for pid in sorted(procfs.pids() - {os.getpid()}, reverse=True):
        for fd, number in procfs.bpf_objects(pid, b"map_id") if wanted else ():
            if number in wanted:
                wanted.discard(number)
                yield number, pid, fd


def _file_of(pidfd: int, fd: int) -> int:
    """Duplicates a file descriptor of that process into this one. Raises OSError."""
    found: int = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, fd, 0)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


# The maps of a session.

_CHECK_SECONDS = 1.0
"""Between two checks whether a set of descendants was too small."""


class SharedMaps:
    """`of_containers` are the initial maps, by name; `pid_level` is the depth of the agent's PID namespace."""

    def __init__(self, of_containers: Mapping[str, int], pid_level: int, warn: Callable[[str], None]) -> None:
        self.of_containers = of_containers
        self._pid_level = pid_level
        self._warn = warn
        self._refusals: Refusals | None = None
        self._descendants: dict[int, Descendants] = {}
        self._next_check = 0.0

    def descendants(self, pid: int) -> int:
        """Returns a map's descriptor for gadgets limited to this process and its descendants. Raises AgentError."""
        if pid not in self._descendants:
            self._descendants[pid] = Descendants(pid, self._pid_level)
        return self._descendants[pid].fd

    def refusals(self) -> int | None:
        """Returns the descriptor of a map of what other agents' network policies refuse; None, with a warning, when
        this kernel does not support it."""
        if self._refusals is None:
            try:
                self._refusals = Refusals(self._warn)
            except AgentError as error:
                self._warn(str(error))
                return None
            self._refusals.turn(time.monotonic())
        return self._refusals.fd

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic()."""
        if self._refusals:
            self._refusals.turn(now)
        if now >= self._next_check:
            self._next_check = now + _CHECK_SECONDS
            for one in self._descendants.values():
                if warning := one.warning():
                    self._warn(warning)

    def close(self) -> None:
        if self._refusals:
            self._refusals.close()
        for one in self._descendants.values():
            one.close()
