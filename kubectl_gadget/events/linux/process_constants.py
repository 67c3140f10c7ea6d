"""Names of Linux's process constants: signals and their codes, capabilities, namespaces, ptrace requests.

They are the same on x86-64 and arm64. The trap: positive signal codes have a different meaning for each signal.
"""

from collections.abc import Mapping, Sequence

from kubectl_gadget.events.vectors import UNKNOWN
from kubectl_gadget.policy_events.kernel_enums import CAPABILITIES

_SIGNALS = (
    "", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
    "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP",
    "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",
    "SIGPWR", "SIGSYS",
)  # fmt: skip
_FIRST_REALTIME, _LAST = 34, 64
"""The C library reserves 32 and 33."""
_CODES = {
    0: "SI_USER", 0x80: "SI_KERNEL", -1: "SI_QUEUE", -2: "SI_TIMER", -3: "SI_MESGQ", -4: "SI_ASYNCIO", -5: "SI_SIGIO",
    -6: "SI_TKILL", -7: "SI_DETHREAD", -60: "SI_ASYNCNL",
}  # fmt: skip
_CODES_OF_SIGNAL: Mapping[str, Sequence[str]] = {
    "SIGILL": ("ILL_ILLOPC", "ILL_ILLOPN", "ILL_ILLADR", "ILL_ILLTRP", "ILL_PRVOPC", "ILL_PRVREG", "ILL_COPROC",
               "ILL_BADSTK", "ILL_BADIADDR"),
    "SIGFPE": ("FPE_INTDIV", "FPE_INTOVF", "FPE_FLTDIV", "FPE_FLTOVF", "FPE_FLTUND", "FPE_FLTRES", "FPE_FLTINV",
               "FPE_FLTSUB"),
    "SIGSEGV": ("SEGV_MAPERR", "SEGV_ACCERR", "SEGV_BNDERR", "SEGV_PKUERR", "SEGV_ACCADI", "SEGV_ADIDERR",
                "SEGV_ADIPERR", "SEGV_MTEAERR", "SEGV_MTESERR", "SEGV_CPERR"),
    "SIGBUS": ("BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"),
    "SIGTRAP": ("TRAP_BRKPT", "TRAP_TRACE", "TRAP_BRANCH", "TRAP_HWBKPT", "TRAP_UNK", "TRAP_PERF"),
    "SIGCHLD": ("CLD_EXITED", "CLD_KILLED", "CLD_DUMPED", "CLD_TRAPPED", "CLD_STOPPED", "CLD_CONTINUED"),
    "SIGIO": ("POLL_IN", "POLL_OUT", "POLL_MSG", "POLL_ERR", "POLL_PRI", "POLL_HUP"),
    "SIGSYS": ("SYS_SECCOMP", "SYS_USER_DISPATCH"),
}  # fmt: skip
_NAMESPACES = (
    (0x00000080, "CLONE_NEWTIME"),
    (0x00020000, "CLONE_NEWNS"),
    (0x02000000, "CLONE_NEWCGROUP"),
    (0x04000000, "CLONE_NEWUTS"),
    (0x08000000, "CLONE_NEWIPC"),
    (0x10000000, "CLONE_NEWUSER"),
    (0x20000000, "CLONE_NEWPID"),
    (0x40000000, "CLONE_NEWNET"),
)

NAMESPACE_KINDS = ("uts", "ipc", "mnt", "pid", "pid_for_children", "net", "time", "time_for_children", "cgroup", "user")
"""The kinds in the order of the bits in gadget_namespace_kinds (bpf/include/gadget/credentials.h)."""
_PTRACE_REQUESTS = {0: "PTRACE_TRACEME", 16: "PTRACE_ATTACH", 0x4206: "PTRACE_SEIZE"}
_PRCTL_OPTIONS = {
    4: "PR_SET_DUMPABLE", 8: "PR_SET_KEEPCAPS", 22: "PR_SET_SECCOMP", 24: "PR_CAPBSET_DROP", 28: "PR_SET_SECUREBITS",
    38: "PR_SET_NO_NEW_PRIVS", 47: "PR_CAP_AMBIENT", 0x59616D61: "PR_SET_PTRACER",
}  # fmt: skip
_NONE = 0xFFFFFFFF


def signal_name(number: int) -> str:
    """`SIGKILL` for 9, `SIGRTMIN+1` for 35, empty for 0 (no signal), and the number itself for any other."""
    if 0 <= number < len(_SIGNALS):
        return _SIGNALS[number]
    if _FIRST_REALTIME <= number <= _LAST:
        return f"SIGRTMIN+{number - _FIRST_REALTIME}" if number > _FIRST_REALTIME else "SIGRTMIN"
    return str(number)


def signal_code_name(signal: int, code: int) -> str:
    """`SI_USER`, `SEGV_MAPERR`: the cause of a signal (siginfo's si_code); the number itself if it has no name here."""
    names = _CODES_OF_SIGNAL.get(signal_name(signal), ())
    return names[code - 1] if 0 < code <= len(names) else _CODES.get(code, str(code))


def capability_name(number: int) -> str:
    """`CAP_SYS_ADMIN` for 21; the number itself if it has no name here."""
    return f"CAP_{CAPABILITIES[number]}" if 0 <= number < len(CAPABILITIES) else str(number)


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


def flag_names(flags: int, names: Sequence[tuple[int, str]]) -> str:
    """The names of the bits that are set; bits without a name come last, in hex. Empty for 0."""
    found = []
    for bits, name in names:
        if flags & bits == bits:
            found.append(name)
            flags &= ~bits
    return "|".join([*found, hex(flags)] if flags else found)


def namespace_names(flags: int) -> str:
    """`CLONE_NEWUSER|CLONE_NEWNET` for the flags of clone, unshare and setns."""
    return flag_names(flags, _NAMESPACES)


def namespace_kind_names(bits: int) -> str:
    """`uts|ipc` for a set of kinds of namespaces; empty if the set is unknown."""
    return "" if bits == _NONE else flag_names(bits, [(1 << bit, name) for bit, name in enumerate(NAMESPACE_KINDS)])


def ptrace_request_name(number: int) -> str:
    """`PTRACE_ATTACH` for 16; empty for no request, and the number itself if it has no name here."""
    return "" if number == _NONE else _PTRACE_REQUESTS.get(number, str(number))


def prctl_option_name(number: int) -> str:
    """`PR_CAPBSET_DROP` for 24; empty for no option, and the number itself if it has no name here."""
    return "" if number == _NONE else _PRCTL_OPTIONS.get(number, str(number))
