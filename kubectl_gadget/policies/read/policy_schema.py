"""What a TracingPolicy may say: every field with its kind, its default and what it is for. The one source for reading
(`document.py` refuses what is not here) and for `kubectl gadget policy explain`.

Names follow the API of cilium.io/v1alpha1; a field that only we have says so. The trap: `syscall` is true by default.
"""

from dataclasses import dataclass
from typing import Literal

from kubectl_gadget.policies.model import NAMESPACES
from kubectl_gadget.policies.read.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.read.operators import ARGUMENT_OPERATORS, BINARY_OPERATORS, SET_OPERATORS

Kind = Literal[
    "text",
    "flag",
    "number",
    "values",
    "texts",
    "object",
    "objects",
    "text map",
    "object map",
    "anything",
    "unsupported",
]
"""`values` are scalars whose meaning another field settles; the maps have free keys; `anything` is not looked into;
`unsupported` is refused, for the reason that the description gives."""

API_VERSION = "cilium.io/v1alpha1"
POLICY_KINDS = ("TracingPolicy", "TracingPolicyNamespaced")
NAMESPACE_NAMES = {"".join(word.capitalize() for word in name.split("_")): name for name in NAMESPACES}
"""As they are written: Uts, PidForChildren, …"""


@dataclass(frozen=True)
class SchemaField:
    """One field of an object."""

    name: str
    kind: Kind
    description: str
    fields: tuple["SchemaField", ...] = ()
    required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()


def _labels(name: str, description: str) -> SchemaField:
    expressions = (
        SchemaField("key", "text", "The label.", required=True),
        SchemaField(
            "operator",
            "text",
            "NotIn and DoesNotExist also select what has no such label.",
            required=True,
            choices=("In", "NotIn", "Exists", "DoesNotExist"),
        ),
        SchemaField("values", "texts", "For In and NotIn: any of them."),
    )
    return SchemaField(
        name,
        "object",
        description,
        (
            SchemaField("matchLabels", "text map", "Labels and their values; all have to be there."),
            SchemaField("matchExpressions", "objects", "Conditions on labels; all have to hold.", expressions),
        ),
    )


_POD_SELECTOR = _labels("podSelector", "Pods by their labels. With it, the host's processes are left out.")
_CONTAINER_SELECTOR = _labels(
    "containerSelector",
    "Containers by the keys `name` (the container's name in the pod) and `repo` (its image's repository, without tag).",
)
_HOST_SELECTOR = _labels(
    "hostSelector",
    "Absent, or {} for the processes of the node itself. Alone it leaves the pods out; not for a "
    "TracingPolicyNamespaced.",
)

_ARGUMENT = (
    SchemaField(
        "index",
        "number",
        "Which one, from 0: of the parameters of a function, an LSM hook or a probe, of the fields of a tracepoint (as "
        "its `format` lists them), or of the parameters of a raw tracepoint.",
        default="0",
    ),
    SchemaField(
        "type",
        "text",
        "What it is, which settles how it is read, shown and compared.",
        default="auto",
        choices=tuple(ARGUMENT_TYPES),
    ),
    SchemaField("label", "text", "A name for it in the output."),
    SchemaField(
        "sizeArgIndex",
        "number",
        "For char_buf, char_iovec and const_buf: the parameter with the size. Counted from 1, unlike `index`.",
    ),
    SchemaField(
        "returnCopy",
        "flag",
        "The function fills the buffer, so it is read at the return. What the function returns is its size then.",
        default="false",
    ),
    SchemaField(
        "maxData",
        "flag",
        "For char_buf, const_buf and iov_iter: up to 327,360 bytes and not just 4,095, which are all that filters see.",
        default="false",
    ),
    SchemaField(
        "resolve",
        "text",
        "A way to a member of the structure, by BTF: `mm.owner.comm`, `files[3].name`. Pointers are followed.",
    ),
    SchemaField(
        "source",
        "text",
        "For `data`: the current task's task_struct, or the registers at the probe.",
        choices=("current_task", "pt_regs"),
    ),
    SchemaField("btfType", "text", "The structure to start `resolve` from: the argument is a pointer to it."),
    SchemaField("btfTypeModule", "text", "The kernel module whose BTF has `btfType`."),
)

