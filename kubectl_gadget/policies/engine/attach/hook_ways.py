"""The ways to a hook, best first: which program of bpf/policy.bpf.c is attached where, and what it can do there.

A call can be denied only by a program whose result replaces the call's own: one of the BPF LSM (lsm), one that modifies
the return value (fmod_ret, on security_… functions and those for error injection), or a kprobe with an override. All
others observe the call and can send a signal. The trap: fmod_ret on system calls and overriding kprobes need a kernel
with CONFIG_FUNCTION_ERROR_INJECTION and CONFIG_BPF_KPROBE_OVERRIDE, which Debian's lacks.
"""

from dataclasses import dataclass, replace
from typing import Any

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.engine.attach import mirrors
from kubectl_gadget.policies.language.linux_names import COMPAT_CALL, lsm_function, lsm_hook, machines_of, number_on
from kubectl_gadget.policies.model import Hook, SystemCall, UserProbe

_FIRST_FIELD = 16
"""Offset of the arguments in a system call tracepoint's record: after the common fields and the call's number."""
_COMMON_FIELDS = (0, 2, 3, 4, 8)
"""Offsets of the common fields, in the order of `format`: type, flags, preempt count, pid, the call's number."""
COMPAT_PREFIXES = {"i386": "__ia32_", "arm32": "__arm64_compat_"}
"""Prefixes of the kernel's functions for system calls of 32-bit programs."""
OF_SYSCALLS = ("syscalls/sys_enter_", "syscalls/sys_exit_")


@dataclass(frozen=True)
class Way:
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

    def spec(self, variables: dict[str, Any], method: str) -> dict[str, Any]:
        """The way as in RUN."""
        value: dict[str, Any] = {"program": self.program, "kind": self.kind, "target": self.target, "method": method}
        if self.syscall:
            value["syscall"] = True
        if self.same:
            value["same"] = list(self.same)
        if self.also:
            value["also"] = list(self.also)
        if self.arguments == "record":
            value["record"] = True
        if self.machine:
            value["machine"] = self.machine
        if self.called:
            value["called"] = list(self.called)
        if self.probe:
            value["place"] = _place(self.probe)
        return value | {"variables": variables | dict(self.constants)}


def ways(hook: Hook, at_return: bool, denying: bool) -> list[Way]:
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
                return [Way("on_tracepoint", "tracepoint", hook.target, arguments="record")]
            return [Way("on_tracepoint", "tracepoint", hook.target, arguments="context")]
        case "raw_tracepoint":
            event = hook.target.rpartition("/")[2]
            return [Way("on_raw_tracepoint", "raw_tracepoint", event)]
        case "uprobe" if at_return:
            also = ("on_uprobe_entry",)
            return [Way("on_uretprobe", "uprobe", hook.target, also=also, probe=hook.probe)]
        case "uprobe":
            see = Way("on_uprobe", "uprobe", hook.target, probe=hook.probe)
            return [replace(see, program="on_uprobe_override", denies=True), see] if denying else [see]
        case "usdt":
            return [Way("on_usdt", "usdt", hook.target, probe=hook.probe)]


def _made_by_node(hook: Hook, at_return: bool) -> list[Way]:
    """One program for all functions of a list that the node generates; calls cannot be denied there."""
    for selector in hook.selectors:
        for action in selector.actions:
            if action.kind == "Override":
                what = "the functions of a list that a node makes cannot be overridden"
                raise UsageError(f"{action.place}: {what}", "lsmhooks, a security module's hook")
    if hook.syscall:
        return [_every_call(at_return)]
    if at_return:
        raise UsageError(f"{hook.place}: what the functions of a list that a node makes return is not read")
    assert hook.generated is not None
    return [Way("on_kprobe_multi", "kprobe.multi", hook.generated.name)]


def _other_abi(hook: Hook, at_return: bool, denying: bool) -> list[Way]:
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
    called = mirrors.functions(hook) if hook.abi == "i386" else (f"{prefix}{hook.target}",)
    able = [
        replace(way, arguments="syscall", constants=(of_32_bits,), machine=machine, called=called)
        for function in called
        for way in _injected(function, False)
    ]
    return [*able, see]


