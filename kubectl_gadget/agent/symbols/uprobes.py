"""Uprobe programs on functions of libraries, in each container's own file, including containers that start later.

RUN's `libraries` says which programs attach to which functions of which files (docs/protocol.md). One link per program
and file serves all processes that map the file. The trap: containers of one image share the file below their file
systems, which is not visible from here, so a program may run twice for one call and has to tolerate that: it pairs
entry and return in a map.
"""

import ctypes
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import Links, wait_for_programs
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.elf.elf_symbols import function_offsets
from kubectl_gadget.agent.symbols.asked_functions import AskedFunctions
from kubectl_gadget.agent.symbols.mapped_files import MappedFile, MappedFiles
from kubectl_gadget.wire.client_messages import Library

SECTIONS = ("uprobe", "uretprobe")
_EVERY = 0.1
"""Seconds between two scans of the processes."""
_PATIENCE = 2.0
"""Seconds after which a warning reports that nothing was found."""
_MOST_FILES = 512
UPROBE_MULTI = 48
"""BPF_TRACE_UPROBE_MULTI."""


class MultiOptions(ctypes.Structure):
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


class Options(ctypes.Structure):
    """The head of struct bpf_uprobe_opts."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("reference_counter", ctypes.c_size_t),
        ("cookie", ctypes.c_uint64),
        ("at_return", ctypes.c_bool),
    )


def has_multi(release: str) -> bool:
    """Whether a kernel attaches uprobes without perf_event_open(), which distributions restrict: 6.6 and later."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return bool(found) and (int(found[1]), int(found[2])) >= (6, 6)  # type: ignore[index]


class Uprobes:
    """The uprobe programs of `object`. `libraries` is RUN's; a program is listed there once for each function."""

    def __init__(
        self,
        object: BpfObject,
        libraries: Sequence[Library],
        wanted_cgroup: Callable[[str], bool],
        warn: Callable[[str], None],
        named: bool = False,
    ) -> None:
        self._warn = warn
        self._functions = AskedFunctions(object) if named else None
        self._lib = libbpf.load()
        self._object = object
        self._libraries = [(item.files, item.functions) for item in libraries]
        self._multi = has_multi(os.uname().release)
        self._files = MappedFiles(wanted_cgroup, self._is_wanted)
        self._links: dict[tuple[int, int], list[int]] = {}
        self._released = Links()
        self._next = 0.0
        self._full = False
        self._silent_until: float | None = time.monotonic() + _PATIENCE

    def prepare(self) -> None:
        """Call it before the object is loaded."""
        if self._multi:
            for program in self._object.chosen:
                if self._object.section(program) in SECTIONS:
                    self._object.expect(program, UPROBE_MULTI)

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic(): attaches to newly mapped files, and detaches from those that no process
        maps any more."""
        if now < self._next:
            return
        self._next = now + _EVERY
        files = self._files.look()
        for key in self._links.keys() - files.keys():
            self._released.release(self._links.pop(key))
        self._released.free()
        for key, file in files.items():
            if key not in self._links:
                self._attach(key, file)
        if self._silent_until is not None and now >= self._silent_until:
            self._say_what_is_missing()

    def close(self) -> None:
        """Stops the programs."""
        if self._silent_until is not None:
            self._say_what_is_missing()
        links = [link for of_file in self._links.values() for link in of_file]
        self._links.clear()
        if self._released.release(links):
            wait_for_programs()
        self._next = float("inf")

    def free(self) -> None:
        """Frees what close() left. This may take long."""
        self._released.free()

    def _say_what_is_missing(self) -> None:
        """Warns once: after a while, or at the end of a shorter run."""
        self._silent_until = None
        names = sorted({name for files, _ in self._libraries for name in files})
        if self._functions:  # these report themselves what is missing in a file
            for name in self._functions.not_met(names):
                near = self._files.nearest_names(name)
                what = f"no process of the selected containers uses {name} yet, so it is not traced"
                self._warn(f"{what}; {near}?" if near else what)
        elif not self._links:
            wanted = ", ".join(names)
            self._warn(f"no process of the selected containers uses {wanted} yet, so nothing is traced")
        elif not self.attached:
            wanted = ", ".join(names)
            self._warn(f"{wanted}: it has none of the traced functions, so nothing can be seen")

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
            if not self._full:
                self._warn(f"more than {_MOST_FILES} libraries are in use; the rest are skipped")
            self._full = True
            return
        links = self._links[key] = list[int]()
        opened = -1
        try:
            opened = file.open()
            path = f"/proc/self/fd/{opened}"  # by its own path, it may be another file at each use
            for program, offsets in self._places(path, file.path).items():
                for link in self._link(program, path, offsets):
                    links.append(link)
        except OSError:
            self._released.release(self._links.pop(key))  # its process is gone; another one may give access to the file
        except Failure as failure:
            self._released.release(links)  # results of an incomplete set of probes would be misread
            self._links[key] = []
            self._warn(f"{file.path} cannot be traced: {failure}")
        finally:
            if opened >= 0:
                os.close(opened)

    def _places(self, path: str, seen: str) -> dict[str, list[int]]:
        """Returns offsets by program. `seen` is the path as processes see it."""
        if self._functions:
            found = self._functions.places(path, seen, self._libraries)
            for warning in self._functions.take_warnings():
                self._warn(warning)
            return found
        names = {name for _, functions in self._libraries for name in functions}
        places: dict[str, list[int]] = {}
        for name, offset in function_offsets(path, names).items():
            for _, functions in self._libraries:
                for program in functions.get(name, ()):
                    if program in self._object.chosen:
                        places.setdefault(program, []).append(offset)
        # Return probes first: an entry whose return is missed would wait for ever.
        return dict(sorted(places.items(), key=lambda item: self._object.section(item[0]) != "uretprobe"))

    def _link(self, program: str, path: str, offsets: list[int]) -> Iterator[int]:
        """Yields each link as soon as it is made, so that the caller has it when the next one fails."""
        pointer = self._object.pointer(program)
        at_return = self._object.section(program) == "uretprobe"
        if self._multi:
            array = (ctypes.c_ulong * len(offsets))(*offsets)
            options = MultiOptions(ctypes.sizeof(MultiOptions), count=len(offsets), at_return=at_return)
            options.offsets = ctypes.cast(array, ctypes.c_void_p)
            if self._functions:
                cookies = (ctypes.c_uint64 * len(offsets))(*self._functions.cookies(offsets))
                options.cookies = ctypes.cast(cookies, ctypes.c_void_p)
            arguments = (pointer, -1, os.fsencode(path), None, ctypes.byref(options))
            yield self._lib.call("bpf_program__attach_uprobe_multi", *arguments)
            return
        for offset in offsets:
            single = Options(ctypes.sizeof(Options), at_return=at_return)
            if self._functions:
                (single.cookie,) = self._functions.cookies([offset])
            place = (pointer, -1, os.fsencode(path), offset, ctypes.byref(single))
            yield self._lib.call("bpf_program__attach_uprobe_opts", *place)
