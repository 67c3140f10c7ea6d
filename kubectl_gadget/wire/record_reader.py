"""Reads events from the engine's records without the policies, by metadata that the client generated.

The metadata of each selector says what its events have in common, and where their values are; agents get the metadata
of installed policies as JSON. Note: one record contains several events, one for each policy whose selector matched.
"""

import base64
import errno
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Generic, TypeVar

from kubectl_gadget.wire import kernel_enums
from kubectl_gadget.wire.kernel_enums import system_call
from kubectl_gadget.wire.policy_events import EventArgument, EventHead, PolicyEvent
from kubectl_gadget.wire.policy_record import Form, Found, Type, Value, blocks, function_called, verdict_text

# Values as arguments of the JSON. Readers of this JSON are strict, so each kind has exactly the members and types of
# their schema. A value that could not be read becomes an error message, whatever its type, never an empty text or a 0.

_UNKNOWN = (1 << 64) - 1
_LOW = (1 << 32) - 1
_COMPAT_CALL = 1 << 31
_GREATEST_LEVEL = (1 << 31) - 1
_FILES = (Type.FILE, Type.PATH, Type.FD, Type.DENTRY, Type.BINPRM, Type.KIOCB)
_FILE_KINDS = {"path": "path", "linux_binprm": "linux_binprm"}
_IDS = ("uid", "gid", "suid", "sgid", "euid", "egid", "fsuid", "fsgid")
_OWN_KEY = os.urandom(16)
"""A key for the IDs of sockets: they derive from the address in the kernel's memory, which must not be shown."""
Shown = tuple[str, object]
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
    if path == "/" and stat.S_ISFIFO(mode):
        path = f"pipe:[{value.numbers[1]}]"  # as in /proc/PID/fd: it is in no directory
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
        return "capability", {"value": number, "name": str(kernel_enums.capability(number))}
    if name == "bpf_cmd":
        return "bpf_cmd", kernel_enums.bpf_command(number)
    if value.form.signed:
        return ("long" if size == 8 else "int"), number
    return ("size" if size == 8 else "uint"), number


