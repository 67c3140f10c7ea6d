"""The schema of a hook's arguments, and of the filters and actions in its selectors.

The trap: `index` counts a function's parameters from 0, and `sizeArgIndex` from 1.
"""

from kubectl_gadget.kube.object_schema import labels_field
from kubectl_gadget.policies.language.argument_types import ARGUMENT_TYPES
from kubectl_gadget.policies.language.operators import ARGUMENT_OPERATORS, BINARY_OPERATORS, SET_OPERATORS
from kubectl_gadget.policies.model import NAMESPACES
from kubectl_gadget.yaml_schema import SchemaField

NAMESPACE_NAMES = {"".join(word.capitalize() for word in name.split("_")): name for name in NAMESPACES}
"""By the spelling in policies: Uts, PidForChildren, …"""

POD_SELECTOR = labels_field("podSelector", "Pods by their labels. With it, the host's processes are left out.")
CONTAINER_SELECTOR = labels_field(
    "containerSelector",
    "Containers by the keys `name` (the container's name in the pod) and `repo` (its image's repository, without tag).",
)
HOST_SELECTOR = labels_field(
    "hostSelector",
    "Absent, or {} for the processes of the node itself. Alone it leaves the pods out; not for a "
    "TracingPolicyNamespaced.",
)

ARGUMENT = (
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
        "The argument's type, which determines how it is read, shown and compared.",
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
        "For char_buf, const_buf and iov_iter: up to 327,360 bytes instead of 4,095. Filters see the first 4,095 only.",
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
    SchemaField(
        "args", "values", "The argument by its position in the list `args`, from 0. Takes precedence over `index`."
    ),
    SchemaField("operator", "word", "How it is compared.", required=True, choices=ARGUMENT_OPERATORS),
    SchemaField(
        "values",
        "values",
        "What it is compared with: any of them for Equal, Prefix and similar operators, none of them for NotEqual, "
        "NotPrefix and similar ones. Numbers are decimal, 0x… or 0…; names (CAP_SYS_ADMIN, AF_INET, -EPERM) where the "
        "type has them; "
        "`list:NAME` takes the values of a list.",
    ),
)

_BINARIES = (
    SchemaField("operator", "word", "How the path is compared.", required=True, choices=BINARY_OPERATORS),
    SchemaField("values", "values", "Absolute paths. A script runs as its interpreter.", required=True),
    SchemaField(
        "followChildren",
        "flag",
        "Also all descendants of processes with such a binary. Only for In and NotIn.",
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
    SchemaField("operator", "word", "In: has one of them. NotIn: has none.", required=True, choices=SET_OPERATORS),
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
        "What happens. Post sends an event, which is the default; NoPost sends none. Sigkill and "
        "Signal send a signal. Override makes the call fail before it does anything. NotifyEnforcer denies a system "
        "call that `enforcers` names. The others: see their parameters.",
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
        "argUrl", "text", "GetUrl: the agent requests this http or https URL afterwards, to notify another service."
    ),
    SchemaField("argFqdn", "text", "DnsLookup: the agent looks this name up afterwards."),
    SchemaField(
        "argSock",
        "number",
        "TrackSock: from now on, events about the socket are attributed to its owner; UntrackSock ends that. The "
        "parameter with the socket.",
    ),
    SchemaField(
        "argFd", "number", "FollowFD, UnfollowFD, CopyFD: the parameter with the file descriptor; CopyFD: the old one."
    ),
    SchemaField(
        "argName", "number", "FollowFD, UnfollowFD: the parameter with the file. CopyFD: that with the new descriptor."
    ),
    SchemaField("argIndex", "number", "Set: the parameter of a USDT probe that is overwritten, if it lies in memory."),
    SchemaField("argValue", "number", "Set: with what."),
    SchemaField("argRegs", "list of text", "Override of a uprobe: registers and their new values, `rax=0`."),
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
        "text or number",
        "Post: sends only one of the events with the same arguments in this time: 5 (seconds), 30s, 5m, 1h.",
    ),
    SchemaField(
        "rateLimitScope",
        "text",
        "The scope of the limit: each thread, each process, or all together.",
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
        "list of object",
        "Processes by their ids.",
        (
            SchemaField("operator", "word", "In or NotIn.", required=True, choices=SET_OPERATORS),
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
    SchemaField("matchArgs", "list of object", "Conditions on arguments; all must hold.", _COMPARISON),
    SchemaField("matchData", "list of object", "Conditions on `data`; all must hold.", _COMPARISON),
    SchemaField("matchReturnArgs", "list of object", "Conditions on what the function returned.", _COMPARISON),
    SchemaField("matchBinaries", "list of object", "The binary that the process runs.", _BINARIES),
    SchemaField("matchParentBinaries", "list of object", "The binary that the parent process runs.", _BINARIES),
    SchemaField(
        "matchNamespaces",
        "list of object",
        "The namespaces that the task is in; all must hold.",
        (
            SchemaField("namespace", "text", "Which kind.", required=True, choices=tuple(NAMESPACE_NAMES)),
            SchemaField("operator", "word", "In or NotIn.", required=True, choices=SET_OPERATORS),
            SchemaField("values", "values", "Inode numbers, as lsns shows them, or host_ns.", required=True),
        ),
    ),
    SchemaField(
        "matchNamespaceChanges",
        "list of object",
        "Namespaces that are no longer those in which the process's program was started.",
        (
            SchemaField(
                "operator",
                "text",
                "In: one of these has changed. NotIn: one of the others has changed.",
                required=True,
                choices=SET_OPERATORS,
            ),
            SchemaField("values", "values", "Kinds of namespaces, such as Mnt and User.", required=True),
        ),
    ),
    SchemaField("matchCapabilities", "list of object", "The task's capabilities; all must hold.", _CAPABILITIES),
    SchemaField(
        "matchCapabilityChanges",
        "list of object",
        "Capabilities that are no longer those with which the process's program was started. In: one of these has "
        "changed. NotIn: none of these, but another one has.",
        _CAPABILITIES,
    ),
    SchemaField(
        "matchWorkloads",
        "object",
        "For which pods, containers or hosts this selector is, within those of the policy.",
        (POD_SELECTOR, CONTAINER_SELECTOR, HOST_SELECTOR),
    ),
    SchemaField("macros", "list of text", "Names out of selectorsMacros, whose filters are added to this selector's."),
    SchemaField("matchActions", "list of object", "What happens when the selector matches. Default: Post.", _ACTION),
    SchemaField(
        "matchReturnActions", "list of object", "What happens at the return when matchReturnArgs hold.", _ACTION
    ),
)
