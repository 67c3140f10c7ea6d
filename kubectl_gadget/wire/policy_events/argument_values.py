"""Converts values that the engine read into the arguments of the JSON of events.

The trap: readers of this JSON are strict, so each kind has exactly the members and types of their schema. A value that
could not be read becomes an error message, whatever its type, never an empty text or a 0.
"""

import base64
import os
import stat
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from kubectl_gadget.wire.policy_events import strict_names
from kubectl_gadget.wire.policy_events.event import EventArgument
from kubectl_gadget.wire.policy_events.policy_record import Type, Value

_UNKNOWN = (1 << 64) - 1
_LOW = (1 << 32) - 1
_COMPAT_CALL = 1 << 31
_GREATEST_LEVEL = (1 << 31) - 1
_FILES = (Type.FILE, Type.PATH, Type.FD, Type.DENTRY, Type.BINPRM, Type.KIOCB)
_FILE_KINDS = {"path": "path", "linux_binprm": "linux_binprm"}
_IDS = ("uid", "gid", "suid", "sgid", "euid", "egid", "fsuid", "fsgid")
_OWN_KEY = os.urandom(16)
"""A key for the IDs of sockets: they derive from the address in the kernel's memory, which must not be shown."""
Shown = tuple[str, Any]
"""Kind and value of an Argument."""


def argument(type: str, label: str, value: Value, machine: str) -> EventArgument:
    """An argument of this policy type, in the form of the JSON of security events. `machine` is the node's
    architecture, by uname's name."""
    kind, shown = _call(value.numbers[0], machine) if type == "syscall64" else _shown(type, value)
    return EventArgument(kind, shown, label)


def _shown(name: str, value: Value) -> Shown:
    type = value.form.type
    if type is Type.NUMBER:
        return _unread(name) if value.unreadable else _number(name, value)
    if type in _FILES:
        return _file(name, value)
    if value.unreadable and not (type is Type.SKB and any(value.numbers)):
        return _unread(name, value.numbers[0] if type in _BUFFERS else None)
    read = _READERS.get(type)
    return ("string", _text(value)) if read is None else read(name, value)


def _text(value: Value) -> str:
    return value.text.decode("utf-8", "backslashreplace")


def _unread(name: str, size: int | None = None) -> Shown:
    """`the char_buf of 7 bytes cannot be read`."""
    return "error", {"Message": f"the {name}{'' if size is None else f' of {size} bytes'} cannot be read"}


def _file(name: str, value: Value) -> Shown:
    path, mode = _text(value), value.numbers[0]
    found = {"path": path, "permission": stat.filemode(mode) if mode else ""}
    if value.unreadable:
        # The upper part of the path is missing, or all of it.
        if not path.strip("/"):
            return _unread(name)
        found["flags"] = "unresolvedPathComponents"
    return _FILE_KINDS.get(name, "file"), found


def _call(number: int, machine: str) -> Shown:
    """A system call's number and ABI: the numbers differ between 64-bit and 32-bit programs, and between
    architectures."""
    own, compat = ("arm64", "arm32") if machine == "aarch64" else ("x64", "i386")
    return "syscall_id", {"id": number & (_COMPAT_CALL - 1), "abi": compat if number & _COMPAT_CALL else own}


def _bytes(_: str, value: Value) -> Shown:
    """The bytes that were read, and the original size when the data was truncated."""
    shown = base64.b64encode(value.text).decode()
    if value.cut:
        return "truncated_bytes", {"bytes_arg": shown, "orig_size": value.numbers[0]}
    return "bytes", shown


def _number(name: str, value: Value) -> Shown:
    number, size = value.numbers[0], value.form.size
    if name == "capability":
        return "capability", {"value": number, "name": str(strict_names.capability(number))}
    if name == "bpf_cmd":
        return "bpf_cmd", strict_names.bpf_command(number)
    if value.form.signed:
        return ("long" if size == 8 else "int"), number
    return ("size" if size == 8 else "uint"), number


def _socket(_: str, value: Value) -> Shown:
    numbers = value.numbers
    place = numbers[6] >> 32 | numbers[7] >> 32 << 32
    return "sock", _connection(value) | {
        "type": strict_names.name_of("SOCK", numbers[5]),
        "mark": numbers[6] & _LOW,
        "priority": numbers[7] & _LOW,
        "cookie": str(_cookie(place)),
        "state": strict_names.name_of("TCP", numbers[4]),
    }


def _packet(_: str, value: Value) -> Shown:
    numbers = value.numbers
    return "skb", _connection(value) | {
        "hash": numbers[7] >> 32,
        "len": numbers[6] >> 32,
        "mark": numbers[6] & _LOW,
        "priority": numbers[7] & _LOW,
        "proto": numbers[2],
    }


