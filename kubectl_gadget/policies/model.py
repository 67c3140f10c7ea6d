"""A policy as it is meant, after all that YAML leaves open was settled: macros, lists, defaults, names of numbers.

`policies.read.policies` makes these from YAML; the BPF engine takes them. A hook has one
target here: an entry of the YAML with a list of system calls or symbols becomes one hook for each.

How a policy decides (`tests/policies/model` is this text as code):

- A hook without selectors takes every call. Otherwise its selectors are asked in their order and the first that matches
  counts, for its `actions` and for whether there is an event.
- A selector matches when all its filters do. With `returns`, the event is sent at the return: there, of the selectors
  that matched at the call, the first whose `return_filters` match counts, and its `return_actions` are carried out.
- A filter matches when its test holds for any of its values; with `negated`, when it holds for none. What could not be
  read is never a match, negated or not.
- Without actions, an event is posted.

The trap: `Filter.subject.position` counts the hook's `arguments` here, from 0. In the YAML, `index` counts the
function's parameters, and `sizeArgIndex` does so from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from kubectl_gadget.kube.label_selectors import Requirement

HookKind = Literal["kprobe", "fentry", "tracepoint", "raw_tracepoint", "uprobe", "usdt", "lsm", "loader"]
Mode = Literal["enforce", "monitor"]
Source = Literal["parameter", "current_task", "registers"]
"""Where an argument comes from: the function's parameters, the task's `task_struct`, the `pt_regs` at the probe."""

SubjectKind = Literal[
    "argument",  # position: in Hook.arguments
    "data",  # position: in Hook.data
    "return",
    "pid",  # of the process (thread group)
    "binary",
    "parent_binary",
    "namespace",  # name: as in NAMESPACES
    "namespace_change",  # test `mask` over NAMESPACES, bit 0 first: those that have changed since exec
    "capability",  # name: as in CAPABILITY_SETS; test `mask`
    "capability_change",  # the same over the bits that differ from those at exec
    "workload",  # values: one Scope
]
Test = Literal[
    "equal",  # numbers, texts; a set of capabilities is a number here
    "less",
    "greater",
    "range",  # Range, both ends are part of it
    "mask",  # has any of the value's bits
    "prefix",
    "postfix",
    "substring",
    "substring_ignore_case",
    "glob",  # `*` and `?` within a component, `**` over components, `[a-z]`, `[!a-z]`
    "same_file",  # is the file, by device and inode, that a path names in the container when the policy is loaded
    "source_address",  # a network; an IPv4-mapped IPv6 address is looked at as IPv4
    "destination_address",
    "source_port",  # Range
    "destination_port",
    "protocol",  # a number
    "family",
    "state",
    "file_type",  # the S_IFMT bits of i_mode
    "capabilities_gained",  # has a capability that the argument `Subject.other` lacks. No values
    "expression",  # CEL over argN
]
ActionKind = Literal[
    "Post",
    "NoPost",
    "Sigkill",
    "Signal",
    "Override",
    "NotifyEnforcer",
    "CleanupEnforcerNotification",
    "GetUrl",
    "DnsLookup",
    "TrackSock",
    "UntrackSock",
    "Set",
    "FollowFD",
    "UnfollowFD",
    "CopyFD",
]
ReturnAction = Literal["", "Post", "TrackSock", "UntrackSock"]
RateScope = Literal["thread", "process", "global"]

NAMESPACES = ("uts", "ipc", "mnt", "pid", "pid_for_children", "net", "time", "time_for_children", "cgroup", "user")
"""In the order of the rival's bits."""
CAPABILITY_SETS = ("effective", "inheritable", "permitted")
HOST_NAMESPACE = "host_ns"
"""A value for a namespace, beside its inode number: that of the node's init process."""


@dataclass(frozen=True)
class Place:
    """Where something stands in what the user wrote."""

    file: str
    line: int
    """from 1"""
    path: str
    """spec.kprobes[0].selectors[1]"""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path}".rstrip()


NOWHERE = Place("-", 0, "")


