"""Messages of the client, RUN, FILTER, UPDATE and others of docs/protocol.md, as objects.

Policies have their own module (policy_messages.py). A client omits members that have their default, so an
older agent that does not know a member still accepts gadgets that do not need it.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import ClassVar

from kubectl_gadget.wire.message import NONE, FilePath, Hex, Message, Value
from kubectl_gadget.wire.policy_messages import InstalledSpec, LabelScopes, PolicySpec, Way

DEFAULT_RING_BYTES = 4 << 20


class PodNames:
    """Names of pods, and patterns with `*`, as FILTER has them: `in` tells if one of them chooses a pod."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._patterns = tuple(name for name in self.names if "*" in name)

    def __contains__(self, name: str) -> bool:
        return name in self.names or any(fnmatchcase(name, pattern) for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def has_patterns(self) -> bool:
        return bool(self._patterns)


class FilterSpec(Message):
    """FILTER: which containers are traced. A container is traced when its namespace, pod and name are all selected."""

    namespaces: tuple[str, ...] | None = None
    """names; null: all"""
    pods: tuple[str, ...] | None = None
    """names, or patterns with `*` for any text; null: all"""
    containers: tuple[str, ...] | None = None
    """names, `POD` for sandboxes; null: all"""
    exclude_pods: tuple[str, ...] = ()
    """UIDs, or NAMESPACE/NAME, of pods that are left out"""
    host: bool = False
    """True if processes of the host are traced"""
    own_processes: bool = False
    """True if the agents' own processes are traced, too"""


class ProgramChoice(Message):
    """Alternatives. The agent loads the first set that the kernel accepts."""

    any_of: tuple[tuple[str, ...], ...]
    """sets of programs, by their names in the object"""
    optional: bool = False
    """True if it is only a warning when none loads"""
    purpose: str = ""
    """what is not seen without it"""
    aside: bool = False
    """True if a missing one is named in STARTED alone, and not in a WARNING"""


class Variable(Message):
    """A variable of the object's `.rodata`."""

    offset: int
    """in `.rodata`, in bytes"""
    size: int
    """in bytes"""


class RecorderSpec(Message):
    """A flight recorder."""

    last: int
    """records of each cgroup that are kept"""
    bytes: int
    """memory that all of them may take on the node"""
    exit: bool
    """True if they are shown when a container ends"""
    end: bool
    """True if they are shown when the run ends"""
    offset: int
    """where in a record the agent writes why it is shown (struct gadget_recording)"""


class Layout(Message):
    """The layout of records made from a sampler's rows."""

    size: int
    """of a record, in bytes"""
    fields: Mapping[str, tuple[int, int]]
    """offset and size of each field, in bytes"""
    texts: tuple[str, ...] = ()
    """fields that are texts, which follow the record"""


class Library(Message):
    """The places to attach programs of the sections `uprobe` and `uretprobe`."""

    files: tuple[FilePath, ...]
    """what names of mapped files begin with; with `named`, paths or names without a version"""
    functions: Mapping[str, tuple[str, ...]]
    """by function, the programs; with `named`, functions may be patterns or `0xOFFSET`"""


class GadgetSpec(Message):
    """A gadget of RUN."""

    KINDS: ClassVar[tuple[str, ...]] = ("stream", "snapshot", "top", "recorder")

    name: str
    """of the gadget, for people and for `--gadgets`"""
    kind: str = "stream"
    """`stream`, `snapshot`, `top` or `recorder`"""
    own: bool = False
    """True if a user wrote it"""
    object: int
    """number of its OBJECT frame"""
    programs: tuple[ProgramChoice, ...] = ()
    """what is loaded; empty: all programs of the object"""
    globals: Mapping[str, Variable] = NONE
    """variables of the object's `.rodata`, by name"""
    parameters: Mapping[str, Value] = NONE
    """values of some of them; those that begin with `gadget_node_` the agent sets"""
    ring_bytes: int = DEFAULT_RING_BYTES
    """size of the ring buffer"""
    map_entries: int = 0
    """entries of each hash; 0: as in the object"""
    interval_ms: int = 0
    """of `top`: length of an interval; of `snapshot`: time between two of them, 0: there is only one"""
    record_bytes: int = 0
    """of `top`: size of a record"""
    recorder: RecorderSpec | None = None
    """of `recorder`"""
    stack_offsets: bool = True
    """True if stacks are distinguished by address, not by function alone"""
    sampler: str = ""
    """rows that the agent reads itself: `mounts`, `bpf_programs`, `cgroups`, …"""
    layout: Layout | None = None
    """of the sampler's rows"""
    libraries: tuple[Library, ...] = ()
    """where uprobes go"""
    named: bool = False
    """True if a user named the `libraries`"""


AnyGadget = GadgetSpec | PolicySpec | InstalledSpec


class Run(Message):
    """RUN: what the session is to do."""

    gadgets: tuple[AnyGadget, ...]
    """by `kind`: GADGET, POLICIES or INSTALLED"""
    filter: FilterSpec = FilterSpec()
    """which containers are traced"""
    rest_ms: int = 50
    """milliseconds between two looks at the rings while nothing happens, 20 to 400; less when a ring fills up"""


class Heartbeat(Message):
    """HEARTBEAT, which PONG answers."""

    id: int = 0
    """any number, from 1"""


class PodTable(Message):
    """A table that the agent fills by cgroup."""

    table: str
    """`pods` is the map `gadget_table_pods`"""
    pods: Mapping[str, Hex | None] = NONE
    """by NAMESPACE/NAME or UID, and the name wins: values that are added; null: removed"""
    namespaces: Mapping[str, Hex | None] = NONE
    """the same for pods that are not in `pods`, by namespace"""
    other: Hex
    """value of all other containers, and of those that the filter does not select"""
    host: Hex
    """value of the host's cgroups"""


class Update(Message):
    """UPDATE: entries of a gadget's maps. `set` is applied first, then `containers`, then `remove`."""

    gadget: int
    """index in RUN"""
    set: Mapping[str, Mapping[Hex, Hex]] = NONE
    """by table, keys and their new values; `peers` is the map `gadget_table_peers`"""
    containers: PodTable | None = None
    """a table that is filled by cgroup"""
    remove: Mapping[str, tuple[Hex, ...]] = NONE
    """by table, keys to remove"""
    labels: LabelScopes | None = None
    """of policies: which scopes match by labels"""


class LookUp(Message):
    """LOOK_UP: which of these hooks the kernel has. It is sent instead of RUN."""

    functions: tuple[str, ...] = ()
    """kernel functions, `sys_write` and `i386/sys_dup` for system calls"""
    tracepoints: tuple[str, ...] = ()
    """as GROUP/EVENT"""
    patterns: tuple[str, ...] = ()
    """regular expressions for functions; an empty one: system calls"""
    ways: Mapping[str, tuple[Way, ...]] = NONE
    """by name, ways that are tried by attaching a program that does nothing"""
