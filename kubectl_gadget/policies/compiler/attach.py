"""The ways to a hook, best first: which program of bpf/policy.bpf.c is attached where, and what it can do there.

Hooks for system calls of 32-bit programs are added beside hooks at `sys_NAME`, so that `int 0x80` does not evade a
policy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.selectors import CompilerOptions, PolicyAtHook, SelectorAtHook
from kubectl_gadget.policies.language import COMPAT_CALL, lsm_function, lsm_hook, machines_of, number_on
from kubectl_gadget.policies.model import Hook, NewFunction, Policy, SystemCall, UserProbe
from kubectl_gadget.wire.message import NONE, Value
from kubectl_gadget.wire.policy_messages import ProbePlace, Spot, Way

# Hooks for system calls of 32-bit programs, added beside hooks at `sys_NAME`, so that `int 0x80` does not evade a
# policy: the same hook once more, at the kernel's function for the 32-bit call.
#
# Such functions add no cost to calls of 64-bit programs. The last resort is the raw tracepoint of all calls, where
# the agent has one program for all of them (bpf/syscalls.bpf.c).
#
# The functions' first arguments are those of the 64-bit call, in other registers. The traps: some calls lead to
# functions with other names, or to more than one function; and where `__ia32_compat_sys_NAME` exists,
# `__ia32_sys_NAME` exists too but is never called.
#
# Not covered by functions: socketcall() and the oldest mmap(), whose arguments lie in memory, and which the raw
# tracepoint covers; and arm32 calls, of which those without a function of their own use the function of the 64-bit
# call.

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
    """Return True if a mirror is the first one of its call. The raw tracepoint has one program for all variants of the
    call, whose arguments are translated (bpf/syscalls.bpf.c)."""
    name = hook.mirrors
    return hook.target == f"sys_{_FUNCTIONS.get(name, (name,))[0]}"


# The ways to a hook, best first: which program of bpf/policy.bpf.c is attached where, and what it can do there.
#
# A call can be denied only by a program whose result replaces the call's own: one of the BPF LSM (lsm), one that
# modifies the return value (fmod_ret, on security_… functions and those for error injection), or a kprobe with an
# override. All others observe the call and can send a signal. Both fmod_ret on system calls and overriding kprobes need
# a kernel with CONFIG_FUNCTION_ERROR_INJECTION and CONFIG_BPF_KPROBE_OVERRIDE, which Debian's lacks.


_FIRST_FIELD = 16
"""Offset of the arguments in a system call tracepoint's record: after the common fields and the call's number."""
_COMMON_FIELDS = (0, 2, 3, 4, 8)
"""Offsets of the common fields, in the order of `format`: type, flags, preempt count, pid, the call's number."""
COMPAT_PREFIXES = {"i386": "__ia32_", "arm32": "__arm64_compat_"}
"""Prefixes of the kernel's functions for system calls of 32-bit programs."""
_METHODS = {"fmod-ret": "on_fmod_ret", "override-return": "on_kprobe_override"}
"""The program for each override-method."""
OF_SYSCALLS = ("syscalls/sys_enter_", "syscalls/sys_exit_")


@dataclass(frozen=True)
class HookWay:
    """A program, where it is attached, and whether it can deny."""

    program: str
    kind: str
    target: str
    denies: bool = False
    syscall: bool = False
    """`target` is a system call; the agent knows the name of its function on its architecture"""
    same: tuple[str, str] | None = None
    """two functions that must have the same parameters; otherwise this way would read the wrong arguments"""
    arguments: str = "function"
    """where arguments are found: parameters of a `function`, a `syscall`'s registers, the `context`, or the fields of a
    `record` whose offsets the agent knows"""
    also: tuple[str, ...] = ()
    """programs that are attached to the same target as well"""
    constants: tuple[tuple[str, int], ...] = ()
    """constants of the program: names and values"""
    machine: str = ""
    """the only architecture with this way, by uname's name; empty: all"""
    probe: UserProbe | None = None
    """for a hook in a program: the place and the file"""
    called: tuple[str, ...] = ()
    """functions for calls of 32-bit programs. The kernel calls the first of these that it has, so a way to any of the
    others sees nothing; if it has none of them, no way does"""
    call: str = ""
    """the system call whose programs the agent runs from the raw tracepoint of all calls, which is the target"""

    def message(
        self, variables: Mapping[str, Value] = NONE, method: str = "", instead: Sequence[NewFunction] = ()
    ) -> Way:
        """The way as in RUN. `instead`: the functions that run in the place of the probe's."""
        return Way(
            program=self.program,
            kind=self.kind,
            target=self.target,
            method=method,
            variables={**variables, **dict(self.constants)},
            same=self.same,
            syscall=self.syscall,
            record=self.arguments == "record",
            machine=self.machine,
            called=self.called,
            call=self.call,
            also=self.also,
            place=_place(self.probe, instead) if self.probe else None,
        )


