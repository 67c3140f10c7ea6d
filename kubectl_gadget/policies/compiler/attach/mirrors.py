"""Hooks for system calls of 32-bit programs, added beside hooks at `sys_NAME`, so that `int 0x80` does not evade a
policy: the same hook once more, at the kernel's function for the 32-bit call.

Such functions add no cost to calls of 64-bit programs. The last resort is the raw tracepoint of all calls, where the
agent has one program for all of them (bpf/syscalls.bpf.c).

The functions' first arguments are those of the 64-bit call, in other registers. The traps: some calls lead to functions
with other names, or to more than one function; and where `__ia32_compat_sys_NAME` exists, `__ia32_sys_NAME` exists too
but is never called.

Not covered by functions: socketcall() and the oldest mmap(), whose arguments lie in memory, and which the raw
tracepoint covers; and arm32 calls, of which those without a function of their own use the function of the 64-bit call.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from kubectl_gadget.policies.model import Hook, Policy

MACHINE = "x86_64"
_TWO_SIZES = (
    *("chown", "lchown", "fchown", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setfsuid", "setfsgid", "setgroups"),
)
"""Calls that i386 also has in a variant with 16-bit user IDs."""
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
"""By the name of the 64-bit call's function: its i386 functions, where the names differ. `x86_…`: before Linux 5.7."""


def with_mirrors(policy: Policy) -> Iterator[Hook]:
    """A policy's hooks, each followed by its mirrors. A target that the policy itself names is not mirrored."""
    named = {hook.target for hook in policy.hooks if hook.abi}
    for hook in policy.hooks:
        yield hook
        if not hook.syscall or hook.abi or hook.generated or hook.kind not in ("kprobe", "fentry"):
            continue
        name = hook.target.removeprefix("sys_")
        for function in _FUNCTIONS.get(name, (name,)) if hook.target not in named else ():
            yield replace(hook, abi="i386", target=f"sys_{function}", mirrors=name, ignore_missing=True)


def functions(hook: Hook) -> tuple[str, str]:
    """The functions that such calls reach: the first one, or the second where the kernel lacks the first."""
    return f"__ia32_compat_{hook.target}", f"__ia32_{hook.target}"


def is_first(hook: Hook) -> bool:
    """Whether a mirror is the first one of its call. The raw tracepoint has one program for all variants of the call,
    whose arguments are translated (bpf/syscalls.bpf.c)."""
    name = hook.mirrors
    return hook.target == f"sys_{_FUNCTIONS.get(name, (name,))[0]}"
