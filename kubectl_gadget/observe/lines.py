"""One line for each event, in the shapes that readers of security events know:

    🚀 process default/xwing /usr/bin/vi /etc/passwd

An emoji, a word padded to 7 characters, the owner, the program, and the object. Details that these shapes hide can be
requested (`LineOptions`) and are appended. The observed programs choose file names and arguments, so each
of these is one word, quoted where necessary: none can be confused with the other words of the line.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubectl_gadget.linux.names import capability_name, namespace_names
from kubectl_gadget.linux.syscalls import syscall_name
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, ProcessEvent
from kubectl_gadget.observe.processes import Process
from kubectl_gadget.observe.run import SHOWN, LineOptions
from kubectl_gadget.observe.story import StoryEvent, ending
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.tables import text_width
from kubectl_gadget.output.terminal import RED, paint, pod_color
from kubectl_gadget.wire.policy_events import EventArgument, PolicyEvent, StackEntry, rfc3339
from kubectl_gadget.wire.policy_record import done_text

_WORD_WIDTH = 7
_ADMIN_COLUMN = 120
_SYS_ADMIN = 21
_OPERATIONS = {
    "open": ("📬", "open"),
    "is open": ("📬", "is open"),
    "read": ("📚", "read"),
    "write": ("📝", "write"),
    "truncate": ("📝", "truncate"),
    "close": ("📪", "close"),
}

_CONNECTIONS = {"connect": "🔌", "accept": "📞", "close": "🧹", "dns": "📖"}

_PLAIN = LineOptions()


def line(entry: StoryEvent, options: LineOptions = _PLAIN) -> str:
    """The line, without a line end. Stacks follow on lines of their own."""
    emoji, word, parts, after = _shape(entry)
    source = source_of(entry)
    painted = paint(source, pod_color(source)) if options.color else source
    text = f"{emoji} {word:<{_WORD_WIDTH}} {painted} {quoted(entry.process.name)}"
    text += "".join(f" {part}" for part in parts if part)
    text += _blocked(entry, options)
    if options.timestamps:
        text = f"{rfc3339(entry.time)} {text}"
    found = [_EXTRAS[name](entry) for name in SHOWN if name in options.shown and name in _EXTRAS]
    text += "".join(f" {extra}" for extra in found if extra)
    if entry.late:
        text += " (late)"
    if "admin" in options.shown and _is_admin(entry):
        text += " " * max(1, _ADMIN_COLUMN - text_width(text)) + f"🛑 {capability_name(_SYS_ADMIN)}"
    return text + (after if options.stacks else "")


def action(entry: StoryEvent) -> str:
    """The same without owner and program: `📝 write /etc/passwd 1275 bytes`."""
    emoji, word, parts, _ = _shape(entry)
    return " ".join([emoji, word, *filter(None, parts)]) + _blocked(entry, _PLAIN)


def command_text(process: Process) -> str:
    """Binary and arguments, safe to print."""
    return f"{quoted(process.name)} {_arguments(process)}".rstrip()


def _arguments(process: Process) -> str:
    return " ".join(quoted(arg) or '""' for arg in process.args) + ("…" if process.args_cut else "")


def source_of(entry: StoryEvent) -> str:
    """`namespace/pod`, or the node for processes of the host."""
    container = entry.container
    return quoted(f"{container.namespace}/{container.pod}" if container.pod else entry.node)


def _shape(entry: StoryEvent) -> tuple[str, str, Sequence[str], str]:
    """Emoji, word, the parts that follow the binary, and the lines that follow."""
    happening = entry.happening
    if isinstance(happening, ProcessEvent):
        arguments = _arguments(entry.process)
        if happening.operation == "exit":
            return "💥", "exit", (arguments, ending(happening)), ""
        return "🚀", "process", (arguments,), ""
    if isinstance(happening, FileEvent):
        emoji, word = _OPERATIONS.get(happening.operation, ("📝", happening.operation))
        if happening.operation == "mmap":
            return emoji, f"mmap-{happening.protection.replace('-', '')}", (quoted(happening.path) or "-",), ""
        amount = "" if happening.bytes is None else f"{happening.bytes} bytes"
        return emoji, word, (quoted(happening.path) or "-", amount), ""
    if isinstance(happening, ConnectionEvent):
        emoji = _CONNECTIONS[happening.operation]
        amounts = "" if happening.sent is None else f"{happening.sent} out, {happening.received} in"
        times = "" if happening.count == 1 else f"{happening.count:,} more"
        return emoji, happening.operation, (escape(happening.what), amounts, times), ""
    return (*shape(happening), _stacks(happening))


def _blocked(entry: StoryEvent, options: LineOptions) -> str:
    happening = entry.happening
    if not isinstance(happening, PolicyEvent) or not (happening.blocked or happening.verdict or happening.would_be):
        return ""
    done = done_text(happening.blocked, happening.verdict)
    text = f" WOULD BE {happening.would_be}" if happening.would_be else f" {done}"
    return paint(text, RED) if options.color else text


def _is_admin(entry: StoryEvent) -> bool:
    """Return True if the thread has an administrator's rights."""
    credentials = entry.credentials
    return credentials is not None and bool(credentials.effective >> _SYS_ADMIN & 1)


