"""Makes facts of the rows of gadgets: the kind, the program, and the value, if one row has it.

Rows are dictionaries as in JSON output, in order of time, with their gadget as `event`. The caller, who knows the
cluster, adds what needs more than the row: the name of a peer, and whether a DNS name is only an attempt of the
resolver.

A fact needs the program of its process. Gadgets are attached one after the other, so rows may come seconds before the
rows that name their process, and wait for them. The traps: the container runtime works in a container before its first
program does, and none of that is a fact. And rows from before the run began are needed to know the processes, but say
nothing about the run itself.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import join, normpath
from types import MappingProxyType
from typing import NamedTuple

from kubectl_gadget.behavior.comparison import stands_alone
from kubectl_gadget.behavior.facts import (
    ALREADY_RUNNING,
    CONTENT,
    DENIED,
    MISSING,
    READ,
    REMOVED,
    RUNTIME,
    WRITE,
    FactKind,
)
from kubectl_gadget.behavior.generalization import EPHEMERAL, Generalizer
from kubectl_gadget.behavior.programs import PodContainer, Process, Programs, Row, StartedProgram

KINDS: Mapping[str, tuple[FactKind, ...]] = MappingProxyType(
    {
        "process": (FactKind.PROGRAM, FactKind.EXIT),
        "tcp": (FactKind.CONNECT,),
        "udp": (FactKind.CONNECT,),
        "bind": (FactKind.LISTEN,),
        "dns": (FactKind.RESOLVE,),
        "open": (FactKind.OPEN, FactKind.DEPENDENCY),
        "file": (FactKind.CHANGE,),
        "capabilities": (FactKind.CAPABILITY,),
        "privilege": (FactKind.PRIVILEGE,),
        "syscalls": (FactKind.SYSCALL,),
    }
)
"""The facts that each gadget gives."""
_OWNER = ("timestamp", "node", "namespace", "pod", "container", "pid", "ppid", "comm", "image")
COLUMNS = (
    *_OWNER,
    *(
        "exec_id",
        "operation",
        "args",
        "exe",
        "path",
        "interpreted",
        "cwd",
        "links",
        "ns_mnt",
        "started",
        "code",
        "signal",
    ),
    *("errno", "flags", "resolved", "sha256", "mode", "to", "owner", "group", "attribute"),
    *("local", "local_port", "remote", "remote_port", "protocol", "sent_packets", "received_packets"),
    *("address", "port", "asked_port", "role", "name", "rcode", "addresses", "server", "client", "capability"),
    *("syscall", "namespaces", "request"),
    *("old_uid", "new_uid", "old_euid", "new_euid", "old_egid", "new_egid", "old_capabilities", "new_capabilities"),
)
"""The columns that are read from each gadget."""
_MOST_WAITING = 10_000
"""rows of one container that wait for their process"""
SANDBOX = "POD"
_CLUSTER = ".cluster.local"
_MOST_NAMES = 20_000
_MOST_DOMAINS = 6
"""of a search list, the limit of old resolvers; with more, nothing is a search list"""
_DNS = 53
_ACCESS, _CHANGES = 3, 0x40 | 0x200 | 0x400000
_ENOENT, _REFUSED = 2, (1, 13, 30)
_CREATE, _NEW, _TEMPORARY = 0x40, 0x40 | 0x80, 0x400000
"""of open(2): O_CREAT; with O_EXCL, so that no other process had the name; and O_TMPFILE"""
_MODE, _PRIVATE, _SPECIAL = 0o7777, 0o700, 0o6000
"""all bits of a mode; the mode of mkdtemp(3); the bits that give a file's user or group to those who execute it"""
_FILE_CAPABILITIES = "security.capability"
_UNCHANGED = (-1, 0xFFFFFFFF)
"""of chown(2): stays as it is"""
_SHOWN_DIGITS = 32
"""of a digest: 128 bits, which nobody can make a second file for"""
MOST_HELD = 20_000
"""names that the programs of one container made, and uses of them, that are held"""
_SEVERAL = 3
"""names that are alike and removed in one folder, from which on such names are temporary ones"""
_WORD = re.compile(r"[A-Za-z0-9]+")
_LAST_WORD = re.compile(r"\.[a-z]{1,5}$|[^A-Za-z0-9.][a-z]{1,3}$")
FOLDED = (f"{READ} ", f"{WRITE} ", "mode ", "owner ")
"""how the values begin whose paths may become DIR/*"""


class OtherEnd(NamedTuple):
    """The value of a connection, before its address has a name."""

    address: str
    port: int
    protocol: str
    name: str
    """what DNS called the address; empty: nothing"""


