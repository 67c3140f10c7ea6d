"""Policies in messages of clients: the gadgets of the kinds `policy` and `installed` of docs/protocol.md.

The file of installed policies and pinned descriptions contain them too, so agents also read older ones.
"""

from collections.abc import Mapping
from typing import ClassVar

from kubectl_gadget.wire.message import NONE, Base64, Bits, FilePath, Message, PathStep, Value

_RING_BYTES = 4 << 20


class Spot(Message):
    """A place in a file."""

    symbol: str | None = None
    """a function's name"""
    offset: int | None = None
    """in the file, in bytes"""
    address: int | None = None
    """in memory, as the file's program headers place it"""


class ProbePlace(Spot):
    """The places to attach a program in files. One of `symbol`, `offset`, `address`, or `provider` with `name`."""

    path: FilePath
    """as processes have it, in each root"""
    counter: int | None = None
    """offset of the reference counter that turns the probe on"""
    provider: str | None = None
    """of a USDT probe"""
    name: str | None = None
    """of a USDT probe"""
    digests: tuple[str, ...] = ()
    """`sha256:…` of the files; empty: any"""
    ignore_digests: bool = False
    """True if other files get the probe as well"""
    instead: tuple[Spot, ...] = ()
    """functions that run in the place of this one"""


class Way(Message):
    """A way to a hook (WAY): a program, and where it is attached."""

    program: str
    """its name in the object"""
    kind: str
    """`lsm`, `fentry`, `fexit`, `fmod_ret`, `kprobe`, `kprobe.multi`, `tracepoint`, `raw_tracepoint`, `uprobe`, …"""
    target: str
    """what it is attached to"""
    method: str = ""
    """what it can do there, for people"""
    variables: Mapping[str, Value] = NONE
    """of the object, beside the hook's"""
    same: tuple[str, str] | None = None
    """functions that must have the same prototype"""
    syscall: bool = False
    """True if the target is a system call's name"""
    record: bool = False
    """True if slots name fields of a tracepoint, by their number in its `format`"""
    machine: str = ""
    """architecture of the nodes that it is for; empty: all"""
    called: tuple[str, ...] = ()
    """it is used only for the first of these functions that the kernel has"""
    call: str = ""
    """the system call that the program is for; the target is the raw tracepoint of all calls"""
    also: tuple[str, ...] = ()
    """programs that are attached at the same place"""
    place: ProbePlace | None = None
    """of `uprobe` and `usdt`"""


class Remedy(Message):
    """A remedy for a hook that has no way."""

    text: str
    """for people"""
    ways: tuple[Way, ...] = ()
    """the node must accept one of them for the remedy to help; empty: it always helps"""


class Resolve(Message):
    """The way to resolve a slot with the node's BTF."""

    slot: int
    """its number"""
    index: int = 0
    """of the parameter"""
    source: str
    """where `path` begins: `parameter`, `return`, `task` or `registers`"""
    struct: str | None = None
    """the type that it points to, where the prototype does not say"""
    path: tuple[PathStep, ...] = ()
    """members, and places in arrays, that lead to the value"""
    auto: bool = False
    """True if the agent sets the slot's type"""
    compared: str | None = None
    """`number` or `text`: what the value is compared with"""
    module: str = ""
    """kernel module whose types are used"""
    btf: FilePath = ""
    """file of the node with the types"""


class SameFile(Message):
    """A file that the agent looks for in every container's root."""

    test: int
    """number of the test that compares with it"""
    path: FilePath
    """in each root"""
    selectors: Base64
    """the set of selectors, little-endian"""


class PolicyHookSpec(Message):
    """A hook of policies (HOOK)."""

    name: str
    """for people"""
    words: int
    """size of a set of selectors, in u64"""
    variables: Mapping[str, Value]
    """of the object, by name"""
    ways: tuple[Way, ...]
    """the first that loads and attaches is taken"""
    selectors: tuple[int, ...]
    """for each bit the scope that it is for; -1: none"""
    workloads: Mapping[int, tuple[int, ...]] = NONE
    """for some bits, further scopes that must all match"""
    unsure: tuple[int, ...] = ()
    """bits that apply while it is unknown whether these scopes match"""
    tables: Mapping[str, Base64] = NONE
    """by map, keys and values in turn; `NAME@MACHINE`: for that architecture alone"""
    limited: int = 0
    """entries of the map that limits how often events are posted"""
    optional: bool = False
    """True if it is left out where it has no way"""
    remedies: tuple[Remedy, ...] = ()
    """remedies if it has no way"""
    resolve: tuple[Resolve, ...] = ()
    """slots that are resolved with the node's BTF"""
    files: tuple[SameFile, ...] = ()
    """files that the hook compares with"""
    whole: bool = False
    """True if events may have buffers of up to 327,360 bytes"""
    mappings: bool = False
    """True if the agent opens perf events, so that the kernel reports mappings"""
    functions: str | None = None
    """pattern of the functions that the program is attached to; empty: system calls; null: it has a target"""
    mirrors: str = ""
    """the hook that this is for, for 32-bit programs; it is left out if another one of that hook has all variants"""
    policies: tuple[int, ...] = ()
    """of installed policies: for each bit the policy's place in the list; -1: none"""
    metadata: Mapping[str, object] = NONE
    """of installed policies: what records mean (wire/record_reader.py)"""


