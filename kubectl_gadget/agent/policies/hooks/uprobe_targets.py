"""Probes of policies in programs: a function, an offset, or a static probe (USDT) of a file given by its path.

The path is looked up in the file system of each container, and of the node, whether or not a process runs the file yet,
so that later processes are probed from their first instruction. If another function may run in place of the probed one
(`instead`), the program gets its distance in each file before the probe is set. The trap: containers of one image share
a file below their file systems; symbols/real_files.py finds it, and the probe is attached there.
"""

import os
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.agent import elf
from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.host.foreign_files import Rechecks, RootId, open_inside, through_one_of
from kubectl_gadget.agent.symbols import uprobe_links
from kubectl_gadget.agent.symbols.elf_functions import address_offset, function_offsets, offset_address
from kubectl_gadget.agent.symbols.real_files import RealFiles
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.policy_messages import ProbePlace, Spot

_PATIENCE = 2.0
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
        """whether any root has had the file"""
        self._report_at: float | None = time.monotonic() + _PATIENCE
        """when to warn that no root has the file"""

    def prepare(self) -> None:
        """Call it before the object is loaded."""
        if self._instead:
            self._moves.resize(_MOST_MOVES)
        for program in self._programs:
            uprobe_links.prepare(self._object, program)

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
                attached.links += uprobe_links.attach(
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
