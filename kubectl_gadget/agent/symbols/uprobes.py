"""Uprobe programs on functions of libraries, in each container's own file, including containers that start later.

RUN's `libraries` says which programs attach to which functions of which files (docs/protocol.md). One link per program
and file serves all processes that map the file. The trap: containers of one image share the file below their file
systems, which is not visible here, so a program may run twice for one call, and must tolerate it: it pairs entry and
return in a map.
"""

import ctypes
import errno
import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import Links, wait_for_programs
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.foreign_files import Rechecks, open_inside, status_inside
from kubectl_gadget.agent.symbols.elf_functions import (
    function_offsets,
    is_go,
    is_ifunc,
    matching_functions,
    nearest_functions,
)
from kubectl_gadget.wire.client_messages import Library

# Attaches uprobe programs to offsets in a file: to all together if the kernel can, else one by one. The program's
# attach type has to be set before its object is loaded.

_SECTIONS = ("uprobe", "uretprobe")
_UPROBE_MULTI = 48
"""BPF_TRACE_UPROBE_MULTI."""


class _MultiOptions(ctypes.Structure):
    """The head of struct bpf_uprobe_multi_opts."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("symbols", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("reference_counters", ctypes.c_void_p),
        ("cookies", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("at_return", ctypes.c_bool),
    )


class _Options(ctypes.Structure):
    """The head of struct bpf_uprobe_opts."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("reference_counter", ctypes.c_size_t),
        ("cookie", ctypes.c_uint64),
        ("at_return", ctypes.c_bool),
    )


