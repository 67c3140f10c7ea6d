"""Hooks at the system calls of 32-bit programs that stand beside those at `sys_NAME`, so that no policy is evaded by
`int 0x80`: the same hook once more, at the kernel's function for such calls.

Functions cost calls of 64-bit programs nothing, unlike the raw tracepoint of all calls, which is the last way. Their
first arguments are those of the 64-bit call, in other registers. The traps: some calls go to functions of other names,
and to more than one; and `__ia32_sys_NAME` is there and never called where there is a `__ia32_compat_sys_NAME`.

Not followed: socketcall() and the oldest mmap(), whose arguments lie in memory, and arm32's calls, of which those
without a function of their own go where those of 64-bit programs go.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from kubectl_gadget.policies.model import Hook, Policy, SystemCall
from kubectl_gadget.policies.read.linux_names import COMPAT_CALL, is_known, number_on

MACHINE = "x86_64"
_TWO_SIZES = (
    *("chown", "lchown", "fchown", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setfsuid", "setfsgid", "setgroups"),
)
"""Calls that i386 has with numbers of users of 16 bits as well."""
_FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    **{name: (name, f"{name}16") for name in _TWO_SIZES},
    "clone": ("ia32_clone", "x86_clone"),
    "pread64": ("ia32_pread64", "x86_pread"),
    "pwrite64": ("ia32_pwrite64", "x86_pwrite"),
    "truncate": ("truncate", "ia32_truncate64", "x86_truncate64"),
    "ftruncate": ("ftruncate", "ia32_ftruncate64", "x86_ftruncate64"),
    "fallocate": ("ia32_fallocate", "x86_fallocate"),
    "mmap": ("mmap_pgoff",),
    **{name: (name, f"ia32_{name.removeprefix('new')}64") for name in ("newstat", "newlstat", "newfstat")},
    "newfstatat": ("ia32_fstatat64", "x86_fstatat"),
    "umount": ("umount", "oldumount"),
    "fcntl": ("fcntl", "fcntl64"),
    "futex": ("futex", "futex_time32"),
    "sendfile64": ("sendfile64", "sendfile"),
}
"""By the name of the 64-bit call's function, those of i386, where they are others. `x86_…` before Linux 5.7."""
_NAMES_AS_CALLS = {"mmap": "mmap2", "umount": "umount2"}
"""The i386 call with the arguments of the 64-bit one, where it has another name than that with 32 behind it."""


def with_mirrors(policy: Policy) -> Iterator[Hook]:
    """A policy's hooks, each with those that stand beside it. What the policy names by itself has none."""
    named = {hook.target for hook in policy.hooks if hook.abi}
    for hook in policy.hooks:
        yield hook
        if not hook.syscall or hook.abi or hook.generated or hook.kind not in ("kprobe", "fentry"):
            continue
        name = hook.target.removeprefix("sys_")
        for function in _FUNCTIONS.get(name, (name,)) if hook.target not in named else ():
            yield replace(hook, abi="i386", target=f"sys_{function}", mirrors=name, ignore_missing=True)


def functions(hook: Hook) -> tuple[str, str]:
    """Where calls go: the first function, or the second where there is no first."""
    return f"__ia32_compat_{hook.target}", f"__ia32_{hook.target}"


def number(hook: Hook) -> int | None:
    """The number of a mirror's call, as the raw tracepoint of all calls has it; None: another mirror has it, or there
    is none."""
    name = hook.mirrors
    if hook.target != f"sys_{_FUNCTIONS.get(name, (name,))[0]}":
        return None
    for candidate in (_NAMES_AS_CALLS.get(name, f"{name}32"), name, name.removeprefix("new")):
        call = SystemCall(candidate, "i386")
        if is_known(call) and (found := number_on(call, MACHINE)) is not None:
            return found & ~COMPAT_CALL
    return None