def _socket(_: str, value: Value) -> Shown:
    numbers = value.numbers
    place = numbers[6] >> 32 | numbers[7] >> 32 << 32
    return "sock", _connection(value) | {
        "type": kernel_enums.name_of("SOCK", numbers[5]),
        "mark": numbers[6] & _LOW,
        "priority": numbers[7] & _LOW,
        "cookie": str(_cookie(place)),
        "state": kernel_enums.name_of("TCP", numbers[4]),
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


def _connection(value: Value) -> dict[str, object]:
    numbers = value.numbers
    return {
        "family": kernel_enums.name_of("AF", numbers[3]),
        "protocol": kernel_enums.name_of("IPPROTO", numbers[2]),
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
    family = kernel_enums.name_of("AF", value.numbers[3])
    if name == "sockaddr_un":
        return "sockaddrun", {"family": family, "path": _text(value).replace("\0", "@")}
    return "sockaddr", {
        "family": family,
        "addr": _address(value.addresses[1]) or _text(value).replace("\0", "@"),
        "port": value.numbers[1],
    }


def _credentials(_: str, value: Value) -> Shown:
    """The upper halves of the first four numbers belong to the secure bits and to the user namespace."""
    numbers = value.numbers
    found: dict[str, object] = {name: number & _LOW for name, number in zip(_IDS, numbers, strict=False)}
    bits, level, uid, gid = (number >> 32 for number in numbers[:4])
    if bits:
        found["securebits"] = kernel_enums.secure_bits(bits)
    found["caps"] = kernel_enums.capability_sets(*numbers[8:11])
    return "process_credentials", found | {"user_ns": _namespace(level, uid, gid, numbers[11])}


def _namespace(level: int, uid: int, gid: int, inode: int) -> dict[str, object]:
    return {"level": level & _GREATEST_LEVEL, "uid": uid, "gid": gid, "ns": kernel_enums.namespace(inode, level == 0)}


def _map(_: str, value: Value) -> Shown:
    type, *sizes = value.numbers
    found = dict(zip(("KeySize", "ValueSize", "MaxEntries"), sizes, strict=True))
    return "bpf_map", {"MapType": kernel_enums.name_of("BPF_MAP_TYPE", type)} | found | {"MapName": _text(value)}


def _program(kind: str) -> Callable[[str, Value], Shown]:
    def read(_: str, value: Value) -> Shown:
        type, count = value.numbers
        return kind, {
            "ProgType": kernel_enums.name_of("BPF_PROG_TYPE", type),
            "InsnCnt": count,
            "ProgName": _text(value),
        }

    return read


def _perf_event(_: str, value: Value) -> Shown:
    type, config, offset = value.numbers
    members = {"Type": kernel_enums.name_of("PERF_TYPE", type), "Config": str(config), "ProbeOffset": str(offset)}
    return "perf_event", {"KprobeFunc": _text(value)} | members


def _module(_: str, value: Value) -> Shown:
    signed = {} if value.numbers[0] == _UNKNOWN else {"signature_ok": bool(value.numbers[0])}
    tainted = kernel_enums.taints(value.numbers[1]) if value.form.type is Type.MODULE else []
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


# Metadata of a selector's events.


Where = TypeVar("Where")


_LONGEST_ID = 20
"""Bytes of a build ID."""
_HEAD = tuple(one.name for one in fields(EventHead))


@dataclass(frozen=True)
class EventMetadata(EventHead):
    """The members that events of one selector share, and the makers of the other members."""

    arguments: tuple[tuple[str, str], ...] = ()
    """type and label of each argument"""
    data: tuple[tuple[str, str], ...] = ()
    returned: tuple[str, str] | None = None
    system_call: bool = False
    """`function` is a system call, for which the kernel has another name on each architecture"""
    error: int = 0
    """for events at a return: what the function returns if the call was denied; 0: it cannot have been"""
    signal: int = 0
    """for events at a return: the signal that was sent at the call; 0: none"""

    def spec(self) -> dict[str, Any]:
        """The metadata as JSON."""
        return asdict(self)

    def event(self, machine: str, called: str = "", **own: object) -> PolicyEvent:
        """An event with `own` members, of a node with the architecture `machine`. `called`: the function, for a hook at
        several."""
        function = called or self.function
        symbol = system_call(function, machine) if self.system_call else ""
        common = {name: getattr(self, name) for name in _HEAD}
        return PolicyEvent(**(common | {"function": function, "symbol": symbol} | own))


def read_metadata(value: dict[str, Any]) -> EventMetadata:
    """The metadata from JSON. Raises KeyError or TypeError."""
    returned = value["returned"]
    lists = {
        "tags": tuple(value["tags"]),
        "arguments": tuple((str(type), str(label)) for type, label in value["arguments"]),
        "data": tuple((str(type), str(label)) for type, label in value["data"]),
        "returned": (str(returned[0]), str(returned[1])) if returned else None,
    }
    return EventMetadata(**(value | lists))


@dataclass(frozen=True)
class Match(Generic[Where]):
    """A policy's selector that matched a call."""

    place: Where
    """the selector"""
    values: tuple[Value | None, ...]
    """the values of the hook's arguments, in their order"""
    data: tuple[Value | None, ...]
    """the values of the hook's `data`"""
    returned: Value | None
    called: str
    """for a hook at several functions, the one that was called; else empty"""
    found: Found
    """the record, which has the verdict, the process and everything else that does not depend on the selector"""


Slot = int | None
"""The number of the slot in a record that has a value; None: no value."""


def match_of(
    found: Found, place: Where, values: Sequence[Slot], data: Sequence[Slot], returned: Slot, called: Slot
) -> Match[Where]:
    """The match of the selector `place` in a record, with the values in these slots."""

    def value(slot: Slot) -> Value | None:
        return None if slot is None else found.values.get(slot)

    return Match(
        place,
        tuple(map(value, values)),
        tuple(map(value, data)),
        value(returned),
        function_called(value(called)),
        found,
    )


def make_event(
    description: EventMetadata, matched: Match[Any], tid: int, spell: Callable[[int, int], str], machine: str
) -> PolicyEvent:
    """The event. `spell` describes verdict and signal for people; `machine` is the node's architecture."""
    found, (verdict, signal) = matched.found, _done(description, matched)
    own: dict[str, Any] = {"args": _arguments(description.arguments, matched.values, machine)}
    if description.returned is not None and matched.returned is not None:
        own["returned"] = argument(*description.returned, matched.returned, machine)
    if description.hook == "loader":
        own["path"], id = _loaded_file(matched.values)
        own["args"] = (EventArgument("build_id", id),)
    return description.event(
        machine,
        matched.called,
        process=found.exec,
        tid=tid,
        data=_arguments(description.data, matched.data, machine),
        blocked=blocks(verdict),
        verdict=spell(verdict, signal),
        credentials=found.caller.credentials,
        namespaces=found.caller.namespaces,
        host_namespaces=found.caller.host_namespaces,
        comm=found.caller.comm,
        ima_hash=found.hash,
        file_id=f"{found.file_id:x}" if found.file_id else "",
        **own,
    )


def _loaded_file(values: Sequence[Value | None]) -> tuple[str, str]:
    """Path, and build ID in hexadecimal, from the values that `spec.loader`'s hook read (policies/read/hooks.py); the
    latter is empty when the file has none."""
    file, size, *parts, _ = values
    assert file
    numbers = [part.numbers[0] if part else 0 for part in parts]
    length = min(size.numbers[0], _LONGEST_ID) if size else 0
    return file.text.decode("utf-8", "backslashreplace"), struct.pack("<QQI", *numbers)[:length].hex()


def _done(description: EventMetadata, matched: Match[object]) -> tuple[int, int]:
    """Return verdict and signal; at a return, the call's."""
    verdict, returned = matched.found.verdict, matched.returned
    if not verdict and description.error and returned is not None and not returned.unreadable:
        differs = (returned.numbers[0] - description.error) % (1 << 8 * returned.form.size)
        verdict = 0 if differs else description.error
    return verdict, matched.found.signal or description.signal


def _arguments(
    read: Sequence[tuple[str, str]], values: Sequence[Value | None], machine: str
) -> tuple[EventArgument, ...]:
    pairs = zip(read, values, strict=True)
    return tuple(argument(type, label, value, machine) for (type, label), value in pairs if value is not None)


# The records of a hook.


@dataclass(frozen=True)
class SelectorMetadata:
    """The static metadata of a selector's events, and the slots that their values come from."""

    description: EventMetadata
    policy: int
    """number of its policy among the installed ones"""
    slots: tuple[int | None, ...]
    data: tuple[int | None, ...]
    returned: int | None
    called: int | None


class HookReader:
    """Reads the records of one hook. Raises KeyError, TypeError or ValueError when `value` does not come from the
    client's metadata_spec()."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.forms = [Form(Type(type), int(size), bool(signed)) for type, size, signed in value["forms"]]
        self.selectors = [None if one is None else _selector(one) for one in value["selectors"]]
        self._slots = {form.type: number for number, form in enumerate(self.forms)}

    def of_process(self, found: Found, type: Type) -> Value | None:
        """A property of the process that a record contains: Type.BINARY, …"""
        return found.values.get(self._slots.get(type, -1))

    def events(self, found: Found, tid: int) -> Iterator[tuple[SelectorMetadata, PolicyEvent]]:
        """One event for each policy."""
        for bit in found.selectors:
            selector = self.selectors[bit]
            if selector is None:
                continue
            slots = (selector.slots, selector.data, selector.returned, selector.called)
            matched = match_of(found, selector, *slots)
            yield selector, make_event(selector.description, matched, tid, _verdict, os.uname().machine)


def _selector(value: dict[str, Any]) -> SelectorMetadata:
    return SelectorMetadata(
        *(read_metadata(value["metadata"]), value["policy"], tuple(value["slots"]), tuple(value["data"])),
        *(value["returned"], value["called"]),
    )


def _verdict(verdict: int, sent: int) -> str:
    """Uses this machine's names, since a record is decoded where it was made."""
    parts = [verdict_text(verdict, lambda error: errno.errorcode.get(error, str(error)))] if verdict else []
    if sent:
        known = sent in signal.Signals.__members__.values()
        parts.append(signal.Signals(sent).name if known else str(sent))
    return " ".join(parts)
