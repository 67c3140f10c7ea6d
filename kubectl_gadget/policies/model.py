"""A policy after everything that YAML leaves open is resolved: macros, lists, defaults, names of numbers.

`policies.read.policy_files` makes these from YAML; the BPF engine takes them. A hook here has one target: an entry of
the YAML with a list of system calls or symbols becomes one hook for each.

How a policy decides (`tests/policies/oracle.py` implements this text):

- A hook without selectors matches every call. Otherwise its selectors are tried in order. The first that matches
  determines the `actions` and whether there is an event.
- A selector matches when all its filters do. With `returns`, the event is sent at the return: among the selectors that
  matched at the call, the first whose `return_filters` match counts, and its `return_actions` are carried out.
- A filter matches when its test holds for any of its values; with `negated`, when it holds for none. A value that could
  not be read never matches, negated or not.
- Without actions, an event is posted.

The trap: `HookFilter.subject.position` counts the hook's `arguments` here, from 0. In the YAML, `index` counts the
function's parameters from 0, and `sizeArgIndex` counts them from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from kubectl_gadget.kube.selectors import Requirement
from kubectl_gadget.wire.policy_messages import ContainerCondition, ScopeSpec
from kubectl_gadget.yaml_files import Place

HookKind = Literal["kprobe", "fentry", "tracepoint", "raw_tracepoint", "uprobe", "usdt", "lsm", "loader"]
Mode = Literal["enforce", "monitor"]
OverrideMethod = Literal["fmod-ret", "override-return"]
Source = Literal["parameter", "current_task", "registers"]
"""Source of an argument: the function's parameters, the task's `task_struct`, or the `pt_regs` at the probe."""

SubjectKind = Literal[
    "argument",  # position: in Hook.arguments
    "data",  # position: in Hook.data
    "return",
    "pid",  # of the process (thread group)
    "binary",
    "parent_binary",
    "namespace",  # name: as in NAMESPACES
    "namespace_change",  # test `mask` over NAMESPACES, bit 0 first: those that changed since exec
    "capability",  # name: as in CAPABILITY_SETS; test `mask`
    "capability_change",  # the same over the capabilities that differ from those at exec
    "workload",  # values: one Scope
]
Test = Literal[
    "equal",  # numbers, texts; a set of capabilities counts as a number
    "less",
    "greater",
    "range",  # Range, both ends included
    "mask",  # has any of the value's bits
    "prefix",
    "postfix",
    "substring",
    "substring_ignore_case",
    "glob",  # `*` and `?` within a component, `**` over components, `[a-z]`, `[!a-z]`
    "same_file",  # has the device and inode of the file that a path named in the container when the policy was loaded
    "source_address",  # a network; an IPv4-mapped IPv6 address is compared as IPv4
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
ENFORCING: tuple[ActionKind, ...] = ("Sigkill", "Signal", "Override")
"""Actions that deny a call or send a signal."""
_SIGNALS: dict[ActionKind, int] = {"Sigkill": 9}
"""Signals of the actions that always send the same one."""
ReturnAction = Literal["", "Post", "TrackSock", "UntrackSock"]
RateScope = Literal["thread", "process", "global"]

NAMESPACES = ("uts", "ipc", "mnt", "pid", "pid_for_children", "net", "time", "time_for_children", "cgroup", "user")
"""In the order of the bits that existing policies use."""
CAPABILITY_SETS = ("effective", "inheritable", "permitted")
HOST_NAMESPACE = "host_ns"
"""A value for a namespace, besides inode numbers: the namespace of the node's init process."""


NOWHERE = Place("-", 0, "")


@dataclass(frozen=True)
class Range:
    """Numbers from `first` to `last`, both included."""

    first: int
    last: int


Labels = tuple[Requirement, ...]
"""A label selector: all requirements have to hold. Empty: selects everything."""


@dataclass(frozen=True)
class Scope:
    """The scope of a policy or a selector; the end of this module has the meaning. None: not given."""

    namespace: str | None = None
    """the namespace of a TracingPolicyNamespaced"""
    pods: Labels | None = None
    containers: Labels | None = None
    """on the keys `name` and `repo`"""
    host: bool = False
    nodes: Labels | None = None


@dataclass(frozen=True)
class SystemCall:
    """A system call whose number depends on the architecture."""

    name: str
    """without `sys_`"""
    abi: Literal["", "i386", "arm32"] = ""
    """empty: the node's own 64-bit ABI"""


Value = int | str | Range | IPv4Network | IPv6Network | Scope | SystemCall


@dataclass(frozen=True)
class Note:
    """Something that is accepted but does not do what the author may expect."""

    place: Place
    text: str


