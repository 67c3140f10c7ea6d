"""Files that policies name by path: those that filters compare with, and those whose functions are probed.

They are looked up in every container's own root, and in the node's, whether or not a process uses them yet.
"""

import ctypes
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.agent import elf
from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.bpf.object import BpfObject, own_program
from kubectl_gadget.agent.host.foreign_files import Rechecks, RootId, identity_inside, open_inside, through_one_of
from kubectl_gadget.agent.symbols import uprobes
from kubectl_gadget.agent.symbols.elf_functions import address_offset, function_offsets, offset_address
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.policy_messages import ProbePlace, SameFile, Spot

# The real file behind a path: on overlayfs, containers of one image share the file that uprobes attach to.
#
# bpf/mapped_file.bpf.c reports it for a file that is mapped here. There, stat() returns different numbers in each
# container, so a probe set in each of their files would fire several times for one call.

_ENTRY = struct.Struct("<QQQ")
_KEY = bytes(4)


class RealFiles:
    """Can be created on any kernel; if the real file cannot be found, the result of stat() is used."""

    def __init__(self) -> None:
        self._object = own_program("mapped_file", "find_file")

    def identity(self, file: int) -> tuple[int, int]:
        """Returns device and inode of an open file. Raises OSError."""
        status = os.fstat(file)
        seen = status.st_dev, status.st_ino
        if self._object is None or not status.st_size:
            return seen
        with mmap.mmap(file, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
            first = ctypes.c_char.from_buffer(memory)
            found = self._look(ctypes.addressof(first))
            del first
        return found or seen

    def _look(self, address: int) -> tuple[int, int] | None:
        assert self._object is not None
        map = self._object.required_map("mapped_file")
        map.put(_KEY, _ENTRY.pack(address, 0, 0))
        try:
            if self._object.run("find_file"):
                return None
        except Failure:
            return None
        _, inode, device = _ENTRY.unpack(map.get(_KEY) or bytes(_ENTRY.size))
        return (device, inode) if inode else None

    def close(self) -> None:
        if self._object:
            self._object.close()
            self._object = None


# Files that policies give by path, and the kernel compares by device and inode, in every container's own root.
#
# They are looked up when a container is first seen, and again later, since a file may be created in between. A file
# that was found stays a match until its container has ended. The trap: stat() may report another device than the
# kernel's (overlayfs, btrfs), so mountinfo and fdinfo are read instead.

Identity = tuple[int, int]
"""Device and inode, as the kernel stores them."""


class SameFiles:
    """The files of one hook. `entries` are its `files` (docs/protocol.md, "Policies"), `map` is its policy_files."""

    def __init__(self, map: BpfMap, entries: Iterable[SameFile], warn: Callable[[str], None]) -> None:
        self._map = map
        self._warn = warn
        self._entries = [(entry.test, entry.path, int.from_bytes(entry.selectors, "little")) for entry in entries]
        self._found: dict[RootId, dict[str, set[Identity]]] = {}
        self._rechecks = Rechecks[RootId]()
        self._written: dict[tuple[int, Identity], int] = {}

    def turn(self, roots: Mapping[RootId, Sequence[int]]) -> None:
        """Searches roots that are new, or were not searched for a while. `roots`: the processes of each."""
        for gone in self._found.keys() - roots.keys():
            del self._found[gone]
        for root in self._rechecks.due(roots.keys()):
            known = self._found.setdefault(root, {})
            for path in {path for _, path, _ in self._entries}:
                if (identity := identity_of(roots[root], path)) is not None:
                    known.setdefault(path, set()).add(identity)
        self._write()

    def _write(self) -> None:
        wanted: dict[tuple[int, Identity], int] = {}
        for test, path, selectors in self._entries:
            for known in self._found.values():
                for identity in known.get(path, ()):
                    wanted[test, identity] = wanted.get((test, identity), 0) | selectors
        for key in self._written.keys() - wanted.keys():
            self._map.remove(_key(*key))
            del self._written[key]
        try:
            for key, selectors in wanted.items():
                if self._written.get(key) != selectors:
                    self._map.put(_key(*key), selectors.to_bytes(self._map.value_size, "little"))
                    self._written[key] = selectors
        except Failure as failure:  # such as a full map; the next turn tries again
            self._warn(f"files of policies are not compared in some containers: {failure}")


def identity_of(pids: Sequence[int], path: str) -> Identity | None:
    """Returns the identity of the file that these processes have at a path. None if there is no file, if all of the
    processes have ended, or if the file may be served by FUSE (host/foreign_files.py)."""
    try:
        return through_one_of(pids, lambda pid: identity_inside(pid, path))
    except OSError:
        return None


def _key(test: int, identity: Identity) -> bytes:
    """Returns a `struct policy_number_key`."""
    return struct.pack("<IIQ", test, *identity)


# Probes of policies in programs: a function, an offset, or a static probe (USDT) of a file given by its path.
#
# The path is looked up in the file system of each container, and of the node, whether or not a process runs the file
# yet, so that later processes are probed from their first instruction. If another function may run in place of the
# probed one (`instead`), the program gets its distance in each file before the probe is set. Containers of one image
# share a file below their file systems; RealFiles finds it, and the probe is attached there.

PATIENCE = 2.0
"""Seconds until a missing file is reported."""
_MOST_WARNINGS = 16
"""Different warnings of one hook, since containers can cause any number."""
_MOVES = "policy_moves"
_MOST_MOVES = 16384

FileId = tuple[int, int]


@dataclass
class _File:
    links: list[int] = field(default_factory=list)
    moves: list[bytes] = field(default_factory=list)
    """keys in the kernel's table of functions that run in place of this one"""
    roots: set[RootId] = field(default_factory=set)


class UprobeTargets:
    """The probe programs of `object`, for one hook. `place` is from RUN's way: docs/protocol.md, "Policies"."""

    def __init__(
        self,
        object: BpfObject,
        programs: list[str],
        place: ProbePlace,
        real_files: RealFiles,
        warn: Callable[[str], None],
    ) -> None:
        self.path = place.path
        self._pass_on = warn
        self._warned: set[str] = set()
        self._lib = libbpf.load()
        self._object = object
        # Return probes first, or an entry whose return is missed would stay in the map.
        self._programs = sorted(programs, key=lambda program: object.section(program) != "uretprobe")
        self._place = place
        self._instead = place.instead
        self._numbers = 0
        """number of files so far"""
        self._real_files = real_files
        self._rechecks = Rechecks[RootId]()
        self._roots: dict[RootId, FileId] = {}
        """the file in each root that has it"""
        self._files: dict[FileId, _File] = {}
        self._seen = False
        """True if any root has had the file"""
        self._report_at: float | None = time.monotonic() + PATIENCE
        """when to warn that no root has the file"""

    def prepare(self) -> None:
        """Call it before the object is loaded."""
        if self._instead:
            self._moves.resize(_MOST_MOVES)
        for program in self._programs:
            uprobes.prepare_uprobes(self._object, program)

    def turn(self, roots: Mapping[RootId, Sequence[int]]) -> None:
        """Attaches to files that have appeared, and detaches when the last root with a file is gone. `roots`: the
        processes of each."""
        now = time.monotonic()
        for gone in self._roots.keys() - roots.keys():
            self._leave(gone)
        for root in self._rechecks.due(roots.keys()):
            self._check(root, roots[root])
        if self._report_at is not None and (self._seen or now >= self._report_at):
            if not self._seen:
                self._warn(f"no selected container has the file {self.path} yet, so it is not traced")
            self._report_at = None

    def close(self) -> None:
        for root in list(self._roots):
            self._leave(root)

    def _warn(self, text: str) -> None:
        if len(self._warned) < _MOST_WARNINGS:
            self._warned.add(text)
            self._pass_on(text)

    def _check(self, root: RootId, pids: Sequence[int]) -> None:
        """Attaches to the file that the root has now, and leaves the one that it had before."""
        try:
            file = through_one_of(pids, lambda pid: open_inside(pid, self.path))
        except OSError:
            self._leave(root)
            return
        if file is None:  # the processes have ended; the next search finds others, or drops the root
            return
        self._seen = True
        try:
            found = self._real_files.identity(file)
            if found == self._roots.get(root):
                return
            self._leave(root)
            if found not in self._files:
                self._files[found] = self._attach(f"/proc/self/fd/{file}", file)
            self._files[found].roots.add(root)
            self._roots[root] = found
        except OSError as error:
            self._warn(f"{self.path} cannot be read: {error}")
        except Failure as failure:
            self._warn(f"{self._name} cannot be traced: {failure}")
        except AgentError as error:
            self._warn(str(error))
        finally:
            os.close(file)

    def _leave(self, root: RootId) -> None:
        left = self._roots.pop(root, None)
        if left is None:
            return
        file = self._files[left]
        file.roots.discard(root)
        if not file.roots:
            del self._files[left]
            self._detach(file)

    def _detach(self, file: _File) -> None:
        for link in file.links:
            self._lib.raw("bpf_link__destroy", link)
        for key in file.moves:
            self._moves.remove(key)

    @property
    def _moves(self) -> BpfMap:
        return self._object.required_map(_MOVES)

    @property
    def _name(self) -> str:
        place = self._place
        names = [name for name in (place.symbol, place.provider, place.name) if name]
        names += [f"{number:#x}" for number in (place.offset, place.address) if number is not None]
        return ":".join([self.path, *names])

    def _attach(self, path: str, file: int) -> _File:
        """Attaches to a file. Without links if it is not the one that the policy means. Raises Failure, OSError and
        AgentError."""
        attached = _File()
        digests = list(self._place.digests)
        if digests and not elf.matches(file, digests):
            if not self._place.ignore_digests:
                self._warn(f"{self.path} matches none of the policy's binaryDigests, so no probe is set in it")
            return attached
        if self._place.provider and self._place.name:
            (program,) = self._programs
            names = (self._place.provider.encode(), self._place.name.encode())
            pointer = self._object.pointer(program)
            attached.links.append(self._lib.call("bpf_program__attach_usdt", pointer, -1, path.encode(), *names, None))
            return attached
        offset = self._offset(path, self._place)
        self._numbers += 1
        cookies = (self._numbers,) if self._instead else ()
        try:
            for number, move in enumerate(self._distances(path, offset)):
                key = struct.pack("<II", self._numbers, number)
                self._moves.put(key, struct.pack("<q", move))
                attached.moves.append(key)
            for program in self._programs:
                attached.links += uprobes.attach_uprobes(
                    self._object, program, path, [offset], cookies, self._place.counter or 0
                )
        except (Failure, AgentError, OSError):
            self._detach(attached)
            raise
        return attached

    def _offset(self, path: str, place: Spot) -> int:
        """Returns the offset in the file of the function that `place` specifies."""
        if place.symbol is not None:
            found = function_offsets(path, [place.symbol]).get(place.symbol)
        elif place.address is not None:
            found = address_offset(path, place.address)
        else:
            found = place.offset
        if found is None:
            raise AgentError(f"{self._name}: the file has no such function{_named(place)}, so no probe is set in it")
        return found

    def _distances(self, path: str, offset: int) -> list[int]:
        """Returns the distances from the probe to each function that may run in its place, in bytes of memory."""
        if not self._instead:
            return []
        start = offset_address(path, offset)
        found = []
        for place in self._instead:
            address = offset_address(path, self._offset(path, place))
            if start is None or address is None:
                raise AgentError(f"{self._name}: the file has no code there{_named(place)}, so no probe is set in it")
            found.append(address - start)
        return found


def _named(place: Spot) -> str:
    """Returns the function for messages, if it is not the probe's own."""
    if isinstance(place, ProbePlace):
        return ""
    return "".join(f" ({name} {value})" for name, value in vars(place).items())