def has_multi(release: str) -> bool:
    """True if a kernel attaches uprobes without perf_event_open(), which distributions restrict: 6.6 and later."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return bool(found) and (int(found[1]), int(found[2])) >= (6, 6)  # type: ignore[index]


def prepare_uprobes(object: BpfObject, program: str) -> None:
    """Prepares a program of any section, before its object is loaded."""
    if has_multi(os.uname().release) and object.section(program) in _SECTIONS:
        object.set_attach_type(program, _UPROBE_MULTI)


def attach_uprobes(
    object: BpfObject, program: str, path: str, offsets: Sequence[int], cookies: Sequence[int] = (), counter: int = 0
) -> Iterator[int]:
    """Yields each link as soon as it is made, so that the caller has it when the next one fails. `cookies`: one for
    each offset, or none; `counter`: the offset of the counter that turns the probes on, or 0. Raises Failure."""
    lib, program_and_file = libbpf.load(), (object.pointer(program), -1, os.fsencode(path))
    at_return = object.section(program) == "uretprobe"
    if has_multi(os.uname().release):
        count = len(offsets)
        options = _MultiOptions(ctypes.sizeof(_MultiOptions), count=count, at_return=at_return)
        places = (ctypes.c_ulong * count)(*offsets)
        options.offsets = ctypes.addressof(places)
        if counter:
            counters = (ctypes.c_ulong * count)(*[counter] * count)
            options.reference_counters = ctypes.addressof(counters)
        if cookies:
            numbers = (ctypes.c_uint64 * count)(*cookies)
            options.cookies = ctypes.addressof(numbers)
        yield lib.call("bpf_program__attach_uprobe_multi", *program_and_file, None, ctypes.byref(options))
        return
    for number, offset in enumerate(offsets):
        cookie = cookies[number] if cookies else 0
        single = _Options(ctypes.sizeof(_Options), counter, cookie, at_return)
        yield lib.call("bpf_program__attach_uprobe_opts", *program_and_file, offset, ctypes.byref(single))


# Which files the node's processes have mapped as executable, among the files that a gadget's uprobes attach to.
#
# /proc is polled, since no event says when a process maps a library: new processes often, old ones rarely. A path in
# /proc/PID/maps is relative to the process's own root, and another file may take its place at any time.

_MOST_NAMES = 1000
_MAPPING = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ [0-9a-f:]+ ([0-9]+) +(/.*)\n", re.MULTILINE)
_DELETED = b" (deleted)"


class MappedFile(NamedTuple):
    """One file, by its identity; `path` is as the process sees it."""

    device: int
    inode: int
    pid: int
    path: str

    def open(self) -> int:
        """Opens the file for reading. Raises OSError, with ESTALE when another file has taken its place."""
        file = open_inside(self.pid, self.path)
        status = os.fstat(file)
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            os.close(file)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self.path)
        return file


class MappedFiles:
    """`wanted_cgroup` selects processes by the path in /proc/PID/cgroup, `wanted_name` files by name."""

    def __init__(self, wanted_cgroup: Callable[[str], bool], wanted_name: Callable[[str], bool]) -> None:
        self._wanted_cgroup = wanted_cgroup
        self._wanted_name = wanted_name
        self._rechecks = Rechecks[int]()
        self._mapped_by: dict[int, list[MappedFile]] = {}
        self._others: set[str] = set()
        """names of libraries and paths of programs that are not wanted"""

    def nearest_names(self, name: str) -> str:
        """Returns similar names among the files that the selected processes have mapped; "" when there are none."""
        from difflib import get_close_matches

        # A library is compared by its name without version, a program by its path.
        known = {other if "/" in name else other.partition(".so")[0] for other in self._others}
        return " or ".join(get_close_matches(name, known, 2, 0.6))

    def look(self) -> dict[tuple[int, int], MappedFile]:
        """Returns the wanted files that are mapped now, by device and inode."""
        present = procfs.pids()
        for gone in self._mapped_by.keys() - present:
            del self._mapped_by[gone]
        for pid in self._rechecks.due(present):
            self._mapped_by[pid] = list(self._mapped(pid)) if self._wanted_cgroup(procfs.cgroup(pid)) else []
        return {(file.device, file.inode): file for files in self._mapped_by.values() for file in files}

    def _mapped(self, pid: int) -> Iterator[MappedFile]:
        text = procfs.read(f"/proc/{pid}/maps")
        program = procfs.link(f"/proc/{pid}/exe")
        for inode, raw in set(_MAPPING.findall(text)):
            if raw.endswith(_DELETED):
                continue
            path = os.fsdecode(raw)
            name = path.rpartition("/")[2]
            if not self._wanted_name(name):
                if len(self._others) < _MOST_NAMES:
                    self._others.add(path if path == program else name)
                if path != program:
                    continue
            try:
                status = status_inside(pid, path)
            except OSError:
                continue
            if status.st_ino == int(inode):
                yield MappedFile(status.st_dev, status.st_ino, pid, path)


# Functions that a user specified as FILE:SYMBOL: their offsets in a file, and their numbers in programs.
#
# The numbers are cookies of uprobes; the names are in the object's map `gadget_functions`. The trap: a return probe
# crashes a Go program, because Go moves its stacks, so such files are refused.

Libraries = Sequence[tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]]

_OFFSET = re.compile("0x[0-9a-fA-F]{1,15}")


class RequestedFunctions:
    """The functions for the uprobe programs of one object, which need not be loaded yet."""

    def __init__(self, object: BpfObject, warn: Callable[[str], None]) -> None:
        self._object = object
        self._warn = warn
        self._numbers: dict[str, int] = {}
        self._at: dict[int, int] = {}
        """the functions' numbers, by offset in the file of the last places()"""
        self._seen: set[str] = set()

    @staticmethod
    def may_be(file: str, name: str) -> bool:
        """True if a file of this name may be the requested one, given as a path or as a library's name."""
        wanted = file.rpartition("/")[2]
        return name == wanted or ("/" not in file and name.startswith((f"{wanted}.", f"{wanted}-")))

    def places(self, path: str, seen: str, libraries: Libraries) -> dict[str, list[int]]:
        """Returns offsets in the file at `path` by program, return probes first. `seen` is its path as processes see
        it. Raises OSError."""
        self._at.clear()
        found: dict[str, list[int]] = {}
        for files, functions in libraries:
            for file in files:
                if not (seen == file if "/" in file else self.may_be(file, seen.rpartition("/")[2])):
                    continue
                self._seen.add(file)
                if is_go(path):
                    self._warn(f"{seen} is a Go program, which return probes would crash, so it is skipped")
                    return {}
                for symbol, programs in functions.items():
                    self._add(path, seen, file, symbol, programs, found)
        return found

    def cookies(self, offsets: list[int]) -> list[int]:
        """Returns the numbers of the functions that the last places() found at these offsets."""
        return [self._at[offset] for offset in offsets]

    def unseen(self, files: Collection[str]) -> list[str]:
        """Returns the files that no process has mapped yet."""
        return [file for file in files if file not in self._seen]

    def _add(
        self, path: str, seen: str, file: str, symbol: str, programs: tuple[str, ...], found: dict[str, list[int]]
    ) -> None:
        if _OFFSET.fullmatch(symbol):
            offset = int(symbol, 16)
            at = {symbol: offset} if offset < os.stat(path).st_size else {}
        else:
            at = matching_functions(path, symbol)
        if not at:
            near = "" if _OFFSET.fullmatch(symbol) else nearest_functions(path, symbol)
            self._warn(f"{seen} has no function {symbol}{near and f'; {near}?'}")
        if is_ifunc(path, symbol):
            self._warn(f"{seen} chooses one of several {symbol} for the processor (IFUNC); its calls cannot be traced")
        taken = {offset for offsets in found.values() for offset in offsets}
        # Two names for one address are one function, which gets the shorter name.
        for name, offset in sorted(at.items(), key=lambda item: (len(item[0]), item[0])):
            number = self._number(f"{file.rpartition('/')[2]}:{name}") if offset not in taken else None
            if number is None:
                continue
            taken.add(offset)
            self._at[offset] = number
            for program in programs:
                found.setdefault(program, []).append(offset)

    def _number(self, name: str) -> int | None:
        if name in self._numbers:
            return self._numbers[name]
        names = self._object.required_map("gadget_functions")
        if len(self._numbers) >= names.entries:
            self._warn(f"more than {names.entries} functions match; the rest are skipped")
            return None
        # Of a long name, the end is kept, since it differs.
        names.set_text(len(self._numbers), name if len(name) < names.value_size else name[1 - names.value_size :])
        return self._numbers.setdefault(name, len(self._numbers))


