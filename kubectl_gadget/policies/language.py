"""The language of policies: types of arguments, operators, Linux's names, patterns, and the schema of the YAML.

Tables that are data are in the YAML files beside this one. Two traps: sizes follow the policy API and not C
(`size_t` and `long` have 64 bits), and numbers are Linux's, and not of the system that the client runs on, which may be
macOS (Python's own `errno`, `signal` and `socket`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from kubectl_gadget.filters.cel import compile_pattern
from kubectl_gadget.kube.selectors import labels_field, metadata_field
from kubectl_gadget.linux.names import (
    ERRNO_NAMES,
    bpf_command_name,
    capability_name,
    protocol_name,
    signal_name,
    tcp_state_name,
)
from kubectl_gadget.linux.syscalls import syscall_names
from kubectl_gadget.policies.model import NAMESPACES, ActionKind, SystemCall, Test
from kubectl_gadget.yaml_files import SchemaField, own_data, own_schema
from kubectl_gadget.yaml_reader import Scalar, WrongYaml

# The types of arguments, and how each can be compared. `fd`, `kiocb` and `linux_binprm` are compared as the path of
# their file, `filename` as the text that the program passed.


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


def _type(group: Group, description: str = "", bits: int = 0, signed: bool = False) -> ArgumentType:
    number = f"{'signed' if signed else 'unsigned'} number of {bits} bits"
    return ArgumentType(group, description or number, bits, signed)


ARGUMENT_TYPES: Mapping[str, ArgumentType] = {
    name: _type(**type) for name, type in own_data(Path(__file__).with_name("argument_types.yaml")).items()
}
BUFFERS = ("char_buf", "char_iovec", "const_buf")
"""Types whose size is given elsewhere."""


def range_of(type: ArgumentType) -> tuple[int, int]:
    """The least and the greatest value of a numeric type."""
    return (-(1 << type.bits - 1), (1 << type.bits - 1) - 1) if type.signed else (0, (1 << type.bits) - 1)


# The operators of filters: their spellings (`GT`, `GreaterThan`, `gt`), and the test that each stands for.
# `NotSportPriv` really is spelt that way.


SET_OPERATORS = ("In", "NotIn")
BINARY_OPERATORS = (*SET_OPERATORS, "Prefix", "NotPrefix", "Postfix", "NotPostfix", "Glob", "NotGlob")
"""Glob and NotGlob are an extension of ours."""

_TESTS: Mapping[str, tuple[Test, bool]] = {
    name: (test, name.startswith("Not")) for name, test in own_data(Path(__file__).with_name("operators.yaml")).items()
}
ARGUMENT_OPERATORS = tuple(_TESTS)
WITHOUT_VALUES = ("SPortPriv", "NotSPortPriv", "DPortPriv", "NotDPortPriv", "CapabilitiesGained")
_SHORT = {"eq": "Equal", "neq": "NotEqual"}
_WRITTEN = {name.lower(): name for name in _TESTS} | _SHORT


def standard_name(written: str) -> str | None:
    """The standard spelling, such as `NotSPortPriv`; None when there is no such operator."""
    return _WRITTEN.get(written.lower())


def test_of(name: str) -> tuple[Test, bool]:
    """The test of an operator on arguments, and whether it is negated."""
    return _TESTS[name]


# The names that policies use for Linux's numbers: errors, signals, capabilities, address families, protocols, TCP
# states, file types, commands of bpf(), system calls.


ERRORS: Mapping[str, int] = {name: number for number, name in ERRNO_NAMES.items()}
SIGNALS: Mapping[str, int] = {
    signal_name(number): number for number in range(1, 65) if not signal_name(number).isdigit()
}
CAPABILITIES: Mapping[str, int] = {
    name: number for number in range(64) if (name := capability_name(number)).startswith("CAP_")
}
FAMILIES: Mapping[str, int] = {
    "AF_UNSPEC": 0, "AF_UNIX": 1, "AF_LOCAL": 1, "AF_INET": 2, "AF_AX25": 3, "AF_IPX": 4, "AF_APPLETALK": 5,
    "AF_INET6": 10, "AF_KEY": 15, "AF_NETLINK": 16, "AF_ROUTE": 16, "AF_PACKET": 17, "AF_RDS": 21, "AF_PPPOX": 24,
    "AF_IB": 27, "AF_MPLS": 28, "AF_CAN": 29, "AF_TIPC": 30, "AF_BLUETOOTH": 31, "AF_ALG": 38, "AF_VSOCK": 40,
    "AF_KCM": 41, "AF_QIPCRTR": 42, "AF_SMC": 43, "AF_XDP": 44, "AF_MCTP": 45,
}  # fmt: skip
"""include/linux/socket.h"""
PROTOCOLS: Mapping[str, int] = {
    f"IPPROTO_{protocol_name(number).upper()}": number for number in range(263) if not protocol_name(number).isdigit()
}
STATES: Mapping[str, int] = {f"TCP_{tcp_state_name(number)}": number for number in range(1, 13)}
FILE_TYPES: Mapping[str, int] = {
    "fifo": 0o010000, "pipe": 0o010000, "chr": 0o020000, "char": 0o020000, "dir": 0o040000, "blk": 0o060000,
    "block": 0o060000, "reg": 0o100000, "regular": 0o100000, "lnk": 0o120000, "link": 0o120000, "sock": 0o140000,
    "socket": 0o140000,
}  # fmt: skip
"""S_IFMT of i_mode"""
BPF_COMMANDS: Mapping[str, int] = {
    f"BPF_{name.removeprefix('BPF_')}": number
    for number in range(64)
    if not (name := bpf_command_name(number)).isdigit()
}

_SYSTEM_CALL = re.compile(r"(?:(?P<abi>i386|arm32|x64|arm64)/)?(?P<prefix>__x64_|__arm64_|__ia32_)?sys_(?P<name>\w+)")
_ABIS = {"i386": "i386", "__ia32_": "i386", "arm32": "arm32"}
_MANUALS_NAMES: Mapping[str, str] = {
    **{"newstat": "stat", "newfstat": "fstat", "newlstat": "lstat", "newuname": "uname", "sendfile64": "sendfile"},
    **{"fadvise64_64": "fadvise64", "umount": "umount2"},
}
"""The manual's names, by the names that the kernel's functions have, where the two differ."""
MACHINES = ("x86_64", "aarch64")
COMPAT_CALL = 1 << 31
"""Set in a `syscall64` of a 32-bit program."""
_MACHINE_OF_ABI: Mapping[str, str] = {"i386": "x86_64", "arm32": "aarch64"}


@cache
def system_calls(abi: str = "") -> frozenset[str]:
    """The names of all system calls of one 32-bit ABI; with an empty `abi`, the calls of the 64-bit architectures."""
    if abi:
        return frozenset(syscall_names(abi).values())
    return frozenset([*(name for machine in MACHINES for name in syscall_names(machine).values()), *_MANUALS_NAMES])


@cache
def _numbers(table: str) -> Mapping[str, int]:
    return {name: number for number, name in syscall_names(table).items()}


def machines_of(call: SystemCall) -> tuple[str, ...]:
    """The architectures, by uname's name, whose kernels support the call's ABI."""
    return (_MACHINE_OF_ABI[call.abi],) if call.abi else MACHINES


def number_on(call: SystemCall, machine: str) -> int | None:
    """A call's number in a `syscall64` value of an architecture; None: there is no such call."""
    if machine not in machines_of(call):
        return None
    if call.abi:
        number = _numbers(call.abi).get(call.name)
        return None if number is None else number | COMPAT_CALL
    return _numbers(machine).get(_MANUALS_NAMES.get(call.name, call.name))