@dataclass(frozen=True)
class Range:
    """Numbers from `first` to `last`, both included."""

    first: int
    last: int


Labels = tuple[Requirement, ...]
"""A label selector: all of them hold. Empty: everything."""


@dataclass(frozen=True)
class Scope:
    """Whom a policy, or a selector, is for. None: was not said. What that means: `policies.scope_labels`."""

    namespace: str | None = None
    """of a TracingPolicyNamespaced"""
    pods: Labels | None = None
    containers: Labels | None = None
    """over the keys `name` and `repo`"""
    host: bool = False
    nodes: Labels | None = None


@dataclass(frozen=True)
class SystemCall:
    """A system call whose number is another one on each architecture."""

    name: str
    """without `sys_`"""
    abi: Literal["", "i386", "arm32"] = ""
    """empty: the node's own, 64-bit"""


Value = int | str | Range | IPv4Network | IPv6Network | Scope | SystemCall


@dataclass(frozen=True)
class Note:
    """Something that is accepted and does not do what its writer may expect."""

    place: Place
    text: str


@dataclass(frozen=True)
class Argument:
    """One value that a hook reads."""

    index: int
    """of the function's parameters, from 0; of `returnArg` and of `data` it says nothing"""
    type: str
    """one of `policies.read.argument_types.ARGUMENT_TYPES`; `auto` is what the kernel's BTF says"""
    label: str = ""
    size_index: int | None = None
    """the parameter, from 0, that has a buffer's size"""
    return_copy: bool = False
    """the buffer is filled by the function, so it is read when it returns"""
    max_data: bool = False
    resolve: tuple[str | int, ...] = ()
    """members and array elements to follow from the parameter: ("mm", "owner", "comm"), ("files", 3)"""
    source: Source = "parameter"
    btf_type: str = ""
    btf_module: str = ""


@dataclass(frozen=True)
class Subject:
    """What a filter looks at."""

    kind: SubjectKind
    position: int = 0
    name: str = ""
    in_namespace: bool = False
    """pids: as the process's own PID namespace counts, 0 in that of the node; ancestors outside of it are left out.
    Capabilities: no match in the node's user namespace"""
    other: int = 0
    """capabilities_gained: the position of the argument with the old set"""


@dataclass(frozen=True)
class Filter:
    """A test of one subject."""

    subject: Subject
    test: Test
    values: tuple[Value, ...]
    negated: bool = False
    follow: bool = False
    """pids: with all their descendants. Binaries: with the processes that they started"""
    operator: str = ""
    """as it was written, for messages"""
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class RateLimit:
    """Of the events with the same arguments, one in so many milliseconds for each thread, process, or for all."""

    milliseconds: int
    scope: RateScope = "thread"


@dataclass(frozen=True)
class Register:
    """Of a machine, as uname says it. `place` is in struct pt_regs, in words of 8 bytes."""

    machine: str
    place: int
    bytes: int = 8


@dataclass(frozen=True)
class Assignment:
    """A register's new value: the number, its sum with another register, what lies in memory at that sum, or where the
    function with that number is."""

    to: Register
    kind: Literal["number", "sum", "memory", "function"]
    number: int = 0
    source: Register | None = None


@dataclass(frozen=True)
class NewFunction:
    """A function of a program's file, by one of the three."""

    symbol: str = ""
    address: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Action:
    """What happens when a selector matches. Only the members of its kind say something."""

    kind: ActionKind
    error: int = 0
    """Override, NotifyEnforcer: what the call returns, negative for an error; NotifyEnforcer: 0 is none"""
    signal: int = 0
    """Signal, NotifyEnforcer; 0: none"""
    url: str = ""
    domain_name: str = ""
    descriptor: int = 0
    """FollowFD and its like: the parameter with the file descriptor, of CopyFD the old one"""
    name: int = 0
    """FollowFD, UnfollowFD: the parameter with the file; CopyFD: that with the new descriptor"""
    socket: int = 0
    """TrackSock, UntrackSock: the parameter"""
    argument: int = 0
    """Set"""
    value: int = 0
    """Set"""
    registers: tuple[Assignment, ...] = ()
    """Override of a uprobe; none: the function returns `error`"""
    instead: NewFunction | None = None
    """Override of a uprobe: the function that runs in the place of its own"""
    rate_limit: RateLimit | None = None
    kernel_stack: bool = False
    user_stack: bool = False
    file_hash: bool = False
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Selector:
    """Filters that all have to match, and what follows when they do."""

    label: str = ""
    filters: tuple[Filter, ...] = ()
    return_filters: tuple[Filter, ...] = ()
    actions: tuple[Action, ...] = ()
    return_actions: tuple[Action, ...] = ()
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def all_actions(self) -> tuple[Action, ...]:
        """At the call and at the return."""
        return self.actions + self.return_actions


