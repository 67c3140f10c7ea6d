"""Arguments of hooks as they are told: from what the engine read to the member of the JSON of events."""

import base64
import stat
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from kubectl_gadget.policy_events.event import Argument
from kubectl_gadget.policy_events.record import Type, Value

_FAMILIES = {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET"}
_PROTOCOLS = {1: "IPPROTO_ICMP", 6: "IPPROTO_TCP", 17: "IPPROTO_UDP", 58: "IPPROTO_ICMPV6", 132: "IPPROTO_SCTP"}
_UNKNOWN = (1 << 64) - 1
_COMPAT_CALL = 1 << 31
_FILES = (Type.FILE, Type.PATH, Type.FD, Type.DENTRY, Type.BINPRM, Type.KIOCB)


def argument(type: str, label: str, value: Value, machine: str) -> Argument:
    """An argument of this type of the policy's, in the form that JSON of security events has for it. `machine` is the
    node's architecture, as uname says it."""
    kind, shown = _call(value.numbers[0], machine) if type == "syscall64" else _shown(type, value)
    return Argument(kind, shown, label)


def _shown(name: str, value: Value) -> tuple[str, Any]:
    type, numbers = value.form.type, value.numbers
    text = value.text.decode("utf-8", "backslashreplace")
    if type is Type.NUMBER and value.unreadable:
        return "error", {"message": "cannot be read"}
    if type is Type.NUMBER:
        return _number(name, numbers[0], value.form.size)
    if type in _FILES:
        kind = {"path": "path", "linux_binprm": "linux_binprm"}.get(name, "file")
        return kind, {"path": text, "permission": _permissions(numbers[0])} if not value.unreadable else {"path": "-"}
    if type in (Type.SOCK, Type.SOCKET, Type.SKB):
        return ("skb" if type is Type.SKB else "sock"), _connection(value)
    if type is Type.SOCKADDR:
        return "sockaddr", {
            "family": _FAMILIES.get(numbers[3], str(numbers[3])),
            "addr": _address(value.addresses[1]) or text,
            "port": numbers[1],
        }
    if type is Type.CRED:
        names = ("uid", "gid", "suid", "sgid", "euid", "egid", "fsuid", "fsgid")
        shown: dict[str, Any] = dict(zip(names, numbers, strict=False))
        sets = ("permitted", "effective", "inheritable")
        caps = {name: f"{bits:#x}" for name, bits in zip(sets, numbers[8:11], strict=True)}
        return "process_credentials", shown | {"caps": caps}
    if type is Type.USER_NAMESPACE:
        return "user_ns", dict(zip(("level", "uid", "gid", "ns"), numbers, strict=True))
    if type is Type.CAPABILITY_SET:
        return (name if name.startswith("cap_") else "kernel_cap_t"), f"{numbers[0]:016x}"
    if type is Type.BPF_MAP:
        members = ("MapType", "KeySize", "ValueSize", "MaxEntries")
        return "bpf_map", dict(zip(members, numbers, strict=True)) | {"MapName": text}
    if type in (Type.BUFFER, Type.IOVEC, Type.IOV_ITER):
        return _bytes(value)
    if type is Type.BPF_ATTR:
        return "bpf_attr", {"ProgType": numbers[0], "InsnCnt": numbers[1], "ProgName": text}
    if type is Type.PERF_EVENT:
        event = {"Type": numbers[0], "Config": numbers[1], "ProbeOffset": numbers[2]}
        return "perf_event", {"KprobeFunc": text} | event
    if type in (Type.MODULE, Type.LOAD_INFO):
        signed = {} if numbers[0] == _UNKNOWN else {"signature_ok": bool(numbers[0])}
        tainted = {"tainted": numbers[1]} if type is Type.MODULE and numbers[1] else {}
        return "module", {"name": text} | signed | tainted
    if type is Type.BPF_PROGRAM:
        return "bpf_prog", {"ProgType": numbers[0], "InsnCnt": numbers[1], "ProgName": text}
    if type is Type.NET_DEVICE:
        return "net_dev", {"name": text}
    if value.unreadable:
        return "string", "-"
    return "string", text


def _call(number: int, machine: str) -> tuple[str, Any]:
    """A system call's number is another one for 64-bit and 32-bit programs, and on each architecture."""
    own, compat = ("arm64", "arm32") if machine == "aarch64" else ("x64", "i386")
    return "syscall_id", {"id": number & ~_COMPAT_CALL, "abi": compat if number & _COMPAT_CALL else own}


def _bytes(value: Value) -> tuple[str, Any]:
    """What was read of them, and how many there were when that is not all."""
    if value.unreadable:
        return "bytes", ""
    shown = base64.b64encode(value.text).decode()
    if value.cut:
        return "truncated_bytes", {"bytes_arg": shown, "orig_size": value.numbers[0]}
    return "bytes", shown


def _number(name: str, number: int, size: int) -> tuple[str, Any]:
    if name == "capability":
        return "capability", {"value": number}
    if name == "bpf_cmd":
        return "bpf_cmd", number
    if name in ("size_t", "ulong", "uint64"):
        return "size", number
    if name.startswith("uint"):
        return "uint", number
    return ("long" if size == 8 else "int"), number


def _permissions(mode: int) -> str:
    return stat.filemode(mode) if mode else ""


def _connection(value: Value) -> dict[str, Any]:
    numbers = value.numbers
    return {
        "family": _FAMILIES.get(numbers[3], str(numbers[3])),
        "protocol": _PROTOCOLS.get(numbers[2], str(numbers[2])),
        "saddr": _address(value.addresses[0]),
        "daddr": _address(value.addresses[1]),
        "sport": numbers[0],
        "dport": numbers[1],
    }


def _address(address: IPv4Address | IPv6Address | None) -> str:
    return "" if address is None else str(address)