def system_call(written: str) -> SystemCall | None:
    """Parses `sys_write`, `__x64_sys_write`, `i386/sys_write`; None when it is not written like a system call."""
    match = _SYSTEM_CALL.fullmatch(written)
    if match is None:
        return None
    abi = _ABIS.get(match["abi"] or match["prefix"] or "", "")
    return SystemCall(match["name"], "i386" if abi == "i386" else "arm32" if abi else "")


def is_known(call: SystemCall) -> bool:
    """Return True if some architecture has such a call."""
    return call.name in system_calls(call.abi)


_LSM_FUNCTIONS = {"bprm_check_security": "security_bprm_check", "userns_create": "security_create_user_ns"}
"""LSM hooks whose security_… function has another name."""
_LSM_HOOKS = {function: hook for hook, function in _LSM_FUNCTIONS.items()}


def lsm_function(hook: str) -> str:
    """The kernel function that calls an LSM hook: `security_file_open`."""
    return _LSM_FUNCTIONS.get(hook, f"security_{hook}")


def lsm_hook(function: str) -> str | None:
    """The LSM hook that a function calls; None when the function calls none."""
    if not function.startswith("security_"):
        return None
    return _LSM_HOOKS.get(function, function.removeprefix("security_"))


# Patterns: regular expressions for function names, and globs for paths. The API has the syntax of RE2, and agents,
# which have no RE2, search by Python's; only what both accept is valid.


