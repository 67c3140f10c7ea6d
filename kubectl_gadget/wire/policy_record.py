"""Records of the engine, `struct policy_event` of bpf/include/policy/event.h: head, set of selectors, values.

The trap: types are numbers shared with the C code, and the type determines how many numbers a value begins with. The
reader of each type in bpf/include/policy/values.h defines their meaning.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from kubectl_gadget.wire.policy_events import Credentials, ExecId

FORMAT = 5
"""The version of records and of their metadata (record_reader.py). Increment it with every change of either: installed
policies outlive the agents and clients that know them."""
HEAD = 256
"""Bytes of struct policy_event, which begins with struct gadget_record of RECORD bytes."""
RECORD = 80
OVERRIDDEN = (1 << 31) - 1
"""The verdict when a program's registers were changed and its return value is not known."""
REPLACED = OVERRIDDEN - 1
"""The verdict when another function of the program ran instead of the one that was called."""
_WORDS = {OVERRIDDEN: "registers", REPLACED: "function"}
_EVENT = struct.Struct("<IiIHHQIIQII")
_IDS_AT = 28
"""Offset of uid and gid in struct gadget_record."""
_IDS = struct.Struct("<II")
_COMM_AT, _COMM_BYTES = 40, 16
_CREDENTIALS_AT = RECORD + _EVENT.size
_CREDENTIALS = struct.Struct("<QQQ8I")
_NAMESPACES_AT = _CREDENTIALS_AT + _CREDENTIALS.size
_NAMESPACES = struct.Struct("<11I4x")
FILE_ID_AT = _NAMESPACES_AT + _NAMESPACES.size
KERNEL_STACK_AT, USER_STACK_AT = FILE_ID_AT + 8, FILE_ID_AT + 16
_FILE_ID = struct.Struct("<Q")
_VALUE = struct.Struct("<BBH")
_NO_ADDRESS = b"\xff" * 16
_HASH_SLOT = 255
_HASHES = {1: ("md5", 16), 2: ("sha1", 20), 4: ("sha256", 32), 5: ("sha384", 48), 6: ("sha512", 64), 7: ("sha224", 28)}
"""Numbers of include/uapi/linux/hash_info.h, with name and size in bytes."""
_UNREADABLE, _CUT = 1, 2
_TYPE_SHIFT = 2
"""The two lowest bits of a value's flags are UNREADABLE and CUT; the bits above them hold its type."""


class Type(IntEnum):
    """enum policy_type."""

    AUTO = 0
    """the node determines the type from its BTF; never in a record"""
    NUMBER = 1
    STRING = 2
    BUFFER = 3
    FILE = 4
    PATH = 5
    FD = 6
    DENTRY = 7
    BINPRM = 8
    SOCK = 9
    SOCKET = 10
    SOCKADDR = 11
    CRED = 12
    KIOCB = 13
    USER_NAMESPACE = 14
    MODULE = 15
    BPF_MAP = 16
    BPF_PROGRAM = 17
    NET_DEVICE = 18
    SKB = 19
    CAPABILITY_SET = 20
    DATA_LOC = 21
    IOVEC = 22
    IOV_ITER = 23
    LOAD_INFO = 24
    BPF_ATTR = 25
    PERF_EVENT = 26
    PID = 27
    BINARY = 28
    PARENT_BINARY = 29
    NAMESPACES = 30
    CAPABILITIES = 31
    NAMESPACE_CHANGES = 32
    CAPABILITY_CHANGES = 33
    STARTED_BY = 34
    CAPABILITIES_GAINED = 35
    EXPRESSION = 36
    FUNCTION = 37
    NUMBER_FORMS = 40
    """a number, in records only: the three lowest bits hold its width and whether it is signed"""


NUMBERS = {
    Type.NUMBER: 1,
    Type.CAPABILITY_SET: 1,
    Type.FUNCTION: 1,
    Type.BUFFER: 1,
    Type.IOVEC: 1,
    Type.IOV_ITER: 1,
    Type.PID: 2,
    Type.MODULE: 2,
    Type.LOAD_INFO: 2,
    Type.BPF_ATTR: 2,
    Type.PERF_EVENT: 3,
    Type.BPF_PROGRAM: 2,
    Type.PATH: 3,
    Type.DENTRY: 3,
    Type.FILE: 4,
    Type.BINPRM: 4,
    Type.KIOCB: 4,
    Type.BINARY: 4,
    Type.PARENT_BINARY: 4,
    Type.USER_NAMESPACE: 4,
    Type.BPF_MAP: 4,
    Type.FD: 5,
    Type.SOCK: 8,
    Type.SOCKET: 8,
    Type.SOCKADDR: 8,
    Type.SKB: 8,
    Type.NAMESPACES: 11,
    Type.CRED: 12,
    Type.CAPABILITIES: 12,
}
"""The count of numbers that a value of each type begins with."""
WITH_ADDRESSES = (Type.SOCK, Type.SOCKET, Type.SOCKADDR, Type.SKB)


class Form(NamedTuple):
    """The layout of a slot's value in a record."""

    type: Type
    size: int
    """for numbers, in bytes"""
    signed: bool


@dataclass(frozen=True)
class Value:
    """A slot's value."""

    form: Form
    numbers: tuple[int, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address | None, ...] = ()
    text: bytes = b""
    unreadable: bool = False
    cut: bool = False


def verdict_text(verdict: int, error_name: Callable[[int], str]) -> str:
    """Return the result that a call got instead of running, for people."""
    if verdict in _WORDS:
        return _WORDS[verdict]
    return error_name(-verdict) if verdict < 0 else str(verdict)


