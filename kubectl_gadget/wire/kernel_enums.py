"""Names of the Linux constants that arguments of hooks contain, as the kernel has them (kernel_enums.txt) and as the
schema of security events has them. It imports only the standard library.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# The kernel's. In an agent, this module may be in a zip, so its loader reads the table.

_loader: Any = __spec__.loader


def _read() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in _loader.get_data(__file__.rpartition(".")[0] + ".txt").decode().splitlines():
        word, _, group = line.partition(" ")
        if word == "group":
            names = found[group] = []
        elif word != "#":
            names.append("" if word == "-" else word)
    return found


_GROUPS = _read()
BPF_COMMANDS = _GROUPS["BPF_COMMANDS"]
"""Commands of bpf(2), without BPF_."""
BPF_PROGRAM_TYPES = _GROUPS["BPF_PROGRAM_TYPES"]
"""Without BPF_PROG_TYPE_."""
BPF_MAP_TYPES = _GROUPS["BPF_MAP_TYPES"]
"""Without BPF_MAP_TYPE_."""
CAPABILITIES = _GROUPS["CAPABILITIES"]
"""Without CAP_."""
TCP_STATES = _GROUPS["TCP_STATES"]
"""Without TCP_; from 1."""


# The schema's: the enums and texts of Tetragon's API (api/v1/tetragon/*.proto), which are facts, not code. Strict
# readers insist on these. Note: some names are not the kernel's (`DAC_OVERRIDE` lacks its CAP_), and a value
# without a name in one of its enums is written as a number, which proto3 readers accept.


_NAMES: Mapping[str, Mapping[int, str]] = {
    "AF": {
        0: "UNSPEC", 1: "UNIX", 2: "INET", 3: "AX25", 4: "IPX", 5: "APPLETALK", 7: "BRIDGE", 9: "X25", 10: "INET6",
        15: "KEY", 16: "NETLINK", 17: "PACKET", 21: "RDS", 24: "PPPOX", 26: "LLC", 27: "IB", 28: "MPLS", 29: "CAN",
        30: "TIPC", 31: "BLUETOOTH", 32: "IUCV", 33: "RXRPC", 38: "ALG", 39: "NFC", 40: "VSOCK", 41: "KCM",
        42: "QIPCRTR", 43: "SMC", 44: "XDP", 45: "MCTP",
    },
    "SOCK": {1: "STREAM", 2: "DGRAM", 3: "RAW", 4: "RDM", 5: "SEQPACKET", 6: "DCCP", 10: "PACKET"},
    "IPPROTO": {
        0: "IP", 1: "ICMP", 2: "IGMP", 4: "IPIP", 6: "TCP", 17: "UDP", 33: "DCCP", 41: "IPV6", 46: "RSVP", 47: "GRE",
        50: "ESP", 51: "AH", 58: "ICMPV6", 103: "PIM", 108: "COMP", 132: "SCTP", 136: "UDPLITE", 137: "MPLS",
        255: "RAW", 262: "MPTCP",
    },
    "PERF_TYPE": dict(enumerate(("HARDWARE", "SOFTWARE", "TRACEPOINT", "HW_CACHE", "RAW", "BREAKPOINT"))),
    "TCP": dict(enumerate(TCP_STATES[1:], 1)),
    "BPF_PROG_TYPE": dict(enumerate(BPF_PROGRAM_TYPES)),
    "BPF_MAP_TYPE": dict(enumerate(BPF_MAP_TYPES)),
}  # fmt: skip
_SECURE_BITS = [
    "NoRoot",
    "NoRootLocked",
    "NoSetUidFixup",
    "NoSetUidFixupLocked",
    "KeepCaps",
    "KeepCapsLocked",
    "NoCapAmbientRaise",
    "NoCapAmbientRaiseLocked",
]
_TAINTS = {
    0: "PROPRIETARY_MODULE",
    1: "FORCED_MODULE",
    10: "STAGED_MODULE",
    12: "OUT_OF_TREE_MODULE",
    13: "UNSIGNED_MODULE",
    15: "KERNEL_LIVE_PATCH_MODULE",
    18: "TEST_MODULE",
}
"""By bit of a module's `taints` (include/linux/panic.h); the enum has no single-bit values for the others."""
_LAST_COMMAND = 36
_DAC_OVERRIDE = 1


def name_of(kind: str, number: int) -> str:
    """`AF_INET`, for the kind `AF`; the number when it has no name here, as in all functions below."""
    return f"{kind}_{_NAMES[kind][number]}" if number in _NAMES[kind] else str(number)


def bpf_command(number: int) -> str | int:
    """`BPF_PROG_LOAD`, a member of an enum."""
    return f"BPF_{BPF_COMMANDS[number]}" if 0 <= number <= _LAST_COMMAND else number


def capability(number: int) -> str | int:
    """`CAP_SYS_ADMIN`, a member of an enum, in which CAP_DAC_OVERRIDE is `DAC_OVERRIDE`."""
    if not 0 <= number < len(CAPABILITIES):
        return number
    return CAPABILITIES[number] if number == _DAC_OVERRIDE else f"CAP_{CAPABILITIES[number]}"


@lru_cache(maxsize=1024)
def capabilities(bits: int) -> list[str | int]:
    """The names in a set of capabilities. The list is cached and must not be changed."""
    return [capability(number) for number in range(bits.bit_length()) if bits >> number & 1]


def capability_sets(permitted: int, effective: int, inheritable: int) -> dict[str, list[str | int]]:
    """The three sets by name, without empty ones."""
    sets = {"permitted": permitted, "effective": effective, "inheritable": inheritable}
    return {name: capabilities(bits) for name, bits in sets.items() if bits}


def secure_bits(bits: int) -> list[str | int]:
    """`SecBitKeepCaps`, …, members of an enum; bits without a name there are given as numbers."""
    found: list[str | int] = []
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            found.append(f"SecBit{_SECURE_BITS[number]}" if number < len(_SECURE_BITS) else 1 << number)
    return found


def taints(bits: int) -> list[str]:
    """The taints of a kernel module: `TAINT_UNSIGNED_MODULE`, …"""
    return [f"TAINT_{name}" for bit, name in _TAINTS.items() if bits >> bit & 1]


def system_call(name: str, machine: str) -> str:
    """The kernel's function for `sys_read`: `__x64_sys_read`. Other names are unchanged, such as calls of 32-bit
    calls."""
    return f"__{'arm64' if machine == 'aarch64' else 'x64'}_{name}" if name.startswith("sys_") else name


def namespace(number: int, is_own: bool) -> dict[str, int | bool]:
    """One namespace; `is_own`: it is the node's."""
    return {"inum": number, **({"is_host": True} if is_own else {})}