def _policy_extra(entry: StoryEvent) -> str:
    happening = entry.happening
    if not isinstance(happening, PolicyEvent):
        return ""
    texts = (("policy", happening.policy), ("action", happening.action), ("message", happening.message))
    return " ".join(f"{name}={quoted(text)}" for name, text in texts if text)


def _file_extra(entry: StoryEvent) -> str:
    happening = entry.happening
    if isinstance(happening, FileEvent):
        return f"file-id={happening.file_id:x}"
    return f"file-id={happening.file_id}" if isinstance(happening, PolicyEvent) and happening.file_id else ""


_EXTRAS: dict[str, Callable[[StoryEvent], str]] = {
    "pid": lambda entry: f"pid={entry.process.id.pid}",
    "parent": lambda entry: f"parent={entry.process.parent_id.pid if entry.process.parent_id else '-'}",
    "node": lambda entry: f"node={quoted(entry.node)}",
    "container": lambda entry: f"container={quoted(entry.container.container) or '-'}",
    "uid": lambda entry: f"uid={entry.credentials.uid}" if entry.credentials else "",
    "policy": _policy_extra,
    "exec-id": lambda entry: f"exec-id={entry.process.id.text(entry.node)}",
    "file-id": _file_extra,
    "flow-id": lambda entry: (
        f"flow-id={entry.happening.flow_id}" if isinstance(entry.happening, ConnectionEvent) else ""
    ),
}


def _stacks(event: PolicyEvent) -> str:
    return _stack("Kernel:", event.kernel_stack) + _stack("User:", event.user_stack)


def _stack(title: str, frames: Sequence[StackEntry]) -> str:
    if not frames:
        return ""
    return f"\n{title}" + "".join(f"\n   {_frame(frame)}" for frame in frames)


def _frame(frame: StackEntry) -> str:
    if not frame.symbol and not frame.address:
        return escape(frame.module or "-")
    name = f"{frame.symbol}+0x{frame.offset:x}" if frame.symbol else f"0x{frame.address:x}"
    return escape(f"{name} ({frame.module})" if frame.module else name)


# The shapes of lines about policies' hooks, by the function that was hit. The policy decides which arguments exist, so
# each shape finds them by kind, not by position.


Shape = tuple[str, str, Sequence[str]]
"""Emoji, word, and the parts that follow the program."""