def choose_ways(
    name: str,
    entries: Sequence[PolicyAtHook],
    selectors: Sequence[SelectorAtHook],
    denies: bool,
    options: CompilerOptions,
) -> list[HookWay]:
    """The ways that all policies at a hook accept, best first; a policy that denies accepts only ways that can deny,
    unless --allow-weaker is given. `name` is the hook's name, for errors. Raises UsageError when calls cannot be denied
    there."""
    hook = entries[0].hook
    found = ways(hook, hook.returns and not entries[0].at_call, denies)
    if denies and hook.kind != "lsm":
        found = _by_method(name, entries, found)
    if any(action.file_hash for one in selectors for action in one.selector.all_actions):
        # Computing the hash may wait for the disk, and only a sleepable program may do so.
        found = [replace(way, program="on_lsm_sleepable") for way in found if way.kind == "lsm"]
    able = [way for way in found if way.denies]
    if not denies or options.allow_weaker:
        return found
    if able:
        return able
    for one in selectors:
        if any(action.kind == "Override" for action in one.selector.all_actions):
            raise UsageError(
                f"{one.selector.place}: {name} cannot be overridden", "a hook of a security module (lsmhooks)"
            )
    return found


def _by_method(name: str, entries: Sequence[PolicyAtHook], found: list[HookWay]) -> list[HookWay]:
    """The ways that the policies' override-method allows."""
    methods = {entry.policy.options.override_method for entry in entries} - {None}
    if not methods:
        return found
    if len(methods) > 1:
        wanted = " and ".join(sorted(map(str, methods)))
        raise UsageError(
            f"{entries[0].hook.place}: {name}: policies give one hook different values of override-method: {wanted}"
        )
    program = _METHODS[str(methods.pop())]
    return [way for way in found if way.program == program or not way.denies]


def ways(hook: Hook, at_return: bool, denying: bool) -> list[HookWay]:
    """All ways to a hook. `denying`: some policy wants to deny calls there. Raises UsageError for hooks that the engine
    has no program for."""
    if hook.generated is not None:
        return _made_by_node(hook, at_return)
    if hook.mirrors:
        return _mirrored(hook, at_return, denying)
    if hook.abi:
        return _other_abi(hook, at_return, denying)
    match hook.kind:
        case "lsm":
            return _lsm(hook.target, denying)
        case "kprobe" | "fentry" if hook.syscall:
            return _syscall(hook.target, at_return, denying)
        case "kprobe" | "fentry" | "loader":
            return _function(hook.target, at_return, denying)
        case "tracepoint":
            if not hook.target.startswith(OF_SYSCALLS):
                return [HookWay("on_tracepoint", "tracepoint", hook.target, arguments="record")]
            return [HookWay("on_tracepoint", "tracepoint", hook.target, arguments="context")]
        case "raw_tracepoint":
            event = hook.target.rpartition("/")[2]
            return [HookWay("on_raw_tracepoint", "raw_tracepoint", event)]
        case "uprobe" if at_return:
            also = ("on_uprobe_entry",)
            return [HookWay("on_uretprobe", "uprobe", hook.target, also=also, probe=hook.probe)]
        case "uprobe":
            see = HookWay("on_uprobe", "uprobe", hook.target, probe=hook.probe)
            return [replace(see, program="on_uprobe_override", denies=True), see] if denying else [see]
        case "usdt":
            return [HookWay("on_usdt", "usdt", hook.target, probe=hook.probe)]


def _made_by_node(hook: Hook, at_return: bool) -> list[HookWay]:
    """One program for all functions of a list that the node generates; calls cannot be denied there."""
    for selector in hook.selectors:
        for action in selector.actions:
            if action.kind == "Override":
                what = "the functions of a list that nodes generate cannot be overridden"
                raise UsageError(f"{action.place}: {what}", "lsmhooks, a security module's hook")
    if hook.syscall:
        return [_every_call(at_return)]
    if at_return:
        raise UsageError(f"{hook.place}: return values are not read for a list that nodes generate")
    assert hook.generated is not None
    return [HookWay("on_kprobe_multi", "kprobe.multi", hook.generated.name)]


def _other_abi(hook: Hook, at_return: bool, denying: bool) -> list[HookWay]:
    """Calls of 32-bit programs, which have no tracepoints of their own."""
    call = SystemCall(hook.target.removeprefix("sys_"), hook.abi)
    (machine,) = machines_of(call)
    number = number_on(call, machine)
    if number is None:
        raise UsageError(f"{hook.place}: there is no system call {hook.abi}/{hook.target}")
    of_32_bits = ("policy_compat", True)
    constants = (("policy_syscall", number & ~COMPAT_CALL), of_32_bits)
    see = replace(_every_call(at_return), constants=constants, machine=machine)
    if at_return or not denying:
        return [see]
    prefix = COMPAT_PREFIXES[hook.abi]
    called = functions(hook) if hook.abi == "i386" else (f"{prefix}{hook.target}",)
    able = [
        replace(way, arguments="syscall", constants=(of_32_bits,), machine=machine, called=called)
        for function in called
        for way in _injected(function, False)
    ]
    return [*able, see]


