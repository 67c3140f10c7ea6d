"""The schema of TracingPolicy: every field with its type, its default and its description. Used for reading
(`yaml_reader.py` rejects any other field) and for `kubectl gadget policy explain`.

Names follow the API of cilium.io/v1alpha1; fields that only we have are described as such. The trap: `syscall` defaults
to true.
"""

from kubectl_gadget.kube.object_schema import labels_field, metadata_field
from kubectl_gadget.policies.language.selector_schema import (
    ARGUMENT,
    CONTAINER_SELECTOR,
    HOST_SELECTOR,
    POD_SELECTOR,
    SELECTOR,
)
from kubectl_gadget.yaml_schema import SchemaField

API_VERSION = "cilium.io/v1alpha1"
POLICY_KINDS = ("TracingPolicy", "TracingPolicyNamespaced")

_ARGS = SchemaField("args", "list of object", "The arguments that are read, in the order of the output.", ARGUMENT)
_DATA = SchemaField("data", "list of object", "Other values that are read: see `source`.", ARGUMENT)
_SELECTORS = SchemaField(
    "selectors",
    "list of object",
    "Tried in order; the first whose filters all match decides. Without selectors, every call is an event.",
    SELECTOR,
)
_MESSAGE = SchemaField("message", "text", "A message for people, included in every event of this hook.")
_TAGS = SchemaField("tags", "list of text", "Tags, included in every event of this hook.")
_RETURN = SchemaField("return", "flag", "The event is sent at the return, with what was returned.", default="false")
_RETURN_ARG = SchemaField("returnArg", "object", "The type of the returned value. Required with `return`.", ARGUMENT)

_FUNCTION = (
    SchemaField(
        "call",
        "text",
        "A function of the kernel; a system call as sys_NAME, of 32-bit programs as i386/sys_NAME; or list:NAME.",
        required=True,
    ),
    SchemaField(
        "syscall", "flag", "Whether `call` is a system call, whose arguments are stored elsewhere.", default="true"
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
        "Conditions that are not errors.",
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
    SchemaField("symbols", "list of text", "Functions. One of symbols, offsets and addrs."),
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
        "list of text",
        "The probe is set only in a file that has one of these: sha1:, sha256:, sha384:, sha512: or build-id: and hex.",
    ),
    SchemaField(
        "ignore",
        "object",
        "Conditions that are not errors.",
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
    SchemaField("kprobes", "list of object", "Functions of the kernel and system calls.", _FUNCTION),
    SchemaField(
        "fentries", "list of object", "The same through BPF trampolines, which cost less (Linux 5.5).", _FUNCTION
    ),
    SchemaField("tracepoints", "list of object", "Tracepoints, which stay the same over many kernels.", _TRACEPOINT),
    SchemaField("uprobes", "list of object", "Functions of programs and libraries.", _UPROBE),
    SchemaField("usdts", "list of object", "Static probes that are compiled into programs.", _USDT),
    SchemaField(
        "lsmhooks",
        "list of object",
        "The kernel's security hooks, with BPF LSM (Linux 5.7, lsm=…,bpf).",
        _LSM,
    ),
    SchemaField("loader", "flag", "An event for every executable file that is mapped.", default="false"),
    SchemaField(
        "lists",
        "list of object",
        "Named lists of calls, or of values.",
        (
            SchemaField("name", "text", "What list:NAME refers to.", required=True),
            SchemaField(
                "type",
                "text",
                "syscalls: the values are system calls. generated_syscalls: all that the node has. generated_ftrace: "
                "all functions of the node that match `pattern`. Without a type: functions or values.",
                choices=("syscalls", "generated_syscalls", "generated_ftrace"),
            ),
            SchemaField("values", "values", "The items of the list."),
            SchemaField("pattern", "text or number", "For generated_ftrace: a regular expression."),
            SchemaField("validated", "flag", "Written by other tools; ignored.", default="false"),
        ),
    ),
    SchemaField(
        "enforcers",
        "list of object",
        "System calls that NotifyEnforcer may deny.",
        (SchemaField("calls", "list of text", "sys_NAME, i386/sys_NAME, security_NAME or list:NAME.", required=True),),
    ),
    SchemaField(
        "options",
        "list of object",
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
    POD_SELECTOR,
    CONTAINER_SELECTOR,
    HOST_SELECTOR,
    labels_field("nodeSelector", "Nodes by their labels. On other nodes the policy is not loaded."),
    SchemaField("selectorsMacros", "map of object", "Named parts of selectors, see `macros`.", SELECTOR),
)

POLICY = SchemaField(
    "policy",
    "object",
    "A TracingPolicy is for the whole cluster, a TracingPolicyNamespaced for the pods of its namespace.",
    (
        SchemaField("apiVersion", "text", "The version of these fields.", required=True, choices=(API_VERSION,)),
        SchemaField("kind", "text", "The policy's scope.", required=True, choices=POLICY_KINDS),
        metadata_field(
            "The policy's name and namespace.",
            "The policy's name, which is part of its events.",
            "Of a TracingPolicyNamespaced: the pods of this namespace. Default: that of the context.",
        ),
        SchemaField(
            "spec", "object", "What is hooked, for which processes, and which actions follow.", SPEC, required=True
        ),
    ),
)