@dataclass
class SeenNames:
    """The names that one container of one pod asked DNS for, and its own addresses."""

    of_addresses: dict[str | tuple[str, int, str], str] = field(default_factory=dict)
    """what DNS last called an address; and what it did in answers to one process, with its node and PID: names of
    content delivery networks share addresses"""
    asked: dict[str, bool] = field(default_factory=dict)
    """names, and whether they do not exist"""
    existing: set[str] = field(default_factory=set)
    """the first labels of names that exist"""
    addresses: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    """domains of the search list without the cluster's; names that do not exist reveal them"""

    def is_attempt(self, name: str) -> bool:
        """True if a name that does not exist is another name with a domain of the search list (resolv.conf(5)). Only
        names of the cluster and of a few domains count as such, since names can carry data out by DNS."""
        if not self.asked.get(name):
            return False
        parts = name.split(".")
        others = (end for end in range(len(parts) - 1, 0, -1) if ".".join(parts[:end]) in self.asked)
        end = next(others, None)
        if name.endswith(_CLUSTER):
            return end is not None or parts[0] in self.existing
        if end is None:
            return False
        if len(self.domains) <= _MOST_DOMAINS:
            self.domains.add(".".join(parts[end:]))
        return len(self.domains) <= _MOST_DOMAINS


class MadePath(NamedTuple):
    """A value with a path whose name no file had before."""

    value: str
    temporary: tuple[str, ...]
    """the values if the name, or one of those above it, is a temporary one"""


class _PathUse(NamedTuple):
    """The value of an open, or of a change of a file, before its path is generalized."""

    how: str
    path: str
    is_made: bool = False
    """no file had the name before"""
    may_be_made: bool = False
    """by the call's flags: O_CREAT without O_EXCL"""
    called: str = ""
    """in a chroot, the name that the program gave it, by which later calls name it; empty: the same"""


class _Held(NamedTuple):
    """A use of a path that may be temporary, until that is known."""

    row: Row
    kind: FactKind
    program: str
    use: _PathUse
    end: int = 0
    """where the first temporary name in the path ends, of those that are known by now; 0: there is none"""
    renamed: int = 0
    """where the name of a file ends that was given another one later; 0: there is none"""
    removed: int = 0
    """of a directory that was renamed and then removed, where its folder ends; 0: it is something else"""


# Temporary names: a name that a program made itself (O_EXCL, mkdir, link) and that is removed or renamed during the run
# says nothing. Of several in a path, the first is the temporary one: whoever removes a directory removes what is in it
# before. A file that is renamed has a temporary name in any case. What is done to a file before it is renamed is done
# to the file with its new name, too, so a new name for a file does not hide its mode. In folders of the system and for
# files that stand alone, names stay.
#
# A name that may have existed before (O_CREAT without O_EXCL, the new name of a file) is unsure: it is a temporary one
# if several that are alike are removed in its folder. One alone is as likely that of a PID file, which stays where a
# run ends before its programs.
#
# A directory that no program of the run made, and that is renamed and then removed, is only removed. Some tools remove
# a directory that way in every few runs. So its new name, and the directories that are listed below it, say nothing
# (REMOVED); what is done to files in it is known by its earlier name.