# The probes of a gadget.

SCAN_SECONDS = 0.1
"""Between two scans of the processes."""
PATIENCE = 2.0
"""Seconds after which a warning reports that nothing was found."""
_MOST_FILES = 512
TURN_SECONDS = 0.5
"""After which a turn leaves further files, which a container may have made to take long, to the next one, so that rings
are read between them."""


class Uprobes:
    """The uprobe programs of `object`. `libraries` is RUN's; a program is listed there for each function."""

    def __init__(
        self,
        object: BpfObject,
        libraries: Sequence[Library],
        wanted_cgroup: Callable[[str], bool],
        warn: Callable[[str], None],
        named: bool = False,
    ) -> None:
        self._warn = warn
        self._functions = RequestedFunctions(object, warn) if named else None
        self._object = object
        self._libraries = [(item.files, item.functions) for item in libraries]
        self._files = MappedFiles(wanted_cgroup, self._is_wanted)
        self._links: dict[tuple[int, int], list[int]] = {}
        self._released = Links()
        self._next = 0.0
        self._report_at: float | None = time.monotonic() + PATIENCE
        """when to warn about what was not found"""

    def prepare(self) -> None:
        """Call it before the object is loaded."""
        for program in self._object.chosen:
            prepare_uprobes(self._object, program)

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic(): attaches to newly mapped files, and detaches from those that no process
        maps any more. After the first turn, files that take long to read are spread over several turns."""
        if now < self._next:
            return
        until = now + TURN_SECONDS if self._next else math.inf
        self._next = now + SCAN_SECONDS
        files = self._files.look()
        for key in self._links.keys() - files.keys():
            self._released.release(self._links.pop(key))
        self._released.free()
        for key, file in files.items():
            if key not in self._links:
                self._attach(key, file)
                if time.monotonic() > until:
                    return
        if self._report_at is not None and now >= self._report_at:
            self._report_missing()

    def close(self) -> None:
        """Stops the programs."""
        if self._report_at is not None:
            self._report_missing()
        links = [link for of_file in self._links.values() for link in of_file]
        self._links.clear()
        if self._released.release(links):
            wait_for_programs()
        self._next = float("inf")

    def free(self) -> None:
        """Frees the links that close() detached. This may take long."""
        self._released.free()

    def _report_missing(self) -> None:
        """Warns one time: after a while, or at the end of a shorter run."""
        self._report_at = None
        names = sorted({name for files, _ in self._libraries for name in files})
        if self._functions:  # it reports itself what is missing in a file
            for name in self._functions.unseen(names):
                near = self._files.nearest_names(name)
                what = f"no process of the selected containers uses {name} yet, so it is not traced"
                self._warn(f"{what}; {near}?" if near else what)
        elif not self._links:
            wanted = ", ".join(names)
            self._warn(f"no process of the selected containers uses {wanted} yet, so nothing is traced")
        elif not self.attached:
            wanted = ", ".join(names)
            self._warn(f"{wanted}: it has none of the traced functions, so nothing is traced")

    @property
    def attached(self) -> int:
        """Number of links now."""
        return sum(map(len, self._links.values()))

    def _is_wanted(self, name: str) -> bool:
        if self._functions:
            return any(self._functions.may_be(file, name) for files, _ in self._libraries for file in files)
        return any(name.startswith(files) for files, _ in self._libraries)

    def _attach(self, key: tuple[int, int], file: MappedFile) -> None:
        if sum(map(bool, self._links.values())) >= _MOST_FILES:
            self._warn(f"more than {_MOST_FILES} libraries are in use; the rest are skipped")
            return
        links = self._links[key] = list[int]()
        opened = -1
        try:
            opened = file.open()
            path = f"/proc/self/fd/{opened}"  # its own path may lead to another file at each use
            for program, offsets in self._places(path, file.path).items():
                cookies = self._functions.cookies(offsets) if self._functions else ()
                for link in attach_uprobes(self._object, program, path, offsets, cookies):
                    links.append(link)
        except OSError:
            self._released.release(self._links.pop(key))  # its process is gone; retried through another one
        except Failure as failure:
            self._released.release(links)  # an incomplete set of probes would give wrong results
            self._links[key] = []
            self._warn(f"{file.path} cannot be traced: {failure}")
        finally:
            if opened >= 0:
                os.close(opened)

    def _places(self, path: str, seen: str) -> dict[str, list[int]]:
        """Returns offsets by program. `seen` is the path as processes see it."""
        if self._functions:
            return self._functions.places(path, seen, self._libraries)
        names = {name for _, functions in self._libraries for name in functions}
        places: dict[str, list[int]] = {}
        for name, offset in function_offsets(path, names).items():
            for _, functions in self._libraries:
                for program in functions.get(name, ()):
                    if program in self._object.chosen:
                        places.setdefault(program, []).append(offset)
        # Return probes first, or an entry whose return is missed would stay in the map.
        return dict(sorted(places.items(), key=lambda item: self._object.section(item[0]) != "uretprobe"))