_COMPARISON = (
    SchemaField(
        "index",
        "number",
        "The argument, as its own `index` says. In `matchData`: the position in `data`.",
        default="0",
    ),
    SchemaField("args", "values", "The argument by its position in the list `args`, from 0. Goes before `index`."),
    SchemaField("operator", "text", "How it is compared.", required=True, choices=ARGUMENT_OPERATORS),
    SchemaField(
        "values",
        "values",
        "What it is compared with: any of them for Equal, Prefix and their like, none of them for NotEqual, NotPrefix "
        "and theirs. Numbers are decimal, 0x… or 0…; names (CAP_SYS_ADMIN, AF_INET, -EPERM) where the type has them; "
        "`list:NAME` takes the values of a list.",
    ),
)

_BINARIES = (
    SchemaField("operator", "text", "How the path is compared.", required=True, choices=BINARY_OPERATORS),
    SchemaField("values", "values", "Absolute paths. A script runs as its interpreter.", required=True),
    SchemaField(
        "followChildren",
        "flag",
        "Also the processes that such a binary started, and theirs. Only for In and NotIn.",
        default="false",
    ),
)

_CAPABILITIES = (
    SchemaField(
        "type",
        "text",
        "Which of the task's sets.",
        default="Effective",
        choices=("Effective", "Inheritable", "Permitted"),
    ),
    SchemaField("operator", "text", "In: has one of them. NotIn: has none.", required=True, choices=SET_OPERATORS),
    SchemaField(
        "isNamespaceCapability",
        "flag",
        "Only in user namespaces other than the node's.",
        default="false",
    ),
    SchemaField("values", "values", "Capabilities by name, such as CAP_SYS_ADMIN.", required=True),
)

_ACTION = (
    SchemaField(
        "action",
        "text",
        "What happens. Post sends an event, and is what happens without any action; NoPost sends none. Sigkill and "
        "Signal send a signal. Override makes the call fail before it does anything. NotifyEnforcer has a system call "
        "denied that `enforcers` names. The others: see their parameters.",
        required=True,
        choices=(
            *("Post", "NoPost", "Sigkill", "Signal", "Override", "NotifyEnforcer", "CleanupEnforcerNotification"),
            *("GetUrl", "DnsLookup", "TrackSock", "UntrackSock", "Set", "FollowFD", "UnfollowFD", "CopyFD"),
        ),
    ),
    SchemaField(
        "argError", "number", "Override, NotifyEnforcer: what the call returns: -1 is -EPERM. Names are allowed."
    ),
    SchemaField("argSig", "number", "Signal, NotifyEnforcer: the signal, 9 or SIGKILL."),
    SchemaField(
        "argUrl", "text", "GetUrl: the agent asks for this http or https URL afterwards, to ring a bell elsewhere."
    ),
    SchemaField("argFqdn", "text", "DnsLookup: the agent looks this name up afterwards."),
    SchemaField(
        "argSock",
        "number",
        "TrackSock: events about the socket are its owner's from now on; UntrackSock: no more. The parameter with it.",
    ),
    SchemaField(
        "argFd", "number", "FollowFD, UnfollowFD, CopyFD: the parameter with the file descriptor; CopyFD: the old one."
    ),
    SchemaField(
        "argName", "number", "FollowFD, UnfollowFD: the parameter with the file. CopyFD: that with the new descriptor."
    ),
    SchemaField("argIndex", "number", "Set: the parameter of a USDT probe that is overwritten, if it lies in memory."),
    SchemaField("argValue", "number", "Set: with what."),
    SchemaField("argRegs", "texts", "Override of a uprobe: registers and their new values, `rax=0`."),
    SchemaField("argNewSymbol", "text", "Override of a uprobe: the function that runs in its place."),
    SchemaField("argNewAddr", "number", "The same by its address in the binary."),
    SchemaField("argNewOffset", "number", "The same by its offset in the file."),
    SchemaField(
        "sopath",
        "unsupported",
        "It would load a library into programs. What argNew… name has to be in the hooked file.",
    ),
    SchemaField(
        "rateLimit",
        "text",
        "Post: of the events with the same arguments only one in this time: 5 (seconds), 30s, 5m, 1h.",
    ),
    SchemaField(
        "rateLimitScope",
        "text",
        "Whether each thread has a limit of its own, each process, or all have one.",
        default="thread",
        choices=("thread", "process", "global"),
    ),
    SchemaField("kernelStackTrace", "flag", "Post: with the kernel's stack.", default="false"),
    SchemaField("userStackTrace", "flag", "Post: with the program's stack.", default="false"),
    SchemaField(
        "imaHash", "flag", "Post, on LSM hooks: with the hash that the kernel's IMA has of the file.", default="false"
    ),
)

