"""The types of arguments, and how each can be compared.

Sizes are those of the policy API, not of C: `size_t` and `long` have 64 bits. The trap: `fd`, `kiocb` and
`linux_binprm` are compared as the path of their file, `filename` as the text that the program passed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kubectl_gadget.policies.model import Test

Group = Literal["number", "text", "path", "socket", "address", "unix address", "capabilities", "opaque", "auto"]

_TEXT: tuple[Test, ...] = ("equal", "prefix", "postfix", "substring", "substring_ignore_case", "glob")
TESTS_OF_GROUP: Mapping[Group, tuple[Test, ...]] = {
    "number": ("equal", "less", "greater", "range", "mask", "expression"),
    "text": _TEXT,
    "path": (*_TEXT, "file_type", "same_file"),
    "socket": (
        *("source_address", "destination_address", "source_port", "destination_port"),
        *("protocol", "family", "state"),
    ),
    "address": ("source_address", "source_port", "family"),
    "unix address": (*_TEXT, "family"),
    "capabilities": ("equal", "mask", "capabilities_gained"),
    "opaque": (),
    "auto": ("equal", "less", "greater", "range", "mask", "expression", *_TEXT[1:]),
}


@dataclass(frozen=True)
class ArgumentType:
    """One type. `bits` and `signed` apply to numbers only."""

    group: Group
    description: str
    bits: int = 0
    signed: bool = False


def _number(bits: int, signed: bool, description: str = "") -> ArgumentType:
    text = f"{'signed' if signed else 'unsigned'} number of {bits} bits"
    return ArgumentType("number", description or text, bits, signed)


ARGUMENT_TYPES: Mapping[str, ArgumentType] = {
    "auto": ArgumentType("auto", "what the kernel's BTF says"),
    "int": _number(32, True),
    "sint8": _number(8, True),
    "int8": _number(8, True),
    "uint8": _number(8, False),
    "sint16": _number(16, True),
    "int16": _number(16, True),
    "uint16": _number(16, False),
    "sint32": _number(32, True),
    "int32": _number(32, True),
    "uint32": _number(32, False),
    "sint64": _number(64, True),
    "int64": _number(64, True),
    "uint64": _number(64, False),
    "long": _number(64, True),
    "ulong": _number(64, False),
    "size_t": _number(64, False),
    "capability": _number(32, True, "a capability's number, compared by name, too"),
    "bpf_cmd": _number(32, True, "a command of bpf(), compared by name, too"),
    "syscall64": _number(64, False, "a system call's number with its ABI, compared by name, too"),
    "string": ArgumentType("text", "a text that ends with NUL"),
    "char_buf": ArgumentType("text", "a buffer, see sizeArgIndex and returnCopy"),
    "char_iovec": ArgumentType("text", "several buffers (struct iovec)"),
    "const_buf": ArgumentType("text", "an array in a structure"),
    "data_loc": ArgumentType("text", "a text of a tracepoint (__data_loc)"),
    "filename": ArgumentType("text", "struct filename: the name as the program passed it, which is not the file yet"),
    "net_device": ArgumentType("text", "struct net_device: its name"),
    "fd": ArgumentType("path", "a file descriptor: the path of its file"),
    "file": ArgumentType("path", "struct file: its path"),
    "path": ArgumentType("path", "struct path"),
    "dentry": ArgumentType("path", "struct dentry: its path within its mount; the mount is unknown"),
    "linux_binprm": ArgumentType("path", "struct linux_binprm: the path of the program to be run"),
    "kiocb": ArgumentType("path", "struct kiocb: the path of its file"),
    "sock": ArgumentType("socket", "struct sock: family, protocol, state, both addresses"),
    "socket": ArgumentType("socket", "struct socket: the same"),
    "skb": ArgumentType("socket", "struct sk_buff: the packet's addresses"),
    "sockaddr": ArgumentType("address", "struct sockaddr: compared as a source, even when it is where a socket goes"),
    "sockaddr_un": ArgumentType("unix address", "struct sockaddr_un: a path, or @ and a name"),
    "kernel_cap_t": ArgumentType("capabilities", "a set of capabilities", 64),
    "cap_inheritable": ArgumentType("capabilities", "the inheritable set of a struct cred", 64),
    "cap_permitted": ArgumentType("capabilities", "the permitted set of a struct cred", 64),
    "cap_effective": ArgumentType("capabilities", "the effective set of a struct cred", 64),
    "cred": ArgumentType("opaque", "struct cred: ids and capabilities"),
    "user_namespace": ArgumentType("opaque", "struct user_namespace"),
    "iov_iter": ArgumentType("opaque", "struct iov_iter: where data come from or go to"),
    "load_info": ArgumentType("opaque", "struct load_info: a kernel module that is being loaded"),
    "module": ArgumentType("opaque", "struct module: a kernel module"),
    "bpf_attr": ArgumentType("opaque", "union bpf_attr: what bpf() was asked for"),
    "bpf_map": ArgumentType("opaque", "struct bpf_map"),
    "bpf_prog": ArgumentType("opaque", "struct bpf_prog"),
    "perf_event": ArgumentType("opaque", "struct perf_event"),
    "nop": ArgumentType("opaque", "not read"),
}

BUFFERS = ("char_buf", "char_iovec", "const_buf")
"""Types whose size is given elsewhere."""


def range_of(type: ArgumentType) -> tuple[int, int]:
    """The least and the greatest value of a numeric type."""
    return (-(1 << type.bits - 1), (1 << type.bits - 1) - 1) if type.signed else (0, (1 << type.bits) - 1)