class _MadeNames:
    """The names that the programs of one container have made, each with what was done to it."""

    def __init__(self) -> None:
        self._held: dict[str, list[_Held]] = {}
        """with a `/` at the end: of directories"""
        self._private: set[str] = set()
        self._unsure: set[str] = set()
        self._removed: dict[str, dict[str, dict[str, list[_Held]] | None]] = {}
        """by the made directory above and by what is alike, the unsure names that were removed; None: they were
        several"""
        self._directories = 0
        self._moved: dict[str, tuple[str, set[str]]] = {}
        """by the new name, with a `/` at the end, of a directory (or file) that was renamed and that no program made:
        the earlier name, and the directories below it that were removed since"""
        self._now: dict[str, str] = {}
        """the new names of these, by the earlier ones, as long as nothing else has these"""
        self.size = 0
        """of names and uses"""

    def __bool__(self) -> bool:
        return bool(self._held)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    def has(self, path: str) -> bool:
        """True for a file or a directory."""
        return path in self._held or f"{path}/" in self._held

    def add(self, path: str, is_private: bool = False, is_unsure: bool = False) -> None:
        """A program made this file or, with a `/` at its end, this directory. `is_private`: only for its own user.
        `is_unsure`: it may have existed before."""
        if path not in self._held:
            self._held[path] = []
            self._directories += path.endswith("/")
            self.size += 1
            if is_unsure:
                self._unsure.add(path)
        if is_private:
            self._private.add(path)
        self._now.pop(path.removesuffix("/"), None)

    def move(self, path: str, to: str) -> None:
        """A directory, or a file, that no program made was renamed."""
        name = f"{to}/"
        self.add(name)
        self._moved[name] = path, set()
        self._now[path] = name

    def is_moved(self, name: str) -> bool:
        """True for the new name, with a `/` at the end, of what no program made."""
        return name in self._moved

    def earlier(self, path: str) -> str:
        """The path before a directory above it, or it itself, was renamed; empty: none was, or others have that name
        by now."""
        for name in self.names(path):
            if name in self._moved:
                before, _ = self._moved[name]
                return before + path[len(name) - 1 :] if self._now.get(before) == name else ""
        return ""

    def note_removed(self, directory: str) -> None:
        """A directory was removed, perhaps below a renamed one."""
        for name in self.names(directory):
            if name in self._moved and name != f"{directory}/":
                self._moved[name][1].add(directory)
                self.size += 1
                return

    def pop_moved(self, directory: str) -> tuple[str, set[str], list[_Held]]:
        """Forget a renamed directory. Return its earlier name, the directories that were removed below it, and what was
        done to it and below it."""
        before, below = self._moved[f"{directory}/"]
        found = self.pop(directory)
        return before, below, [] if found is None else found[1]

    def is_unsure(self, path: str) -> bool:
        return path in self._unsure

    def removed(self, path: str) -> tuple[Mapping[str, Sequence[_Held]], bool]:
        """An unsure name was removed. Return the names that are released by that, with what was done to them, and
        whether they are temporary."""
        name, uses = self.pop(path) or (path, [])
        families = self._removed.setdefault(next(self.names(name), ""), {})
        end = name.rfind("/") + 1
        alike = f"{name[:end]}{_alike(name[end:])}"
        several = families.setdefault(alike, {})
        if several is None:
            return {name: uses}, True
        self.size += len(uses) + (name not in several)
        several.setdefault(name, []).extend(uses)
        if len(several) < _SEVERAL:
            return {}, False
        families[alike] = None
        self.size += 1 - _size(several)
        return several, True

    def left(self, *folders: str) -> list[tuple[str, list[_Held]]]:
        """The removed names that were too few, which are forgotten: below made directories, or all."""
        folders = folders or tuple(self._removed)
        families = [family for each in folders for family in self._removed.pop(each, {}).values()]
        self.size -= sum(1 if several is None else _size(several) for several in families)
        return [item for several in families if several is not None for item in several.items()]

    def below(self, directory: str) -> list[str]:
        """The names below a directory, which ends with a `/`."""
        return [name for name in self._held if name.startswith(directory) and name != directory]

    def names(self, path: str) -> Iterator[str]:
        """Yield the names that a path is, or is below of, the innermost first."""
        if path in self._held:
            yield path
        if self._directories:
            above = f"{path.removesuffix('/')}/"  # a directory may be changed itself
            while len(above) > 1:
                if above in self._held and above != path:
                    yield above
                above = above[: above.rfind("/", 0, -1) + 1]  # empty: a relative path ends

    def private(self, path: str) -> Iterator[str]:
        """Yield the directories above a path that were made for one user alone, as mkdtemp(3) does."""
        return (name for name in self.names(path) if name in self._private)

    def hold(self, name: str, held: _Held) -> None:
        self._held[name].append(held)
        self.size += 1

    def pop(self, path: str) -> tuple[str, list[_Held]] | None:
        """The name, and what was done to it; None: no program made it."""
        for name in (path, f"{path}/"):
            if (found := self._held.pop(name, None)) is not None:
                self._directories -= name.endswith("/")
                if (moved := self._moved.pop(name, None)) is not None:
                    self.size -= len(moved[1])
                    if self._now.get(moved[0]) == name:
                        del self._now[moved[0]]
                self._private.discard(name)
                self._unsure.discard(name)
                self.size -= 1 + len(found)
                return name, found
        return None

    def oldest(self) -> str:
        return next(iter(self._held))


def _size(names: Mapping[str, Sequence[_Held]]) -> int:
    return len(names) + sum(map(len, names.values()))


def _alike(name: str) -> str:
    """The common part of names that differ in their words only; the last word stays if it says what the file is."""
    last = _LAST_WORD.search(name)
    return f"{_WORD.sub('x', name[: last.start()] if last else name)}{last.group() if last else ''}"


Emit = Callable[[PodContainer, Row, FactKind, str, object], object]
"""Takes the container, the row, the kind, the program, and the value: a text, or OtherEnd."""


Began = Callable[[], str | None]
"""Returns when the run began (RFC 3339, in ns): facts count from then on. None: not yet."""
_Value = Callable[[Process | None], object]
"""Makes a fact's value for the row's process; None: the row is no fact."""


class _Waiting(NamedTuple):
    """A row whose process is not known yet."""

    place: PodContainer
    row: Row
    kind: FactKind
    value: _Value