SELECTOR = (
    SchemaField("label", "text", "A name for the selector."),
    SchemaField(
        "matchPIDs",
        "objects",
        "Processes by their ids.",
        (
            SchemaField("operator", "text", "In or NotIn.", required=True, choices=SET_OPERATORS),
            SchemaField("values", "values", "Process ids.", required=True),
            SchemaField(
                "isNamespacePID",
                "flag",
                "The ids are those of the process's own PID namespace: 1 is the container's first process. A process "
                "of the node's own namespace has 0.",
                default="false",
            ),
            SchemaField("followForks", "flag", "Also all descendants of these processes.", default="false"),
        ),
    ),
    SchemaField("matchArgs", "objects", "Conditions on arguments; all have to hold.", _COMPARISON),
    SchemaField("matchData", "objects", "Conditions on `data`; all have to hold.", _COMPARISON),
    SchemaField("matchReturnArgs", "objects", "Conditions on what the function returned.", _COMPARISON),
    SchemaField("matchBinaries", "objects", "The binary that the process runs.", _BINARIES),
    SchemaField("matchParentBinaries", "objects", "The binary that the parent process runs.", _BINARIES),
    SchemaField(
        "matchNamespaces",
        "objects",
        "The namespaces that the task is in; all have to hold.",
        (
            SchemaField("namespace", "text", "Which kind.", required=True, choices=tuple(NAMESPACE_NAMES)),
            SchemaField("operator", "text", "In or NotIn.", required=True, choices=SET_OPERATORS),
            SchemaField("values", "values", "Inode numbers, as lsns shows them, or host_ns.", required=True),
        ),
    ),
    SchemaField(
        "matchNamespaceChanges",
        "objects",
        "Namespaces that are no longer those in which the process's program was started.",
        (
            SchemaField(
                "operator",
                "text",
                "In: one of these has changed. NotIn: one of the others has.",
                required=True,
                choices=SET_OPERATORS,
            ),
            SchemaField("values", "values", "Kinds of namespaces, such as Mnt and User.", required=True),
        ),
    ),
    SchemaField("matchCapabilities", "objects", "The task's capabilities; all have to hold.", _CAPABILITIES),
    SchemaField(
        "matchCapabilityChanges",
        "objects",
        "Capabilities that are no longer those with which the process's program was started. In: one of these has "
        "changed. NotIn: none of these, but another one has.",
        _CAPABILITIES,
    ),
    SchemaField(
        "matchWorkloads",
        "object",
        "For which pods, containers or hosts this selector is, within those of the policy.",
        (_POD_SELECTOR, _CONTAINER_SELECTOR, _HOST_SELECTOR),
    ),
    SchemaField("macros", "texts", "Names out of selectorsMacros, whose filters are added to this selector's."),
    SchemaField("matchActions", "objects", "What happens when the selector matches. Nothing said: Post.", _ACTION),
    SchemaField("matchReturnActions", "objects", "What happens at the return when matchReturnArgs hold.", _ACTION),
)