@dataclass(frozen=True)
class Argument:
    """One value that a hook reads."""

    index: int
    """position among the function's parameters, from 0; meaningless for `returnArg` and `data`"""
    type: str
    """one of `policies.language.argument_types.ARGUMENT_TYPES`; `auto`: the type in the kernel's BTF"""
    label: str = ""
    size_index: int | None = None
    """the parameter, from 0, that holds the buffer's size"""
    return_copy: bool = False
    """the function fills the buffer, so it is read when the function returns"""
    max_data: bool = False
    resolve: tuple[str | int, ...] = ()
    """members and array elements to follow from the parameter: ("mm", "owner", "comm"), ("files", 3)"""
    source: Source = "parameter"
    btf_type: str = ""
    btf_module: str = ""


@dataclass(frozen=True)
class Subject:
    """The thing that a filter tests."""

    kind: SubjectKind
    position: int = 0
    name: str = ""
    in_namespace: bool = False
    """pids: as numbered in the process's own PID namespace, 0 in the node's; ancestors outside of it are left
    out. Capabilities: never matches in the node's user namespace"""
    other: int = 0
    """capabilities_gained: the position of the argument with the old set"""


@dataclass(frozen=True)
class HookFilter:
    """One test of one subject."""

    subject: Subject
    test: Test
    values: tuple[Value, ...]
    negated: bool = False
    follow: bool = False
    """pids: includes all descendants. Binaries: includes the processes that they started"""
    operator: str = ""
    """as written in the policy, for messages"""
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class RateLimit:
    """Limits events with the same arguments to one per interval, for each thread, for each process, or in total."""

    milliseconds: int
    scope: RateScope = "thread"


@dataclass(frozen=True)
class Register:
    """A register of one machine, by uname's name. `place` is its position in struct pt_regs, in words of 8 bytes."""

    machine: str
    place: int
    bytes: int = 8


@dataclass(frozen=True)
class Assignment:
    """A register's new value: the number, the number plus another register, the memory at that sum, or the address of
    the function with that number."""

    to: Register
    kind: Literal["number", "sum", "memory", "function"]
    number: int = 0
    source: Register | None = None


@dataclass(frozen=True)
class NewFunction:
    """A function in a program's file, given by one of the three."""

    symbol: str = ""
    address: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Action:
    """The action when a selector matches. Each kind uses only its own members."""

    kind: ActionKind
    error: int = 0
    """Override, NotifyEnforcer: what the call returns, negative for an error; NotifyEnforcer: 0 is none"""
    signal: int = 0
    """Signal, NotifyEnforcer; 0: none"""
    url: str = ""
    domain_name: str = ""
    descriptor: int = 0
    """FollowFD, UnfollowFD: the parameter with the file descriptor; CopyFD: the parameter with the old descriptor"""
    name: int = 0
    """FollowFD, UnfollowFD: the parameter with the file; CopyFD: the parameter with the new descriptor"""
    socket: int = 0
    """TrackSock, UntrackSock: the parameter"""
    argument: int = 0
    """Set"""
    value: int = 0
    """Set"""
    registers: tuple[Assignment, ...] = ()
    """Override of a uprobe; empty: the function returns `error`"""
    instead: NewFunction | None = None
    """Override of a uprobe: the function that runs instead"""
    rate_limit: RateLimit | None = None
    kernel_stack: bool = False
    user_stack: bool = False
    file_hash: bool = False
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def signal_sent(self) -> int:
        """Return the signal that the action sends; 0: none."""
        return self.signal if self.kind == "Signal" else _SIGNALS.get(self.kind, 0)


@dataclass(frozen=True)
class Selector:
    """Filters that all have to match, and the actions when they do."""

    filters: tuple[HookFilter, ...] = ()
    return_filters: tuple[HookFilter, ...] = ()
    actions: tuple[Action, ...] = ()
    return_actions: tuple[Action, ...] = ()
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def all_actions(self) -> tuple[Action, ...]:
        return self.actions + self.return_actions


@dataclass(frozen=True)
class UserProbe:
    """The place of a uprobe or a USDT probe. `Hook.target` describes it for people."""

    path: str
    """path of the binary; `in_container`: as seen from the container"""
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
    """Targets that only a node can list: its system calls, or its functions that match a pattern."""

    name: str
    kind: Literal["generated_syscalls", "generated_ftrace"]
    pattern: str = ""


