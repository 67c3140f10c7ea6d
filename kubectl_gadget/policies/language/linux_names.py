"""The names that policies use for Linux's numbers: errors, signals, capabilities, address families, protocols, TCP
states, file types, commands of bpf(), system calls.

The trap: Python's own `errno`, `signal` and `socket` have the numbers of the system that the client runs on, which may
be macOS; the numbers here are Linux's.
"""

import re
from collections.abc import Mapping
from functools import cache

from kubectl_gadget.linux.bpf import bpf_command_name
from kubectl_gadget.linux.files import ERRNO_NAMES
from kubectl_gadget.linux.network import protocol_name, tcp_state_name
from kubectl_gadget.linux.processes import capability_name, signal_name
from kubectl_gadget.linux.syscalls import syscall_names
from kubectl_gadget.policies.model import SystemCall

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
    """The names of all system calls of one 32-bit ABI; with an empty `abi`, those of the 64-bit architectures."""
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
    """Whether some architecture has such a call."""
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