_ARGS = SchemaField("args", "objects", "The arguments that are read, in the order of the output.", _ARGUMENT)
_DATA = SchemaField("data", "objects", "Other values that are read: see `source`.", _ARGUMENT)
_SELECTORS = SchemaField(
    "selectors",
    "objects",
    "Asked in their order; the first whose filters all hold decides. Without selectors each call is an event.",
    SELECTOR,
)
_MESSAGE = SchemaField("message", "text", "A sentence for people that every event of this hook carries.")
_TAGS = SchemaField("tags", "texts", "Words that every event of this hook carries.")
_RETURN = SchemaField("return", "flag", "The event is sent at the return, with what was returned.", default="false")
_RETURN_ARG = SchemaField(
    "returnArg", "object", "What the returned value is: its type. Needed with `return`.", _ARGUMENT
)

_FUNCTION = (
    SchemaField(
        "call",
        "text",
        "A function of the kernel; a system call as sys_NAME, of 32-bit programs as i386/sys_NAME; or list:NAME.",
        required=True,
    ),
    SchemaField(
        "syscall", "flag", "Whether `call` is a system call, whose arguments are found elsewhere.", default="true"
    ),
    _RETURN,
    _MESSAGE,
    _ARGS,
    _DATA,
    _RETURN_ARG,
    SchemaField(
        "returnArgAction",
        "text",
        "What is done with the returned value, a socket: its process is remembered or forgotten.",
        choices=("Post", "TrackSock", "UntrackSock"),
    ),
    _SELECTORS,
    _TAGS,
    SchemaField(
        "ignore",
        "object",
        "What is no error.",
        (SchemaField("callNotFound", "flag", "The kernel has no such function.", default="false"),),
    ),
)

_TRACEPOINT = (
    SchemaField("subsystem", "text", "The folder in /sys/kernel/tracing/events.", required=True),
    SchemaField("event", "text", "The tracepoint in it.", required=True),
    SchemaField(
        "raw",
        "flag",
        "A raw tracepoint: arguments are those of its TP_PROTO, and it costs less.",
        default="false",
    ),
    _MESSAGE,
    _ARGS,
    _SELECTORS,
    _TAGS,
)

_PROBE_FILE = (
    SchemaField("path", "text", "The program or library.", required=True),
    SchemaField("btfPath", "text", "A file of the node with its BTF, for `resolve`, which needs `btfType`."),
)

_UPROBE = (
    *_PROBE_FILE,
    SchemaField("symbols", "texts", "Functions. One of symbols, offsets and addrs."),
    SchemaField("offsets", "values", "Offsets in the file."),
    SchemaField("addrs", "values", "Virtual addresses, as the symbol table has them."),
    SchemaField("refCtrOffsets", "values", "Offsets of the counters that switch the probes on, one for each."),
    SchemaField(
        "resolvePathInContainer",
        "flag",
        "`path` is looked up in each container. Needs a podSelector.",
        default="false",
    ),
    _MESSAGE,
    _ARGS,
    _DATA,
    _RETURN,
    _RETURN_ARG,
    _SELECTORS,
    _TAGS,
    SchemaField(
        "binaryDigests",
        "texts",
        "The probe is set only in a file that has one of these: sha1:, sha256:, sha384:, sha512: or build-id: and hex.",
    ),
    SchemaField(
        "ignore",
        "object",
        "What is no error.",
        (SchemaField("digestVerificationFailure", "flag", "The file has another digest.", default="false"),),
    ),
)

_USDT = (
    *_PROBE_FILE,
    SchemaField("provider", "text", "The probe's provider.", required=True),
    SchemaField("name", "text", "The probe's name.", required=True),
    _MESSAGE,
    _ARGS,
    _SELECTORS,
    _TAGS,
)

_LSM = (
    SchemaField("hook", "text", "An LSM hook, without `security_` in front: file_open.", required=True),
    _MESSAGE,
    _ARGS,
    _SELECTORS,
    _TAGS,
)

