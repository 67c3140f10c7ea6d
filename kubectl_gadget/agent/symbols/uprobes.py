"""Uprobe programs on functions of libraries, in each container's own file, including containers that start later.

RUN's `libraries` says which programs attach to which functions of which files (docs/protocol.md). One link per program
and file serves all processes that map the file. The trap: containers of one image share the file below their file
systems, which is not visible here, so a program may run twice for one call, and must tolerate it: it pairs entry and
return in a map.
"""

import math
import os
import time
from collections.abc import Callable, Sequence

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import Links, wait_for_programs
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.symbols import uprobe_links
from kubectl_gadget.agent.symbols.elf_functions import function_offsets
from kubectl_gadget.agent.symbols.mapped_files import MappedFile, MappedFiles
from kubectl_gadget.agent.symbols.requested_functions import RequestedFunctions
from kubectl_gadget.wire.client_messages import Library

_SCAN_SECONDS = 0.1
"""Between two scans of the processes."""
_PATIENCE = 2.0
"""Seconds after which a warning reports that nothing was found."""
_MOST_FILES = 512
_TURN_SECONDS = 0.5
"""After which a turn leaves further files, which a container may have made to take long, to the next one, so that rings
are read meanwhile."""


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
        self._functions = RequestedFunctions(object, warn) if named else None
        self._object = object
        self._libraries = [(item.files, item.functions) for item in libraries]
        self._files = MappedFiles(wanted_cgroup, self._is_wanted)
        self._links: dict[tuple[int, int], list[int]] = {}
        self._released = Links()
        self._next = 0.0
        self._report_at: float | None = time.monotonic() + _PATIENCE
        """when to warn about what was not found"""

    def prepare(self) -> None:
        """Call it before the object is loaded."""
        for program in self._object.chosen:
            uprobe_links.prepare(self._object, program)

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic(): attaches to newly mapped files, and detaches from those that no process
        maps any more. After the first turn, files that take long to read are spread over several turns."""
        if now < self._next:
            return
        until = now + _TURN_SECONDS if self._next else math.inf
        self._next = now + _SCAN_SECONDS
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
        """Warns once: after a while, or at the end of a shorter run."""
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
                for link in uprobe_links.attach(self._object, program, path, offsets, cookies):
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
