"""What is there now, from BPF iterators: each is run once, and what it writes are records.

Iterators over sockets see one network namespace, that of whoever makes them, so they are made in each one there is. The
trap: this thread is in another namespace meanwhile; whatever happens, it has to come back.
"""

import ctypes
import os
import time
from collections.abc import Callable, Iterator

from kubectl_gadget.agent.answers.samplers import Sampled
from kubectl_gadget.agent.bpf.object import BpfObject

_OF_NAMESPACES = frozenset({"iter/tcp", "iter/udp", "iter/unix", "iter/netlink"})
_NEWNET = 0x40000000
_OWN = "/proc/self/ns/net"


class Iterators:
    """Of one object, whose iterators are attached: they are run in the order in which the object has them. What
    `sampled` gives comes last."""

    def __init__(self, object: BpfObject, sampled: Sampled | None, warn: Callable[[str], None]) -> None:
        self._object = object
        self._sampled = sampled
        self._warn = warn
        self._warned = False

    def take(self) -> Iterator[bytes]:
        """All that there is now, in pieces of records."""
        for program in self._object.chosen:
            section = self._object.section(program)
            if section in _OF_NAMESPACES:
                for namespace in self._namespaces():
                    yield from self._iterate_in(namespace, program)
            elif section.startswith("iter"):
                yield from self._object.pieces(program)
        if self._sampled:
            # The record's time, as programs set it.
            yield from self._sampled.records(time.clock_gettime_ns(time.CLOCK_BOOTTIME).to_bytes(8, "little"))
            self._sampled.pass_warnings(self._warn)

    def close(self) -> None:
        """Frees what the sampler holds."""
        if self._sampled:
            self._sampled.close()

    def _iterate_in(self, namespace: str, program: str) -> Iterator[bytes]:
        """In the network namespace of that file; nothing when its last process has ended."""
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
            self._say_what_is_missing()
            return
        finally:
            os.close(own)
        yield from self._object.read_iterator(fd)

    def _namespaces(self) -> Iterator[str]:
        """A file for each network namespace that a process lives in; this process's own is the first."""
        seen = {os.stat(_OWN).st_ino}
        yield _OWN
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            path = f"/proc/{pid}/ns/net"
            try:
                number = os.stat(path).st_ino
            except OSError:
                continue  # it has ended
            if number not in seen:
                seen.add(number)
                yield path

    def _say_what_is_missing(self) -> None:
        warning = (
            "connections that no process has any more are missing where they are in a pod's own network: entering it "
            "needs CAP_SYS_ADMIN (try: --privileged)"
        )
        if not self._warned:
            self._warned = True
            self._warn(warning)


def _enter(namespace: int) -> None:
    """setns(2). Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, _NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