_PARTS = r"\*\*|\*|\?|\[!?\]?[^\]]*\]|."


def check_pattern(pattern: str) -> None:
    """Raises ValueError, with a message, unless it is a regular expression that is valid in both syntaxes."""
    try:
        compile_pattern(pattern)
        re.compile(pattern)
    except (ValueError, re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r} is not a valid regular expression: {error}") from None


def check_glob(scalar: Scalar) -> None:
    """Raises WrongYaml when it is not a valid glob."""
    for part in re.findall(_PARTS, scalar.text, re.DOTALL):
        if _is_class(part) and not part.isascii():
            raise WrongYaml(scalar.place, f"{part!r}: brackets match one byte, but these characters have several")
        try:
            re.compile(glob_part_pattern(part))
        except re.error as error:
            raise WrongYaml(scalar.place, f"{part!r} is not a valid set of characters: {error}") from None


def glob_parts(pattern: str) -> list[str]:
    """Return a glob's parts: `**`, `*`, and others, which match one byte each (glob_bytes)."""
    found: list[str] = []
    for part in re.findall(_PARTS, bytewise(pattern), re.DOTALL):
        found += [part] if part == "**" or _is_class(part) else part
    return found


@cache
def glob_bytes(part: str) -> frozenset[int]:
    matches = re.compile(glob_part_pattern(part), re.DOTALL).fullmatch
    return frozenset(byte for byte in range(256) if matches(chr(byte)))


def bytewise(text: str) -> str:
    """The text with one character for each byte of its encoding."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _is_class(part: str) -> bool:
    return part.startswith("[") and len(part) > 2


def glob_part_pattern(part: str) -> str:
    """The regular expression for a part."""
    if part == "**":
        return ".*"
    if part == "*":
        return "[^/]*"
    if part == "?":
        return "[^/]"
    if _is_class(part):
        negated = part[1] == "!"
        inner = re.sub(r"([\\\[\]^&~|])", r"\\\1", part[2 if negated else 1 : -1])
        return f"(?!/)[{'^' if negated else ''}{inner}]"
    return re.escape(part)


# The schema of TracingPolicy, for reading (`yaml_reader.py` rejects any other field) and for `policy explain`. A list
# of choices that other tables decide has only a name in policy_schema.yaml, and stands in `_CHOICES`.


API_VERSION = "cilium.io/v1alpha1"
POLICY_KINDS = ("TracingPolicy", "TracingPolicyNamespaced")
NAMESPACE_NAMES = {"".join(word.capitalize() for word in name.split("_")): name for name in NAMESPACES}
"""By the spelling in policies: Uts, PidForChildren, …"""
_CHOICES = {
    "types of arguments": tuple(ARGUMENT_TYPES),
    "operators for arguments": ARGUMENT_OPERATORS,
    "operators for binaries": BINARY_OPERATORS,
    "operators for sets": SET_OPERATORS,
    "kinds of namespaces": tuple(NAMESPACE_NAMES),
    "kinds of actions": get_args(ActionKind),
}


_OF_OBJECTS: dict[str, Callable[[str, Mapping[str, Any]], SchemaField]] = {
    "labels": lambda name, written: labels_field(name, written["description"]),
    "metadata": lambda _, written: metadata_field(written["description"], written["name"], written["namespace"]),
}
POLICY = own_schema(Path(__file__).with_name("policy_schema.yaml"), "policy", _CHOICES, _OF_OBJECTS)