SPEC = (
    SchemaField("kprobes", "objects", "Functions of the kernel and system calls.", _FUNCTION),
    SchemaField("fentries", "objects", "The same through BPF trampolines, which cost less (Linux 5.5).", _FUNCTION),
    SchemaField("tracepoints", "objects", "Tracepoints, which stay the same over many kernels.", _TRACEPOINT),
    SchemaField("uprobes", "objects", "Functions of programs and libraries.", _UPROBE),
    SchemaField("usdts", "objects", "Probes that programs have built in.", _USDT),
    SchemaField(
        "lsmhooks", "objects", "The kernel's own places for a verdict, with BPF LSM (Linux 5.7, lsm=…,bpf).", _LSM
    ),
    SchemaField("loader", "flag", "An event for every executable file that is mapped.", default="false"),
    SchemaField(
        "lists",
        "objects",
        "Named lists of calls, or of values.",
        (
            SchemaField("name", "text", "What list:NAME refers to.", required=True),
            SchemaField(
                "type",
                "text",
                "syscalls: the values are system calls. generated_syscalls: all that the node has. generated_ftrace: "
                "all functions of the node that match `pattern`. Nothing: functions, or values.",
                choices=("syscalls", "generated_syscalls", "generated_ftrace"),
            ),
            SchemaField("values", "values", "What is in it."),
            SchemaField("pattern", "text", "For generated_ftrace: a regular expression."),
            SchemaField("validated", "flag", "Written by other tools; says nothing here.", default="false"),
        ),
    ),
    SchemaField(
        "enforcers",
        "objects",
        "System calls that NotifyEnforcer may deny.",
        (SchemaField("calls", "texts", "sys_NAME, i386/sys_NAME, security_NAME or list:NAME.", required=True),),
    ),
    SchemaField(
        "options",
        "objects",
        "Settings of the policy.",
        (
            SchemaField(
                "name",
                "text",
                "policy-mode: enforce, or monitor, in which actions only post. override-method: fmod-ret or "
                "override-return.",
                required=True,
                choices=(
                    *("policy-mode", "override-method", "disable-kprobe-multi", "disable-uprobe-multi"),
                    "sleepable-preload-size",
                ),
            ),
            SchemaField("value", "values", "Its value.", required=True),
        ),
    ),
    _POD_SELECTOR,
    _CONTAINER_SELECTOR,
    _HOST_SELECTOR,
    _labels("nodeSelector", "Nodes by their labels. On others the policy is not loaded."),
    SchemaField("selectorsMacros", "object map", "Named parts of selectors, see `macros`.", SELECTOR),
)

METADATA = (
    SchemaField("name", "text", "The policy's name, which events carry.", required=True),
    SchemaField(
        "namespace", "text", "Of a TracingPolicyNamespaced: the pods of this namespace. Default: that of the context."
    ),
    SchemaField("labels", "text map", "Labels of the policy."),
    SchemaField("annotations", "text map", "Notes for people and tools."),
    *(
        SchemaField(name, "anything", "Written by the API server; says nothing here.")
        for name in (
            *("creationTimestamp", "deletionTimestamp", "finalizers", "generateName", "generation", "managedFields"),
            *("ownerReferences", "resourceVersion", "selfLink", "uid"),
        )
    ),
)

POLICY = SchemaField(
    "policy",
    "object",
    "A TracingPolicy is for the whole cluster, a TracingPolicyNamespaced for the pods of its namespace.",
    (
        SchemaField("apiVersion", "text", "The version of these fields.", required=True, choices=(API_VERSION,)),
        SchemaField("kind", "text", "Whom it is for.", required=True, choices=POLICY_KINDS),
        SchemaField("metadata", "object", "The policy's name and namespace.", METADATA, required=True),
        SchemaField("spec", "object", "What is hooked, for whom, and what follows.", SPEC, required=True),
    ),
)