def _mirrored(hook: Hook, at_return: bool, denying: bool) -> list[Way]:
    """The ways to a mirror: a hook that no policy names, added for the 32-bit variant of a call."""
    called = mirrors.functions(hook)
    found = []
    for function in called:
        see = [Way("on_fentry", "fentry", function), Way("on_kprobe", "kprobe", function)]
        if at_return:
            see = [Way("on_fexit", "fexit", function)]
        found += [*_injected(function, False), *see] if denying and not at_return else see
    found = [replace(way, arguments="syscall", constants=(("policy_compat", True),)) for way in found]
    if (number := mirrors.number(hook)) is not None:
        constants = (("policy_syscall", number), ("policy_compat", True))
        found.append(replace(_every_call(at_return), constants=constants))
    found.sort(key=lambda way: not way.denies)
    return [replace(way, machine=mirrors.MACHINE, called=called) for way in found]


def _every_call(at_return: bool) -> Way:
    """The raw tracepoint of all system calls."""
    side = "exit" if at_return else "enter"
    return Way(f"on_sys_{side}", "tp_btf", f"sys_{side}", arguments="syscall")


def _place(probe: UserProbe) -> dict[str, Any]:
    """The probe as in RUN, without members that are not set."""
    place = {
        "path": probe.path,
        "symbol": probe.symbol or None,
        "offset": probe.offset,
        "address": probe.address,
        "counter": probe.reference_counter,
        "provider": probe.provider or None,
        "name": probe.name or None,
        "digests": list(probe.digests) or None,
        "ignore_digests": probe.ignore_digest_failure or None,
    }
    return {name: value for name, value in place.items() if value is not None}


def _lsm(hook: str, denying: bool) -> list[Way]:
    function = lsm_function(hook)
    same = (f"bpf_lsm_{hook}", function)
    deny = [Way("on_lsm", "lsm", hook, denies=True), Way("on_fmod_ret", "fmod_ret", function, denies=True, same=same)]
    see = [Way("on_fentry", "fentry", function, same=same), Way("on_kprobe", "kprobe", function, same=same)]
    return [*deny, *see] if denying else [deny[0], *see]


def _function(function: str, at_return: bool, denying: bool) -> list[Way]:
    if at_return:
        return [Way("on_fexit", "fexit", function)]
    see = [Way("on_fentry", "fentry", function), Way("on_kprobe", "kprobe", function)]
    hook = lsm_hook(function)
    if hook is None:
        return [*_injected(function, False), *see] if denying else see
    lsm = Way("on_lsm", "lsm", hook, denies=True, same=(f"bpf_lsm_{hook}", function))
    if denying:
        return [lsm, Way("on_fmod_ret", "fmod_ret", function, denies=True), *see]
    return [*see, lsm]


def _injected(function: str, syscall: bool) -> list[Way]:
    arguments = "syscall" if syscall else "function"
    return [
        Way("on_fmod_ret", "fmod_ret", function, denies=True, syscall=syscall, arguments=arguments),
        Way("on_kprobe_override", "kprobe", function, denies=True, syscall=syscall, arguments=arguments),
    ]


def _syscall(target: str, at_return: bool, denying: bool) -> list[Way]:
    name = target.removeprefix("sys_")
    if at_return:
        exit = f"syscalls/sys_exit_{name}"
        return [
            Way("on_fexit", "fexit", name, syscall=True, arguments="syscall"),
            Way("on_syscall_exit", "tracepoint", exit, arguments="syscall"),
        ]
    see = [
        Way("on_fentry", "fentry", name, syscall=True, arguments="syscall"),
        Way("on_kprobe", "kprobe", name, syscall=True, arguments="syscall"),
        Way("on_tracepoint", "tracepoint", f"syscalls/sys_enter_{name}", arguments="fields"),
    ]
    return [*_injected(name, True), *see] if denying else see


def field_offset(index: int) -> int:
    """The offset of a system call's argument in its tracepoint's record."""
    return _FIRST_FIELD + 8 * index


def record_offset(index: int) -> int:
    """The offset of a field in a system call tracepoint's record; `index` is its position in `format`, from 0."""
    common = len(_COMMON_FIELDS)
    return _COMMON_FIELDS[index] if index < common else field_offset(index - common)