def _mirrored(hook: Hook, at_return: bool, denying: bool) -> list[HookWay]:
    """The ways to a mirror: a hook that no policy names, added for the 32-bit variant of a call."""
    called = functions(hook)
    found = []
    for function in called:
        see = [HookWay("on_fentry", "fentry", function), HookWay("on_kprobe", "kprobe", function)]
        if at_return:
            see = [HookWay("on_fexit", "fexit", function)]
        found += [*_injected(function, False), *see] if denying and not at_return else see
    found = [replace(way, arguments="syscall", constants=(("policy_compat", True),)) for way in found]
    if is_first(hook):
        found.append(replace(_one_call(hook.mirrors, at_return), constants=(("gadget_node_compat", True),)))
    found.sort(key=lambda way: not way.denies)
    return [replace(way, machine=MACHINE, called=called) for way in found]


def _every_call(at_return: bool) -> HookWay:
    """The raw tracepoint of all system calls."""
    side = "exit" if at_return else "enter"
    return HookWay(f"on_sys_{side}", "tp_btf", f"sys_{side}", arguments="syscall")


def _one_call(name: str, at_return: bool) -> HookWay:
    """The raw tracepoint of all system calls, which the agent has once for everything that follows single calls."""
    program, side = ("on_call_exit", "exit") if at_return else ("on_call", "enter")
    return HookWay(program, "tp_btf", f"sys_{side}", arguments="syscall", call=name)


def _place(probe: UserProbe, instead: Sequence[NewFunction]) -> ProbePlace:
    return ProbePlace(
        path=probe.path,
        symbol=probe.symbol or None,
        offset=probe.offset,
        address=probe.address,
        counter=probe.reference_counter,
        provider=probe.provider or None,
        name=probe.name or None,
        digests=probe.digests,
        ignore_digests=probe.ignore_digest_failure,
        instead=tuple(
            Spot(symbol=one.symbol or None, offset=one.offset or None, address=one.address or None) for one in instead
        ),
    )


def _lsm(hook: str, denying: bool) -> list[HookWay]:
    function = lsm_function(hook)
    same = (f"bpf_lsm_{hook}", function)
    deny = [
        HookWay("on_lsm", "lsm", hook, denies=True),
        HookWay("on_fmod_ret", "fmod_ret", function, denies=True, same=same),
    ]
    see = [HookWay("on_fentry", "fentry", function, same=same), HookWay("on_kprobe", "kprobe", function, same=same)]
    return [*deny, *see] if denying else [deny[0], *see]


def _function(function: str, at_return: bool, denying: bool) -> list[HookWay]:
    if at_return:
        return [HookWay("on_fexit", "fexit", function)]
    see = [HookWay("on_fentry", "fentry", function), HookWay("on_kprobe", "kprobe", function)]
    hook = lsm_hook(function)
    if hook is None:
        return [*_injected(function, False), *see] if denying else see
    lsm = HookWay("on_lsm", "lsm", hook, denies=True, same=(f"bpf_lsm_{hook}", function))
    if denying:
        return [lsm, HookWay("on_fmod_ret", "fmod_ret", function, denies=True), *see]
    return [*see, lsm]


def _injected(function: str, syscall: bool) -> list[HookWay]:
    arguments = "syscall" if syscall else "function"
    return [
        HookWay("on_fmod_ret", "fmod_ret", function, denies=True, syscall=syscall, arguments=arguments),
        HookWay("on_kprobe_override", "kprobe", function, denies=True, syscall=syscall, arguments=arguments),
    ]


def _syscall(target: str, at_return: bool, denying: bool) -> list[HookWay]:
    name = target.removeprefix("sys_")
    if at_return:
        exit = f"syscalls/sys_exit_{name}"
        return [
            HookWay("on_fexit", "fexit", name, syscall=True, arguments="syscall"),
            _one_call(name, True),
            HookWay("on_syscall_exit", "tracepoint", exit, arguments="syscall"),
        ]
    see = [
        HookWay("on_fentry", "fentry", name, syscall=True, arguments="syscall"),
        HookWay("on_kprobe", "kprobe", name, syscall=True, arguments="syscall"),
        _one_call(name, False),
        HookWay("on_tracepoint", "tracepoint", f"syscalls/sys_enter_{name}", arguments="fields"),
    ]
    return [*_injected(name, True), *see] if denying else see


def field_offset(index: int) -> int:
    """The offset of a system call's argument in its tracepoint's record."""
    return _FIRST_FIELD + 8 * index


def record_offset(index: int) -> int:
    """The offset of a field in a system call tracepoint's record; `index` is its position in `format`, from 0."""
    common = len(_COMMON_FIELDS)
    return _COMMON_FIELDS[index] if index < common else field_offset(index - common)