class RowFacts:
    """Calls `emit` for each fact in rows. Without `has_processes`, programs are known by their threads' names only."""

    def __init__(
        self,
        generalizer: Generalizer,
        emit: Emit,
        has_processes: bool = True,
        began: Began = lambda: "",
        holds: bool = True,
    ) -> None:
        """`holds`: what is done to a name that may be temporary is emitted later, with the name that it proves to
        have; else at once, as a MadePath."""
        self.names: defaultdict[PodContainer, SeenNames] = defaultdict(SeenNames)
        self.earlier: set[PodContainer] = set()
        """containers that did something before the run began"""
        self._generalizer = generalizer
        self._emit = emit
        self._has_processes = has_processes
        self._began = began
        self._since: str | None = None
        """when the run began; None: not yet"""
        self._programs = Programs(generalizer, self._temporary_folders)
        self._first: dict[tuple[str, int], tuple[PodContainer, Row]] = {}
        """until the run begins, the row with which each process began its program"""
        self._waiting: dict[tuple[str, int], list[_Waiting]] = {}
        """by node and PID"""
        self._waiting_of: Counter[PodContainer] = Counter()
        self._unjoined: set[PodContainer] = set()
        self._holds = holds
        self._made: defaultdict[PodContainer, _MadeNames] = defaultdict(_MadeNames)
        self._called: defaultdict[PodContainer, dict[str, str]] = defaultdict(dict)
        """paths of files that were made in a chroot, by the names that their programs gave them"""
        self._given_ports: set[tuple[tuple[str, ...], str, int]] = set()
        """ports that the kernel chose, by network and protocol"""
        self._dns_servers: set[tuple[str, ...]] = set()
        """pods in which a DNS server runs"""
        self._takes: Mapping[str, Callable[[PodContainer, Row], None]] = {
            "process": self._process,
            "tcp": self._tcp,
            "udp": self._udp,
            "bind": self._bind,
            "dns": self._dns,
            "open": self._open,
            "file": self._file,
            "capabilities": self._capability,
            "privilege": self._privilege,
            "syscalls": self._syscall,
        }

    def add(self, rows: Iterable[Row]) -> None:
        """Read rows, nearly in order of time."""
        if self._since is None and (began := self._began()) is not None:
            self._begin(began)
        for row in rows:
            take = self._takes.get(row["event"])
            if take is not None and row["container"] and row["container"] != SANDBOX:
                place = row["namespace"], row["pod"], row["container"]
                if self._is_early(row):
                    self.earlier.add(place)
                take(place, row)

    def unjoined(self) -> set[PodContainer]:
        """Return the containers that did something during the run by an unknown program."""
        return self._unjoined | {item.place for several in self._waiting.values() for item in several}

    def _begin(self, began: str) -> None:
        """The run begins: what runs now was already running, unless it began after all."""
        self._since = began
        for key, process in list(self._programs.alive()):
            if (first := self._first.get(key)) is not None and self._is_early(first[1]):
                self._emit(*first, FactKind.PROGRAM, process.program, ALREADY_RUNNING)
        self._first.clear()

    def _is_early(self, row: Row) -> bool:
        """Return True if a row is from before the run began."""
        return self._since is None or row["timestamp"] < self._since

    def _fact(self, place: PodContainer, row: Row, kind: FactKind, value: _Value) -> None:
        """Emit a fact of the row's process, or wait until that is known."""
        if self._is_early(row):
            return
        process = self._programs.find(row)
        if process is not None:
            self._emit_of(place, row, kind, process.program, value(process))
        elif not self._has_processes or not row["pid"]:
            self._emit_of(place, row, kind, self._programs.name_of(row), value(None))
        elif self._waiting_of[place] >= _MOST_WAITING:
            self._unjoined.add(place)
        elif self._programs.may_be_found(row):
            self._waiting_of[place] += 1
            self._waiting.setdefault((row["node"], row["pid"]), []).append(_Waiting(place, row, kind, value))

    def _emit_of(self, place: PodContainer, row: Row, kind: FactKind, program: str, value: object) -> None:
        if program == RUNTIME or value is None:
            return
        if isinstance(value, _PathUse):
            self._use(place, _Held(row, kind, program, value))
        else:
            self._emit(place, row, kind, program, value)

    def _use(self, place: PodContainer, held: _Held) -> None:
        """Emit a use of a path, or hold it while it is not known whether its name is a temporary one."""
        made, use = self._made[place], held.use
        if use.is_made or use.may_be_made:
            self._make(place, use.path, is_unsure=not use.is_made)
            if use.called:
                self._call(place, use.called, use.path, is_unsure=not use.is_made)
        elif use.called and made:  # a directory was made in a chroot, by the name that it has there
            root = use.path.removesuffix(use.called)
            for name in made.names(use.called):
                if name.endswith("/") and name[:-1] not in self._called[place]:
                    self._make(place, f"{root}{name}")
                    self._call(place, name[:-1], f"{root}{name[:-1]}")
        names = list(made.names(use.path)) if made else []
        if not names:
            self._emit_path(place, held)
        elif self._holds:
            made.hold(names[0], held)
            self._limit(place)
        else:
            temporary = tuple(self._perhaps(made, held, names))
            self._emit(place, held.row, held.kind, held.program, MadePath(self._value(held, use.path), temporary))

    def _perhaps(self, made: _MadeNames, held: _Held, names: Sequence[str]) -> Iterator[str]:
        """The values if these names, of a path and of directories above it, are temporary, or will be removed."""
        ends = [len(name.rstrip("/")) for name in names if not made.is_moved(name)]
        yield from (self._temporary(held, end) for end in ends)
        yield from (self._temporary(held, end, ends[0]) for end in ends[1:])
        for name in filter(made.is_moved, names):
            if held.use.how != WRITE or held.use.path == name.rstrip("/"):
                yield self._removed(held._replace(removed=name.rfind("/", 0, -1)))
        if before := made.earlier(held.use.path):
            yield self._value(held, before)

    def _make(self, place: PodContainer, name: str, is_private: bool = False, is_unsure: bool = False) -> None:
        """A program made a file or a directory."""
        self._made[place].add(name, is_private, is_unsure)
        self._limit(place)

    def _call(self, place: PodContainer, called: str, path: str, is_unsure: bool = False) -> None:
        """Programs in a chroot call what was made by another name."""
        if len(self._called[place]) < MOST_HELD:
            if f"{called}/" not in self._made[place]:
                self._make(place, called, is_unsure=is_unsure)
            self._called[place][called] = path

    def _limit(self, place: PodContainer) -> None:
        made = self._made[place]
        if made.size > MOST_HELD:
            self._release_removed(place)
        while made.size > MOST_HELD:
            self._release_name(place, made.oldest())

    def _release_removed(self, place: PodContainer, *folders: str) -> None:
        """Emit what was done to unsure names that were too few, or hold it for the name above."""
        for name, uses in self._made[place].left(*folders):
            self._release_uses(place, name, uses)

    def _temporary_folders(self, place: PodContainer, path: str) -> Iterable[int]:
        """The lengths of the directories above a path that the container made for temporary files (mkdtemp)."""
        return [len(name) - 1 for name in self._made[place].private(path)]

    def _emit_path(self, place: PodContainer, held: _Held, value: str | None = None) -> None:
        found = self._value(held, held.use.path) if value is None else value
        if not self._generalizer.is_ignored(held.kind, found):
            self._emit(place, held.row, held.kind, held.program, found)
            if held.kind is FactKind.OPEN and held.use.how in (READ, WRITE):
                package = self._generalizer.dependency(held.use.path, held.use.how)
                if package:
                    self._emit(place, held.row, FactKind.DEPENDENCY, "", package)
                digest = held.row.get("sha256")
                if digest and (library := self._generalizer.library(held.use.path)):
                    self._emit(place, held.row, FactKind.DEPENDENCY, "", f"{library} {CONTENT}{digest[:_SHOWN_DIGITS]}")

    def _value(self, held: _Held, path: str) -> str:
        how = held.use.how
        if how == WRITE or held.kind is FactKind.CHANGE:
            return f"{how} {self._generalizer.written(path)}"
        path = self._generalizer.path(path)
        return f"{how} {self._generalizer.read_path(path) if how == READ else path}"

    def _temporary(self, held: _Held, *ends: int) -> str:
        """The value if the names that end there are temporary; in places where each name counts, the usual one."""
        path = held.use.path
        if self._generalizer.is_exact(path) or stands_alone(held.kind, f"{held.use.how} {path}"):
            return self._value(held, path)
        return f"{held.use.how} {self._generalizer.temporary(path, *ends)}"

    def _removed(self, held: _Held) -> str:
        """The value for a directory that was renamed and then removed; where each name counts, the usual one."""
        use = held.use
        counts = self._generalizer.is_exact(use.path) or self._generalizer.is_sensitive(use.path)
        if counts or stands_alone(held.kind, f"{use.how} {use.path}"):
            return self._value(held, use.path)
        folder = use.path[: held.removed]
        above = self._generalizer.temporary(folder, held.end) if held.end else self._generalizer.path(folder)
        return f"{use.how} {above}{REMOVED}"

    def _release_name(
        self, place: PodContainer, path: str, to: str | None = None, is_temporary: bool = False, end: int = 0
    ) -> None:
        """Emit what was done to a name that a program made, or hold it for the name above. `to`: its new name. `end`:
        where the temporary name ends, if it is one of those above."""
        made = self._made[place]
        self._release_removed(place, f"{path.removesuffix('/')}/")
        found = made.pop(path)
        if found is None:
            return
        name, uses = found
        length = len(name.rstrip("/"))
        if to is not None and name.endswith("/"):
            for below in made.below(name):
                self._release_name(place, below, to + below[length:].rstrip("/"), is_temporary=True, end=length)
        self._release_uses(place, name, uses, to, is_temporary, end)

    def _release_uses(
        self,
        place: PodContainer,
        name: str,
        uses: Iterable[_Held],
        to: str | None = None,
        is_temporary: bool = False,
        end: int = 0,
    ) -> None:
        """Emit what was done to a name that is no longer held."""
        made, length = self._made[place], len(name.rstrip("/"))
        above = next(made.names(name), None)
        for held in uses:
            if to is not None and held.use.how not in (READ, DENIED):
                renamed = held.use._replace(path=to + held.use.path[length:], is_made=False)
                self._use(place, held._replace(use=renamed, end=0, renamed=0))
            known = held._replace(end=end or length) if is_temporary else held
            if to is not None and not end and not name.endswith("/"):
                known = known._replace(renamed=length)
            if above is not None and above in made:
                made.hold(above, known)
            else:
                self._emit_known(place, known)

    def _emit_known(self, place: PodContainer, held: _Held) -> None:
        """Emit a use of a path whose temporary names are known."""
        if held.removed:
            self._emit_path(place, held, self._removed(held))
        elif held.end:
            ends = dict.fromkeys(filter(None, (held.end, held.renamed)))
            self._emit_path(place, held, self._temporary(held, *ends))
        else:
            self._emit_path(place, held)

    def _release_moved(self, place: PodContainer, directory: str) -> None:
        """A directory that was renamed is removed: emit what was done to it and below it, or hold it for the name
        above."""
        made = self._made[place]
        before, below, uses = made.pop_moved(directory)
        above, longer = next(made.names(directory), None), len(before) - len(directory)
        for held in uses:
            path = held.use.path
            if held.use.how not in (DENIED, MISSING) and not held.end and (path == directory or path in below):
                known = held._replace(removed=directory.rfind("/"))
            elif path.startswith(f"{directory}/"):
                places = [each + longer if each else 0 for each in (held.end, held.renamed, held.removed)]
                use = held.use._replace(path=before + path[len(directory) :])
                known = held._replace(use=use, end=places[0], renamed=places[1], removed=places[2])
            else:
                known = held
            if above is not None:
                made.hold(above, known)
            else:
                self._emit_known(place, known)

    def _taken_away(self, place: PodContainer, path: str, to: str | None = None, is_directory: bool = False) -> None:
        """A name was removed, or is now `to`. `is_directory`: the name of a directory was removed."""
        made = self._made[place]
        if is_directory:
            made.note_removed(path)
        if not made.has(path) and made.has(before := made.earlier(path)):
            path = before
        if made.is_moved(f"{path}/"):
            if is_directory:
                self._release_moved(place, path)
            else:
                self._release_name(place, path)
        elif not made.is_unsure(path):
            self._release_name(place, path, to, is_temporary=True)
        elif to is not None:
            self._release_name(place, path)
        else:
            released, is_temporary = made.removed(path)
            for name, uses in released.items():
                self._release_uses(place, name, uses, is_temporary=is_temporary)
            self._limit(place)
        if (whole := self._called[place].pop(path, None)) is not None:
            moved = None if to is None else f"{whole.removesuffix(path)}{to}"
            self._taken_away(place, whole, moved)

    def finish(self) -> None:
        """The run is over: names that are still there are no temporary ones."""
        for place, made in self._made.items():
            self._release_removed(place)
            while made:
                self._release_name(place, made.oldest())

    def _release(self, row: Row) -> None:
        """Judge the rows that have waited for the process of this row, which is known better now."""
        for item in self._waiting.pop((row["node"], row["pid"]), ()):
            self._waiting_of[item.place] -= 1
            self._fact(*item)

    def _process(self, place: PodContainer, row: Row) -> None:
        operation = row["operation"]
        if operation == "running":
            self._started(place, row, self._programs.running(place, row))
        elif operation == "fork":
            self._programs.forked(place, row)
            self._note_first(place, row)
        elif operation == "exec":
            self._started(place, row, self._programs.executed(place, row))
        self._release(row)
        if operation == "exit":
            self._exited(place, row)

    def _exited(self, place: PodContainer, row: Row) -> None:
        process = self._programs.exited(row)
        self._first.pop((row["node"], row["pid"]), None)
        left = self._waiting.pop((row["node"], row["pid"]), [])
        self._waiting_of[place] -= len(left)
        # What began in a container during the run without a fork there was put there by the runtime.
        if left and (row.get("started") or "") < (self._since or ""):
            self._unjoined.add(place)
        value = row["signal"] or f"code {row['code']}"
        if process is not None and not self._is_early(row) and not self._generalizer.is_ignored(FactKind.EXIT, value):
            self._emit_of(place, row, FactKind.EXIT, process.program, value)

    def _started(self, place: PodContainer, row: Row, started: StartedProgram | None) -> None:
        if started is None:
            return
        self._note_first(place, row)
        if self._since is not None:
            by = ALREADY_RUNNING if self._is_early(row) else started.by
            self._emit_of(place, row, FactKind.PROGRAM, started.program, by)

    def _note_first(self, place: PodContainer, row: Row) -> None:
        if self._since is None:
            self._first[row["node"], row["pid"]] = place, row

    def _own(self, place: PodContainer, row: Row) -> None:
        addresses = self.names[place].addresses
        if row["local"] and len(addresses) < _MOST_NAMES:
            addresses.add(row["local"])

    def _tcp(self, place: PodContainer, row: Row) -> None:
        self._own(place, row)
        if row["operation"] == "connect" and row["remote"]:
            self._connect(place, row, "TCP")

    def _udp(self, place: PodContainer, row: Row) -> None:
        self._own(place, row)
        # The side that sends the first packet counts as the one that connects.
        if row["operation"] == "first" and row["sent_packets"] and not row["received_packets"] and row["remote"]:
            self._connect(place, row, row["protocol"])

    def _connect(self, place: PodContainer, row: Row, protocol: str) -> None:
        known, remote = self.names[place].of_addresses, row["remote"]
        name = known.get((row["node"], row["pid"], remote)) or known.get(remote, "")
        end = OtherEnd(row["remote"], row["remote_port"], protocol, name)
        self._fact(place, row, FactKind.CONNECT, lambda _: end)

    def _bind(self, place: PodContainer, row: Row) -> None:
        port, protocol = row["port"], row["protocol"]
        if row["errno"] or protocol not in ("TCP", "UDP", "SCTP", "MPTCP"):
            return
        if port == _DNS:
            self._dns_servers.add(_network_of(place))
        limit, given = self._generalizer.rules.ephemeral_port, (_network_of(place), protocol, port)
        # Some programs ask for a port that the kernel has chosen, once they know it.
        if row["asked_port"] == 0 and len(self._given_ports) < _MOST_NAMES:
            self._given_ports.add(given)
        if row["asked_port"] == 0 or given in self._given_ports or (protocol == "UDP" and 0 < limit <= port):
            port = EPHEMERAL
        self._fact(place, row, FactKind.LISTEN, lambda _: f"{port}/{protocol.lower()}")

    def _dns(self, place: PodContainer, row: Row) -> None:
        if row["role"] == "server":
            self._dns_servers.add(_network_of(place))
        if row["role"] != "client" or row["rcode"] == "MALFORMED" or not row["name"]:
            return
        names = self.names[place]
        if len(names.of_addresses) < _MOST_NAMES and len(names.asked) < _MOST_NAMES:
            if not self._is_own_answer(place, row):
                for address in row["addresses"] or ():
                    names.of_addresses[address] = names.of_addresses[row["node"], row["pid"], address] = row["name"]
            name, is_missing = row["name"].rstrip("."), row["rcode"] == "NXDOMAIN"
            names.asked[name] = is_missing
            if not is_missing:
                names.existing.add(name.partition(".")[0])
        self._fact(place, row, FactKind.RESOLVE, lambda _: row["name"].rstrip("."))

    def _is_own_answer(self, place: PodContainer, row: Row) -> bool:
        """True if a DNS server of the pod itself gave an answer, so that the pod may have made the name up. A server on
        localhost may also be one of the machine or of the runtime, which no container of the pod is."""
        server = row["server"] or ""
        if _network_of(place) not in self._dns_servers or not server:
            return False
        own = server == row["client"] or server in self.names[place].addresses
        return own or server == "::1" or server.startswith(("127.", "::ffff:127."))

    def _open(self, place: PodContainer, row: Row) -> None:
        if path := row.get("resolved") or row["path"]:
            self._fact(place, row, FactKind.OPEN, lambda process: self._opened(row, path, process))
            mode = int(row.get("mode") or "0", 8) & _MODE
            if row["errno"] == 0 and mode & _SPECIAL:
                self._fact(place, row, FactKind.CHANGE, lambda _: _PathUse(f"mode {mode:o}", normpath(path)))

    def _opened(self, row: Row, path: str, process: Process | None) -> _PathUse | None:
        if process is not None and process.program == RUNTIME:
            return None
        path = normpath(join("/" if process is None else process.cwd, path))
        access = self._access(row, path)
        if access is None:
            return None
        flags = 0 if row["errno"] else row["flags_raw"] or 0
        if flags & _TEMPORARY and access == WRITE:  # the resolved path has only a number
            path = f"{path.rpartition('/')[0] if row.get('resolved') else path}/(unnamed)"
        called = normpath(row["path"] or "")
        is_other = called.startswith("/") and called != path and path.endswith(called)
        is_made, may_be_made = flags & _NEW == _NEW, bool(flags & _CREATE)
        return _PathUse(access, path, is_made, may_be_made, called if is_other else "")

    def _file(self, place: PodContainer, row: Row) -> None:
        """Files that are made, renamed or removed, and changes of their modes and owners."""
        operation, path, to = row["operation"], row["path"], row["to"]
        if row["errno"] != 0 or not path:
            return
        path, is_early = normpath(path), self._is_early(row)
        if operation in ("unlink", "rmdir"):
            self._taken_away(place, path, is_directory=operation == "rmdir")
        elif operation == "rename" and to:
            made, to = self._made[place], normpath(to)
            is_made = path in made  # else it is unknown where it comes from
            if f"{path}/" in made and not made.is_moved(f"{path}/"):
                self._make(place, f"{to}/")
                self._taken_away(place, path, to)
            else:
                self._taken_away(place, path, to)
                if not is_made and not is_early and path != to:
                    made.move(path, to)
                    self._limit(place)
            self._fact(place, row, FactKind.OPEN, lambda _: _PathUse(WRITE, to, may_be_made=is_made))
        elif operation == "mkdir" and not is_early:  # which fails where the name exists, as O_EXCL does
            self._make(place, f"{path}/", int(row["mode"] or "0", 8) & _MODE == _PRIVATE)
        elif operation in ("link", "symlink", "mknod"):
            self._fact(place, row, FactKind.OPEN, lambda _: _PathUse(WRITE, path, is_made=True))
        elif change := _change(row):
            self._fact(place, row, FactKind.CHANGE, lambda _: _PathUse(change, path))

    def _access(self, row: Row, path: str) -> str | None:
        errno = row["errno"]
        if errno in _REFUSED:
            return DENIED
        if errno == _ENOENT:
            return MISSING if self._generalizer.is_sensitive(path) else None
        if errno and errno > 0:
            return None
        flags = row["flags_raw"]
        return READ if flags is not None and not flags & _ACCESS and not flags & _CHANGES else WRITE

    def _capability(self, place: PodContainer, row: Row) -> None:
        value = f"denied {row['capability']}" if row["errno"] else row["capability"]
        self._fact(place, row, FactKind.CAPABILITY, lambda _: value)

    def _syscall(self, place: PodContainer, row: Row) -> None:
        self._fact(place, row, FactKind.SYSCALL, lambda _: str(row["syscall"]))

    def _privilege(self, place: PodContainer, row: Row) -> None:
        if not row["errno"] and (value := _privilege_text(row)):
            self._fact(place, row, FactKind.PRIVILEGE, lambda _: self._generalizer.value(value))


