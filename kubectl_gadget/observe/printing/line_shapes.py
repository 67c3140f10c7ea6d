"""The shapes of lines about policies' hooks: emoji, word, and what follows the program, by the function that was hit.

The trap: the policy decides which arguments exist, so each shape finds them by kind, not by position.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubectl_gadget.linux.processes import namespace_names
from kubectl_gadget.linux.syscalls import syscall_name
from kubectl_gadget.output.escape import escape
from kubectl_gadget.wire.policy_events.event import EventArgument, PolicyEvent

Shape = tuple[str, str, Sequence[str]]
"""Emoji, word, and the parts that follow the program."""

_MAY_WRITE, _MAY_READ = 2, 4
_SYSCALL_PREFIXES = ("__x64_sys_", "__arm64_sys_", "__se_sys_", "__do_sys_", "__sys_", "sys_")
_PLAIN = {
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
    if name in _PLAIN:
        kinds = ("int", "uint", "size") if name in _WITHOUT_NUMBERS else ()
        return (*_PLAIN[name], [_argument(item) for item in event.args if item.kind not in kinds])
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
