"""Names of Linux's process constants: signals and their codes, capabilities, namespaces, ptrace requests.

They are the same on x86-64 and arm64. Positive signal codes have a different meaning for each signal.
"""

from kubectl_gadget.gadgets.schema import UNKNOWN
from kubectl_gadget.linux.network import tcp_state_name
from kubectl_gadget.linux.tables import Namer, constants, flag_names
from kubectl_gadget.wire.kernel_enums import CAPABILITIES

_SIGNALS = (
    "", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
    "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP",
    "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",
    "SIGPWR", "SIGSYS",
)  # fmt: skip
_FIRST_REALTIME, _LAST = 34, 64
"""The C library reserves 32 and 33."""
_CODES = dict(constants("SI"))
_NAMESPACES = constants("CLONE_NEW")

NAMESPACE_KINDS = ("uts", "ipc", "mnt", "pid", "pid_for_children", "net", "time", "time_for_children", "cgroup", "user")
"""The kinds in the order of the bits in gadget_namespace_kinds (bpf/include/gadget/credentials.h)."""
_NONE = 0xFFFFFFFF
ptrace_request_name = Namer(dict(constants("PTRACE")), _NONE)
"""`PTRACE_ATTACH` for 16"""
prctl_option_name = Namer(dict(constants("PR")), _NONE)
"""`PR_CAPBSET_DROP` for 24"""
capability_name = Namer([f"CAP_{name}" for name in CAPABILITIES])
"""`CAP_SYS_ADMIN` for 21"""


def signal_name(number: int) -> str:
    """`SIGKILL` for 9, `SIGRTMIN+1` for 35, empty for 0 (no signal), and the number itself for any other."""
    if 0 <= number < len(_SIGNALS):
        return _SIGNALS[number]
    if _FIRST_REALTIME <= number <= _LAST:
        return f"SIGRTMIN+{number - _FIRST_REALTIME}" if number > _FIRST_REALTIME else "SIGRTMIN"
    return str(number)


SIGNAL_NAMES = tuple(signal_name(number) for number in range(1, _LAST + 1) if not signal_name(number).isdecimal())
"""all that signal_name() knows, in the order of their numbers"""


def signal_set_names(bits: int) -> str:
    """`SIGINT|SIGTERM` for a set of signals, whose lowest bit is signal 1; `none` for an empty set."""
    return "|".join(signal_name(number + 1) for number in range(bits.bit_length()) if bits >> number & 1) or "none"


def signal_code_name(signal: int, code: int) -> str:
    """`SI_USER`, `SEGV_MAPERR`: the cause of a signal (siginfo's si_code); the number itself if it has no name here."""
    return dict(constants(signal_name(signal))).get(code) or _CODES.get(code, str(code))


_ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1
_FEW = 8


def capability_names(bits: int) -> str:
    """`CAP_KILL|CAP_SETUID` for a set of capabilities; `all` for every capability with a name, `none` for an empty set;
    an empty text if the set is unknown."""
    if bits == UNKNOWN:
        return ""
    if bits == 0:
        return "none"
    if bits == _ALL_CAPABILITIES:
        return "all"
    return "|".join(capability_name(number) for number in range(bits.bit_length()) if bits >> number & 1)


def capability_summary(bits: int) -> str:
    """The same for tables: `all but CAP_SYS_TIME` if few are missing. Not for filters: the text contains the names of
    the missing ones."""
    missing = ~bits & _ALL_CAPABILITIES
    if bits & ~_ALL_CAPABILITIES or not 0 < missing.bit_count() <= _FEW:
        return capability_names(bits)
    return f"all but {capability_names(missing)}"


def namespace_names(flags: int) -> str:
    """`CLONE_NEWUSER|CLONE_NEWNET` for the flags of clone, unshare and setns."""
    return flag_names(flags, _NAMESPACES)


def namespace_kind_names(bits: int) -> str:
    """`uts|ipc` for a set of kinds of namespaces; empty if the set is unknown."""
    return "" if bits == _NONE else flag_names(bits, [(1 << bit, name) for bit, name in enumerate(NAMESPACE_KINDS)])


# Names of Linux's numbers in snapshots: states of tasks and sockets, file types, device numbers.


_TASK_STATES = (
    (0x20, "zombie"),
    (0x10, "dead"),
    (0x08, "traced"),
    (0x04, "stopped"),
    (0x40, "parked"),
    (0x02, "blocked"),
    (0x01, "sleeping"),
)
_NO_LOAD_BLOCKED = 0x402
_FILE_TYPES = {
    0o170000: "",
    0o010000: "pipe", 0o020000: "character", 0o040000: "directory", 0o060000: "block", 0o100000: "regular",
    0o120000: "link", 0o140000: "socket", 0: "anonymous",
}  # fmt: skip
_CONNECTED, _UNCONNECTED = 256, 257


def task_state_name(state: int) -> str:
    """`running` (or waiting for a CPU), `sleeping`, `blocked` (uninterruptible), `idle`, `zombie` and so on."""
    if state & _NO_LOAD_BLOCKED == _NO_LOAD_BLOCKED:
        return "idle"
    return next((name for bit, name in _TASK_STATES if state & bit), "running")


def file_type_name(type: int) -> str:
    """The file type in a mode (inode(7)) as a word; `anonymous` for kernel objects that have no type bits."""
    return _FILE_TYPES.get(type, oct(type))


def socket_state_name(state: int) -> str:
    """TCP's states; CONNECTED and UNCONNECTED for other protocols (bpf/snapshot_socket.bpf.c)."""
    return {_CONNECTED: "CONNECTED", _UNCONNECTED: "UNCONNECTED"}.get(state) or tcp_state_name(state)


def device_number_text(number: int) -> str:
    """`8:1`: major and minor number in the kernel's encoding (12 and 20 bits)."""
    return f"{number >> 20}:{number & 0xFFFFF}"


def protection_text(bits: int) -> str:
    """`r-x` for PROT_READ|PROT_EXEC; empty for no access."""
    if bits == 0xFFFFFFFF:
        return ""
    return "".join(letter if bits & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))