_MAY_WRITE, _MAY_READ = 2, 4
_SYSCALL_PREFIXES = ("__x64_sys_", "__arm64_sys_", "__se_sys_", "__do_sys_", "__sys_", "sys_")
_ARGUMENTS_IN_ORDER = {
    "mount": ("💾", "mount"),
    "pivot_root": ("💾", "pivot_root"),
    "setuid": ("🔑", "setuid"),
    "clock_settime": ("⏰", "clock_settime"),
    "proc_exec_connector": ("🔧", "proc_exec_connector"),
    "open": ("📬", "open"),
    "openat": ("📬", "openat"),
    "close": ("📪", "close"),
    "fd_install": ("📬", "open"),
    "__fput": ("📪", "close"),
    "tcp_connect": ("🔌", "connect"),
    "tcp_close": ("🧹", "close"),
    "security_path_truncate": ("📝", "truncate"),
    "security_file_truncate": ("📝", "truncate"),
    "security_perf_event_alloc": ("🐝", "perf_event_alloc"),
}
"""Functions whose arguments are shown in their order, without descriptor numbers."""
_WITHOUT_NUMBERS = frozenset(
    {"fd_install", "close", "open", "openat", "security_path_truncate", "security_file_truncate"}
)


_NUMBERS = frozenset({"int", "uint", "size", "long"})


def shape(event: PolicyEvent) -> Shape:
    return _POLICY[event.hook](event)


def quoted(text: object) -> str:
    """The text as one word that is safe to print: in quotes when it contains spaces or quotes, or when something had to
    be escaped. Within quotes, a backslash is doubled; outside of them, it is a plain backslash."""
    plain = "" if text is None else str(text)
    if plain.isprintable() and " " not in plain and '"' not in plain:
        return plain
    return '"' + escape(plain.replace("\\", r"\\").replace('"', r"\"")) + '"'


def _kprobe(event: PolicyEvent) -> Shape:
    name = function_name(event.function)
    if name in _SPECIAL:
        return _SPECIAL[name](event)
    if name in _ARGUMENTS_IN_ORDER:
        kinds = ("int", "uint", "size") if name in _WITHOUT_NUMBERS else ()
        return (*_ARGUMENTS_IN_ORDER[name], [_argument(item) for item in event.args if item.kind not in kinds])
    kind = "syscall" if name != event.function else "call"
    return "❓", kind, [quoted(event.function), *map(_labelled, event.args)]


def function_name(function: str) -> str:
    """A system call's name without the kernel's prefix; other functions unchanged."""
    for prefix in _SYSCALL_PREFIXES:
        if function.startswith(prefix):
            return function.removeprefix(prefix)
    return function


def _transfer(emoji: str, word: str) -> Callable[[PolicyEvent], Shape]:
    def shape(event: PolicyEvent) -> Shape:
        sizes = [item.value for item in event.args if item.kind in ("size", "int", "uint", "long")]
        return emoji, word, [_file(event), f"{sizes[-1]} bytes" if sizes else ""]

    return shape


def _permission(event: PolicyEvent) -> Shape:
    mask = next((item.value for item in event.args if item.kind in ("int", "uint")), 0)
    if mask & _MAY_WRITE:
        return "📝", "write", [_file(event)]
    if mask & _MAY_READ:
        return "📚", "read", [_file(event)]
    return "❓", "call", [event.function, _file(event), hex(mask)]


def _mmap(event: PolicyEvent) -> Shape:
    protection = next((item.value for item in event.args if item.kind in ("int", "uint", "long")), 0)
    letters = "".join(letter for bit, letter in ((1, "r"), (2, "w"), (4, "x")) if protection & bit)
    return "📝", f"mmap-{letters}" if letters else "mmap", [_file(event)]


def _setns(event: PolicyEvent) -> Shape:
    kinds = [item.value for item in event.args if item.kind in _NUMBERS]
    return "🔧", "setns", [namespace_names(kinds[-1]) or "any" if kinds else ""]


def _sendmsg(event: PolicyEvent) -> Shape:
    sizes = [item.value for item in event.args if item.kind in ("int", "size", "uint")]
    sockets = [_argument(item) for item in event.args if item.kind in ("sock", "socket")]
    return "📤", "sendmsg", [*sockets, f"bytes {sizes[-1]}" if sizes else ""]


