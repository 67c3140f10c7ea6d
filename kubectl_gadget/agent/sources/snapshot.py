"""Kind `snapshot`: the state at one moment, from BPF iterators: each is run, and its output
consists of records.

An iterator over sockets sees only the network namespace in which it was created, so one is created in each. This thread
is in another namespace until then, and must return from it whatever happens.
"""

import ctypes
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.sources.gadget_source import PiecesSource
from kubectl_gadget.agent.sources.output import EventsOutput
from kubectl_gadget.agent.sources.samplers import Sampled

_OF_NAMESPACES = frozenset({"iter/tcp", "iter/udp", "iter/unix", "iter/netlink"})
_NEWNET = 0x40000000
_NOTES = "note_"
"""Prefix of the names of iterators without output, which fill maps for the others."""
_OF_ONE_TURN = ("seen", "residents", "gadget_awaited")
"""Maps that are about one turn. The next one must not find the notes of this one."""
_OWN = "/proc/self/ns/net"
_ORPHANS_ARE_MISSING = (
    "orphaned connections are missing in pods that have a network of their own: entering it needs CAP_SYS_ADMIN "
    "(try: --privileged)"
)


class SnapshotSource(PiecesSource):
    """Takes its pieces in the first turn. With an interval, it takes them again after each one, and at the end."""

    _iterators: "Iterators"
    due = 0.0

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        sampled = Sampled(self._spec, self._context.containers, self._context.warnings.add)
        resources.callback(sampled.close)
        self._iterators = Iterators(object, sampled, self._context.warnings.add)

    def settle(self, is_blocked: bool) -> bool:
        now = time.monotonic()
        if not is_blocked and now >= self.due:
            self.due = now + self._spec.interval_ms / 1000 if self._spec.interval_ms else math.inf
            self._add(self._iterators.take())
        self._take_stacks()
        return True

    def detach(self) -> None:
        if self._spec.interval_ms:
            self._add(self._iterators.take())
        self.due = math.inf
        super().detach()


class Iterators:
    """The attached iterators of one object, which are run in the object's order, those that only take notes for the
    others first. The rows of `sampled` come last."""

    def __init__(self, object: BpfObject, sampled: Sampled, warn: Callable[[str], None]) -> None:
        self._object = object
        self._sampled = sampled
        self._warn = warn

    def take(self) -> Iterator[bytes]:
        """Yields the present state, in pieces of whole records."""
        for notes in filter(None, map(self._object.map, _OF_ONE_TURN)):
            for key in list(notes.keys()):
                notes.remove(key)
        for program in sorted(self._object.chosen, key=lambda program: not program.startswith(_NOTES)):
            section = self._object.section(program)
            if section in _OF_NAMESPACES:
                for namespace in self._namespaces():
                    yield from self._iterate_in(namespace, program)
            elif section.startswith("iter"):
                yield from self._object.pieces(program)
        # The record's time, as programs set it.
        yield from self._sampled.records(time.clock_gettime_ns(time.CLOCK_BOOTTIME).to_bytes(8, "little"))

    def _iterate_in(self, namespace: str, program: str) -> Iterator[bytes]:
        """Runs the program in the network namespace of this file; yields nothing when its last process has ended."""
        own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                other = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return
            try:
                _enter(other)
            finally:
                os.close(other)
            try:
                fd = self._object.open_iterator(program)
            finally:
                _enter(own)
        except PermissionError:
            self._warn(_ORPHANS_ARE_MISSING)
            return
        finally:
            os.close(own)
        yield from self._object.read_iterator(fd)

    def _namespaces(self) -> Iterator[str]:
        """Yields a file for each network namespace that has a process; this process's own comes first."""
        seen = {os.stat(_OWN).st_ino}
        yield _OWN
        for pid in sorted(procfs.pids()):
            path = f"/proc/{pid}/ns/net"
            try:
                number = os.stat(path).st_ino
            except OSError:
                continue  # it has ended
            if number not in seen:
                seen.add(number)
                yield path


def _enter(namespace: int) -> None:
    """setns(2). Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, _NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