def _change(row: Row) -> str:
    """The changed attribute of a file; empty: none that gives rights."""
    operation = row["operation"]
    if operation == "chmod" and row["mode"]:
        return f"mode {int(row['mode'], 8) & _MODE:o}"  # without the type of the file, which the kernel ignores
    if operation == "chown":
        owner, group = (
            "" if number is None or number in _UNCHANGED else number for number in (row["owner"], row["group"])
        )
        return f"owner {owner}:{group}"
    return f"xattr {_FILE_CAPABILITIES}" if operation == "setxattr" and row["attribute"] == _FILE_CAPABILITIES else ""


def _network_of(place: PodContainer) -> tuple[str, ...]:
    """The owner of a network namespace: a pod, or a container without a pod."""
    return place[:2] if place[1] else place


def _privilege_text(row: Row) -> str:
    """Return the changes in words; empty: there are none."""
    said = []
    for what, before, after in (("user", "old_euid", "new_euid"), ("group", "old_egid", "new_egid")):
        if row[before] != row[after]:
            said.append(f"{what} {row[before]} to {row[after]}")
    if row["old_uid"] != row["new_uid"] and row["old_euid"] == row["new_euid"]:
        said.append(f"real user {row['old_uid']} to {row['new_uid']}")
    gained = _capabilities(row["new_capabilities"]) - _capabilities(row["old_capabilities"])
    # Of an exec, those before it are not known.
    if gained and row["old_capabilities"]:
        said.append(f"gains {' '.join(sorted(gained))}")
    if row["namespaces"]:
        said.append(row["namespaces"].replace("|", " "))
    if row["request"]:
        said.append(row["request"])
    operation = row["operation"]
    if operation in ("exec", "leave_cgroup", "chroot", "ptrace") or said:
        return f"{operation} {', '.join(said)}".rstrip()
    return ""


def _capabilities(text: str | None) -> frozenset[str]:
    return frozenset((text or "").split("|")) - {"", "none"}