def blocks(verdict: int) -> bool:
    """True if the attempted operation is known not to have happened."""
    return verdict not in (0, OVERRIDDEN)


def done_text(blocked: bool, verdict: str) -> str:
    """`BLOCKED EPERM SIGKILL`, `SET registers`; a signal alone does not block anything: `SENT SIGKILL`."""
    done = "BLOCKED" if blocked else "SET" if verdict.startswith(_WORDS[OVERRIDDEN]) else "SENT"
    return f"{done} {verdict}".rstrip()


def function_called(value: Value | None) -> str:
    """The function's name in a slot of type FUNCTION; empty: none."""
    if value is None:
        return ""
    return value.text.decode("utf-8", "replace") or f"sys_{value.numbers[0]}"


@dataclass(frozen=True)
class Caller:
    """The calling thread at the time of the event."""

    credentials: Credentials
    namespaces: tuple[int, ...]
    """inode numbers, in the order of struct gadget_namespaces"""
    host_namespaces: int
    """a bit for each namespace that is the node's own; all ones: unknown"""
    comm: str
    """the thread's name"""


@dataclass(frozen=True)
class Found:
    """One decoded record."""

    hook: int
    verdict: int
    """what the kernel returned instead of running the call; 0: nothing"""
    signal: int
    """the signal sent to the process; 0: none"""
    selectors: tuple[int, ...]
    """the numbers of the bits that are set"""
    values: dict[int, Value]
    """by slot"""
    exec: ExecId
    parent: ExecId
    caller: Caller
    file_id: int
    """identifies a followed file; 0: none"""
    hash: str
    """a file's IMA hash: sha256:…; empty: none"""


def read(record: bytes | memoryview, forms: Callable[[int], Sequence[Form]] | None = None) -> Found:
    """Decodes a record. `forms` returns the layout of a hook's slots; None: values are not decoded."""
    hook, verdict, signal, words, count, *who = _EVENT.unpack_from(record, RECORD)
    left = int.from_bytes(record[HEAD : HEAD + 8 * words], "little")
    bits = []
    while left:
        bits.append((left & -left).bit_length() - 1)
        left &= left - 1
    values: dict[int, Value] = {}
    offset = HEAD + 8 * words
    known = forms(hook) if forms and count else ()
    hash = ""
    for _ in range(count if forms else 0):
        number, lacks, length = _VALUE.unpack_from(record, offset)
        offset += _VALUE.size
        if number == _HASH_SLOT:
            hash = _hash(bytes(record[offset : offset + length]))
        elif number in values:
            # The next piece of a buffer, which is complete when it has as many bytes as its first number says.
            text = values[number].text + record[offset : offset + length]
            values[number] = replace(values[number], text=text, cut=len(text) < values[number].numbers[0])
        else:
            values[number] = _value(known[number], bytes(record[offset : offset + length]), lacks)
        offset += length
    (file_id,) = _FILE_ID.unpack_from(record, FILE_ID_AT)
    process, parent = ExecId(who[0], who[1]), ExecId(who[3], who[4])
    return Found(hook, verdict, signal, tuple(bits), values, process, parent, _caller(record), file_id, hash)


def comm_of(record: bytes | memoryview) -> str:
    """The thread's name, in any record that begins with struct gadget_record."""
    comm = bytes(record[_COMM_AT : _COMM_AT + _COMM_BYTES])
    return comm.partition(b"\0")[0].decode("utf-8", "replace")


def _hash(data: bytes) -> str:
    """`data` is a number of the kernel's enum hash_algo and the hash, possibly padded with zeros."""
    name, size = _HASHES.get(data[0], (f"algorithm-{data[0]}", len(data)))
    return f"{name}:{data[1 : 1 + size].hex()}"


def _caller(record: bytes | memoryview) -> Caller:
    uid, gid = _IDS.unpack_from(record, _IDS_AT)
    permitted, effective, inheritable, euid, suid, fsuid, egid, sgid, fsgid, _, securebits = _CREDENTIALS.unpack_from(
        record, _CREDENTIALS_AT
    )
    ids = (uid, gid, euid, egid, suid, sgid, fsuid, fsgid)
    *namespaces, host = _NAMESPACES.unpack_from(record, _NAMESPACES_AT)
    credentials = Credentials(*ids, securebits, permitted, effective, inheritable)
    return Caller(credentials, tuple(namespaces), host, comm_of(record))


def _value(form: Form, data: bytes, lacks: int) -> Value:
    form = _form(form, lacks >> _TYPE_SHIFT)
    count = NUMBERS.get(form.type, 0)
    numbers = struct.unpack_from(f"<{count}{'q' if form.signed else 'Q'}", data)
    place = 8 * count
    addresses: tuple[IPv4Address | IPv6Address | None, ...] = ()
    if form.type in WITH_ADDRESSES:
        addresses = (_address(data[place : place + 16]), _address(data[place + 16 : place + 32]))
        place += 32
    return Value(form, numbers, addresses, data[place:], bool(lacks & _UNREADABLE), bool(lacks & _CUT))


def _form(form: Form, type: int) -> Form:
    """The form that the record gives: the node may have determined an argument's type."""
    if type < Type.NUMBER_FORMS:
        return form._replace(type=Type(type))
    bits = type - Type.NUMBER_FORMS
    return Form(Type.NUMBER, 1 << (bits >> 1), bool(bits & 1))


def _address(data: bytes) -> IPv4Address | IPv6Address | None:
    if data == _NO_ADDRESS:
        return None
    address = IPv6Address(data)
    return address.ipv4_mapped or address