@dataclass(frozen=True)
class Hook:
    """One place in the kernel or in a program, the values to read there, and the selectors."""

    kind: HookKind
    target: str
    """A function (`security_file_open`), a system call (`sys_write`; `syscall` is then True), a tracepoint
    (`syscalls/sys_enter_openat`), an LSM hook (`file_open`), a probe's text. Empty when `generated` gives the
    targets"""
    syscall: bool = False
    abi: Literal["", "i386", "arm32"] = ""
    """of a system call, as in SystemCall"""
    generated: Generated | None = None
    probe: UserProbe | None = None
    arguments: tuple[Argument, ...] = ()
    data: tuple[Argument, ...] = ()
    returns: bool = False
    """the event is sent when the function returns, and includes the return value"""
    return_argument: Argument | None = None
    return_argument_action: ReturnAction = ""
    selectors: tuple[Selector, ...] = ()
    message: str = ""
    tags: tuple[str, ...] = ()
    ignore_missing: bool = False
    """`ignore.callNotFound`: a kernel without this target is not an error"""
    mirrors: str = ""
    """for a hook that the policy does not name: `target` is the kernel's function for calls of 32-bit programs, and
    this is the 64-bit call for which the policy has a hook"""
    place: Place = field(default=NOWHERE, compare=False)

    @property
    def all_actions(self) -> tuple[Action, ...]:
        return tuple(action for selector in self.selectors for action in selector.all_actions)


@dataclass(frozen=True)
class PolicyOptions:
    """`spec.options` that have an effect here. None: not given."""

    mode: Mode | None = None
    override_method: OverrideMethod | None = None


@dataclass(frozen=True)
class Policy:
    """One TracingPolicy or TracingPolicyNamespaced."""

    name: str
    scope: Scope = Scope()
    hooks: tuple[Hook, ...] = ()
    options: PolicyOptions = PolicyOptions()
    enforcer_calls: tuple[SystemCall | str, ...] = ()
    """the system calls, and `security_…` functions, that `NotifyEnforcer` may deny"""
    enforcer_generated: tuple[Generated, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[Note, ...] = field(default=(), compare=False)
    place: Place = field(default=NOWHERE, compare=False)
    names_no_namespace: bool = field(default=False, compare=False)
    """the YAML names no namespace; `namespace` is the reader's"""

    @property
    def namespace(self) -> str | None:
        """The policy's namespace; None for a TracingPolicy, which applies to the whole cluster."""
        return self.scope.namespace


# Scopes: what a policy or a selector applies to, by labels of pods and nodes, and by names and images of containers.
#
#     in the policy                           applies to
#     nothing                                 everything, including the node's own processes
#     podSelector or containerSelector        the containers that they select
#     hostSelector: {}                        the node's own processes
#     hostSelector: {} and one of the others  both
#     TracingPolicyNamespaced                 of all these, the pods of its namespace
#
# The client evaluates labels, which agents do not know, and tells them which scopes hold (run/labels.py); agents
# evaluate the rest (agent/policies/scopes.py). The trap: an empty podSelector, `{}`, selects all pods, and therefore
# excludes the node's own processes.


NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace"
"""A label that podSelectors see on every pod, so that they can select by namespace."""


def is_for_labels(scope: Scope, namespace: str, labels: Mapping[str, str]) -> bool:
    """Return True if the podSelector selects a pod of that namespace with these labels."""
    return selected(scope.pods, {NAMESPACE_LABEL: namespace, **labels})


def is_for_node(scope: Scope, labels: Mapping[str, str]) -> bool:
    """Return True if the policy applies to a node with these labels at all."""
    return selected(scope.nodes, labels)


def selected(selector: Labels | None, labels: Mapping[str, str]) -> bool:
    """Return True if all requirements of a label selector hold; True when there is no selector."""
    return all(requirement.accepts(labels) for requirement in selector or ())


def by_labels(scope: Scope) -> bool:
    """Return True if the scope depends on labels of pods."""
    return any(requirement.key != NAMESPACE_LABEL for requirement in scope.pods or ())


def by_node(scope: Scope) -> bool:
    """Return True if the scope depends on labels of nodes."""
    return bool(scope.nodes)


def scope_spec(scope: Scope) -> ScopeSpec:
    """The scope as agents evaluate it: SCOPE of docs/protocol.md."""
    chosen = scope.pods is not None or scope.containers is not None
    only_host = scope.host and not chosen
    names = (requirement for requirement in scope.pods or () if requirement.key == NAMESPACE_LABEL)
    return ScopeSpec(
        pods=not only_host or scope.namespace is not None,
        host=scope.namespace is None and (scope.host or not chosen),
        namespaces=None if scope.namespace is None else (scope.namespace,),
        containers=tuple(_condition(requirement) for requirement in (*names, *(scope.containers or ()))),
        by_labels=by_labels(scope),
        by_node=by_node(scope),
    )


def _condition(requirement: Requirement) -> ContainerCondition:
    key = "namespace" if requirement.key == NAMESPACE_LABEL else requirement.key
    return ContainerCondition(key=key, operator=requirement.operator, values=requirement.values)