def _connection(value: Value) -> dict[str, Any]:
    numbers = value.numbers
    return {
        "family": strict_names.name_of("AF", numbers[3]),
        "protocol": strict_names.name_of("IPPROTO", numbers[2]),
        "saddr": _address(value.addresses[0]),
        "daddr": _address(value.addresses[1]),
        "sport": numbers[0],
        "dport": numbers[1],
    }


def _cookie(place: int) -> int:
    """An ID that is the same for the same socket while this program runs, and does not reveal its address."""
    if not place:
        return 0
    import hashlib  # takes 4 MB, with libcrypto, and few sessions need it

    return int.from_bytes(hashlib.blake2b(place.to_bytes(8, "big"), digest_size=8, key=_OWN_KEY).digest(), "big")


def _socket_address(name: str, value: Value) -> Shown:
    family = strict_names.name_of("AF", value.numbers[3])
    if name == "sockaddr_un":
        return "sockaddrun", {"family": family, "path": _text(value)}
    return "sockaddr", {
        "family": family,
        "addr": _address(value.addresses[1]) or _text(value),
        "port": value.numbers[1],
    }


def _credentials(_: str, value: Value) -> Shown:
    """The upper halves of the first four numbers belong to the secure bits and to the user namespace."""
    numbers = value.numbers
    found: dict[str, Any] = {name: number & _LOW for name, number in zip(_IDS, numbers, strict=False)}
    bits, level, uid, gid = (number >> 32 for number in numbers[:4])
    if bits:
        found["securebits"] = strict_names.secure_bits(bits)
    found["caps"] = strict_names.capability_sets(*numbers[8:11])
    return "process_credentials", found | {"user_ns": _namespace(level, uid, gid, numbers[11])}


def _namespace(level: int, uid: int, gid: int, inode: int) -> dict[str, Any]:
    return {"level": level & _GREATEST_LEVEL, "uid": uid, "gid": gid, "ns": strict_names.namespace(inode, level == 0)}


def _map(_: str, value: Value) -> Shown:
    type, *sizes = value.numbers
    found = dict(zip(("KeySize", "ValueSize", "MaxEntries"), sizes, strict=True))
    return "bpf_map", {"MapType": strict_names.name_of("BPF_MAP_TYPE", type)} | found | {"MapName": _text(value)}


def _program(kind: str) -> Callable[[str, Value], Shown]:
    def read(_: str, value: Value) -> Shown:
        type, count = value.numbers
        return kind, {
            "ProgType": strict_names.name_of("BPF_PROG_TYPE", type),
            "InsnCnt": count,
            "ProgName": _text(value),
        }

    return read


def _perf_event(_: str, value: Value) -> Shown:
    type, config, offset = value.numbers
    members = {"Type": strict_names.name_of("PERF_TYPE", type), "Config": str(config), "ProbeOffset": str(offset)}
    return "perf_event", {"KprobeFunc": _text(value)} | members


def _module(_: str, value: Value) -> Shown:
    signed = {} if value.numbers[0] == _UNKNOWN else {"signature_ok": bool(value.numbers[0])}
    tainted = strict_names.taints(value.numbers[1]) if value.form.type is Type.MODULE else []
    return "module", {"name": _text(value)} | signed | ({"tainted": tainted} if tainted else {})


_BUFFERS = (Type.BUFFER, Type.IOVEC, Type.IOV_ITER)
_READERS: Mapping[Type, Callable[[str, Value], Shown]] = {
    **dict.fromkeys(_BUFFERS, _bytes),
    Type.SOCK: _socket,
    Type.SOCKET: _socket,
    Type.SKB: _packet,
    Type.SOCKADDR: _socket_address,
    Type.CRED: _credentials,
    Type.USER_NAMESPACE: lambda _, value: ("user_ns", _namespace(*value.numbers)),
    Type.CAPABILITY_SET: lambda name, value: (
        name if name.startswith("cap_") else "kernel_cap_t",
        f"{value.numbers[0]:016x}",
    ),
    Type.BPF_MAP: _map,
    Type.BPF_ATTR: _program("bpf_attr"),
    Type.BPF_PROGRAM: _program("bpf_prog"),
    Type.PERF_EVENT: _perf_event,
    Type.MODULE: _module,
    Type.LOAD_INFO: _module,
    Type.NET_DEVICE: lambda _, value: ("net_dev", {"name": _text(value)}),
}


def _address(address: IPv4Address | IPv6Address | None) -> str:
    return "" if address is None else str(address)