@dataclass(frozen=True)
class UserProbe:
    """Where a uprobe or a USDT probe goes. `Hook.target` is its text for people."""

    path: str
    """of the binary; `in_container`: as the container sees it"""
    symbol: str = ""
    offset: int | None = None
    address: int | None = None
    reference_counter: int | None = None
    provider: str = ""
    name: str = ""
    btf_path: str = ""
    digests: tuple[str, ...] = ()
    ignore_digest_failure: bool = False
    in_container: bool = False


@dataclass(frozen=True)
class Generated:
    """Targets that only a node can name: its system calls, or its functions that match a pattern."""

    name: str
    kind: Literal["generated_syscalls", "generated_ftrace"]
    pattern: str = ""


@dataclass(frozen=True)
class Hook:
    """One place in the kernel or in a program, what is read there, and the selectors."""

    kind: HookKind
    target: str
    """A function (`security_file_open`), a system call (`sys_write`; `syscall` is True then), a tracepoint
    (`syscalls/sys_enter_openat`), an LSM hook (`file_open`), a probe's text. Empty when `generated` stands for many"""
    syscall: bool = False
    abi: Literal["", "i386", "arm32"] = ""
    """of a system call, as in SystemCall"""
    generated: Generated | None = None
    probe: UserProbe | None = None
    arguments: tuple[Argument, ...] = ()
    data: tuple[Argument, ...] = ()
    returns: bool = False
    """the event is sent when the function returns, with what it returned"""
    return_argument: Argument | None = None
    return_argument_action: ReturnAction = ""
    selectors: tuple[Selector, ...] = ()
    message: str = ""
    tags: tuple[str, ...] = ()
    ignore_missing: bool = False
    """`ignore.callNotFound`: a kernel without this target is not an error"""
    mirrors: str = ""
    """not written in the policy: `target` is the kernel's function for calls of 32-bit programs, and this the 64-bit
    call that a hook of the policy stands at"""
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def all_actions(self) -> tuple[Action, ...]:
        """Of all its selectors."""
        return tuple(action for selector in self.selectors for action in selector.all_actions)


@dataclass(frozen=True)
class PolicyOptions:
    """`spec.options`. None: was not said."""

    mode: Mode | None = None
    override_method: Literal["fmod-ret", "override-return"] | None = None
    disable_kprobe_multi: bool = False
    disable_uprobe_multi: bool = False
    sleepable_preload_size: int | None = None


@dataclass(frozen=True)
class Policy:
    """One TracingPolicy or TracingPolicyNamespaced."""

    name: str
    scope: Scope = Scope()
    hooks: tuple[Hook, ...] = ()
    options: PolicyOptions = PolicyOptions()
    enforcer_calls: tuple[SystemCall | str, ...] = ()
    """the system calls, and functions `security_…`, that `NotifyEnforcer` may deny"""
    enforcer_generated: tuple[Generated, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[Note, ...] = field(default=(), compare=False)
    place: Place = field(default=NOWHERE, compare=False)
    names_no_namespace: bool = field(default=False, compare=False)
    """its namespace is that of who read it"""

    @property
    def namespace(self) -> str | None:
        """None for a TracingPolicy, which is for the whole cluster."""
        return self.scope.namespace