_PROGRAM = {"ProgType": "", "ProgName": "", "InsnCnt": "instruction count"}
_MAP = {"MapType": "", "MapName": "", "KeySize": "key size", "ValueSize": "value size", "MaxEntries": "max entries"}


def _fields(event: PolicyEvent, kind: str, words: Mapping[str, str]) -> str:
    """Some members of an argument, each preceded by its word."""
    value = next((item.value for item in event.args if item.kind == kind and isinstance(item.value, dict)), {})
    return " ".join(f"{word} {quoted(value.get(name))}".strip() for name, word in words.items() if name in value)


def _bpf_map(event: PolicyEvent) -> Shape:
    return "🗺", "bpf_map_create", [_fields(event, "bpf_map", _MAP)]


_SPECIAL: dict[str, Callable[[PolicyEvent], Shape]] = {
    "write": _transfer("📝", "write"),
    "read": _transfer("📚", "read"),
    "security_file_permission": _permission,
    "security_mmap_file": _mmap,
    "tcp_sendmsg": _sendmsg,
    "setns": _setns,
    "bpf_check": lambda event: ("🐝", "bpf_load", [_fields(event, "bpf_attr", _PROGRAM)]),
    "security_bpf_map_alloc": _bpf_map,
    "security_bpf_map_create": _bpf_map,
}


_TABLES = {"x64": "x86_64", "arm64": "aarch64"}


def _call(value: Mapping[str, Any]) -> str:
    """A system call's name; for a 32-bit program with its ABI: i386/getpid."""
    abi = str(value["abi"])
    name = syscall_name(int(value["id"]), _TABLES.get(abi, abi))
    return name if abi in _TABLES else f"{abi}/{name}"


def _tracepoint(event: PolicyEvent) -> Shape:
    if event.subsystem == "raw_syscalls":
        name = next((_call(item.value) for item in event.args if item.kind == "syscall_id"), "")
        rest = ", ".join(_argument(item) for item in event.args if item.kind != "syscall_id")
        return "☎ ", "syscall", [f"{name or event.function}({rest})"]
    return "⁉️", "tracepoint", [event.subsystem, event.function, *map(_argument, event.args)]


def _uprobe(event: PolicyEvent) -> Shape:
    return "🕵️", "uprobe", [quoted(event.path), quoted(event.function), *map(_argument, event.args)]


def _usdt(event: PolicyEvent) -> Shape:
    place = [quoted(event.path), quoted(event.subsystem), quoted(event.function)]
    return "🕵️", "usdt", [*place, *map(_argument, event.args)]


def _lsm(event: PolicyEvent) -> Shape:
    return "🔒", "LSM", [event.function, *map(_labelled, event.args), event.ima_hash]


def _loader(event: PolicyEvent) -> Shape:
    return "💾", "loader", [quoted(event.path), *map(_argument, event.args)]


_POLICY: dict[str, Callable[[PolicyEvent], Shape]] = {
    "kprobe": _kprobe,
    "tracepoint": _tracepoint,
    "uprobe": _uprobe,
    "usdt": _usdt,
    "lsm": _lsm,
    "loader": _loader,
}


def _file(event: PolicyEvent) -> str:
    return next((_argument(item) for item in event.args if item.kind in ("file", "path", "string", "error")), "-")


def _argument(argument: EventArgument) -> str:
    if argument.kind in ("sock", "skb"):
        return escape(argument.text)
    return quoted(argument.text)


def _labelled(argument: EventArgument) -> str:
    """Numbers, with the label that the policy gives them; modes in octal, as usual."""
    if not argument.label or argument.kind not in _NUMBERS:
        return _argument(argument)
    number = f"0{argument.value:o}" if argument.label == "mode" else argument.text
    return quoted(f"{argument.label}={number}")