class ContainerCondition(Message):
    """A line of a scope's conditions."""

    key: str
    """`name`, `repo` or `namespace` of a container"""
    operator: str
    """`In`, `NotIn`, `Exists` or `DoesNotExist`"""
    values: tuple[str, ...] = ()
    """what it is compared with"""


def repository(image: str) -> str:
    """Returns the `repo` of an image: its name without tag and digest, such as docker.io/library/nginx."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


class ScopeSpec(Message):
    """The scope of a policy (SCOPE)."""

    pods: bool
    """True if it is for pods"""
    host: bool
    """True if it is for the node's own processes"""
    namespaces: tuple[str, ...] | None = None
    """of the pods; null: all"""
    containers: tuple[ContainerCondition, ...] = ()
    """conditions that must all hold"""
    by_labels: bool = False
    """True if labels of pods count, which the client sends"""
    by_node: bool = False
    """True if labels of the node count, which the client sends"""


class LabelScopes(Message):
    """The scopes that match by labels."""

    node: tuple[int, ...]
    """the node's"""
    pods: Mapping[str, tuple[int, ...] | None]
    """the pods', by UID or NAMESPACE/NAME; null: removed"""


class ProcessesSpec(Message):
    """The data to remember of processes at their exec."""

    followed: Base64
    """programs: keys of `policy_prefixes` and numbers from 1 (u64) in turn"""


class PolicySpec(Message):
    """All policies of a session, or of the installed file (POLICIES)."""

    KINDS: ClassVar[tuple[str, ...]] = ("policy",)

    name: str
    """for people and for `--gadgets`"""
    kind: str
    """`policy`"""
    object: int = 0
    """number of its OBJECT frame: policy.bpf.o, which is loaded once for each hook"""
    ring_bytes: int = _RING_BYTES
    """size of the ring buffer, which all hooks share"""
    scopes: tuple[ScopeSpec, ...]
    """by which selectors are numbered"""
    hooks: tuple[PolicyHookSpec, ...]
    """in the order in which they are attached"""
    follows: bool = False
    """True if files are followed to their last close"""
    stacks: bool = False
    """True if STACKS are sent"""
    tracks: bool = False
    """True if sockets have owners"""
    labels: LabelScopes | None = None
    """as in UPDATE; null: not known yet"""
    processes: ProcessesSpec | None = None
    """what is remembered of processes"""
    kill: Mapping[int, Bits] = NONE
    """by hook, the selectors for whose events the agent kills the process"""
    requests: Mapping[int, Mapping[int, tuple[tuple[str, str], ...]]] = NONE
    """by hook and bit: `["url", URL]` that is fetched and `["name", NAME]` that is looked up"""


class InstalledSpec(Message):
    """The installed policies' events (INSTALLED)."""

    KINDS: ClassVar[tuple[str, ...]] = ("installed",)

    name: str
    """for people and for `--gadgets`"""
    kind: str
    """`installed`"""
    object: int = 0
    """number of its OBJECT frame, which is empty"""


class InstalledPolicy(Message):
    """A policy of the installed file."""

    name: str
    """of the policy"""
    namespace: str | None = None
    """null: a cluster-wide policy"""
    enforces: bool = False
    """True if it does more than observe"""

    @property
    def title(self) -> str:
        """NAME or NAMESPACE/NAME, for people."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class InstalledFile(Message):
    """`set.json` in the file of installed policies."""

    format: int
    """version of records and of this file"""
    owner: str = ""
    """UID of the ConfigMap's namespace, whose deployment the policies belong to"""
    digest: str
    """of the file's contents; empty: nothing is installed"""
    policies: tuple[InstalledPolicy, ...]
    """in the order by which hooks number them"""
    spec: PolicySpec
    """all hooks, as in RUN"""
