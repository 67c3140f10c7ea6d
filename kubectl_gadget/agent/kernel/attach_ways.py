"""Ways to a hook, WAY of docs/protocol.md: attaches programs, detects what the kernel accepts without effect, and tries
whether this kernel accepts any program there.

The trap: that the kernel has a hook of this name proves little. Kernels refuse whole kinds of programs, so only loading
and attaching one gives the answer.
"""

import errno
import os
from collections.abc import Mapping, Sequence

from kubectl_gadget.agent.bpf import btf, syscall_programs
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject, own_elf
from kubectl_gadget.agent.bpf.syscall_programs import COMPAT, NATIVE, OF_32_BITS, SyscallDispatcher, SyscallObject
from kubectl_gadget.agent.kernel import features, refusal
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import TriedWays
from kubectl_gadget.wire.policy_messages import Way

SLEEPABLE = "on_lsm_sleepable"
_OVERRIDING = "on_uprobe_override"
_WRITING = "bpf_probe_write_user"
_FUNCTIONS = ("fentry", "fexit", "fmod_ret", "kprobe")
_MISSING = (errno.ESRCH, errno.ENOENT)
_NOT_TAKEN = (errno.EINVAL, errno.EOPNOTSUPP)
_TRAMPOLINES = ("lsm", "fmod_ret", "fentry", "fexit")


def name_of(way: Way) -> str:
    """Returns the name in STARTED: "lsm/file_open", "tp_btf/sys_enter (openat)"."""
    return f"{way.kind}/{way.target}{f' ({way.call})' if way.call else ''}"


def open_object(elf: bytes, name: str, way: Way, calls: SyscallDispatcher) -> BpfObject:
    """Opens an object with the programs of a way. `calls` calls those that follow a single system call."""
    programs = [way.program, *way.also]
    if not way.call:
        return BpfObject(elf, name, programs)
    follows = {way.program: (way.target.removeprefix("sys_"), way.call)}
    of = OF_32_BITS if way.variables.get(COMPAT) else NATIVE
    return SyscallObject(elf, name, programs, calls, of, follows)


class NoSuchCallsError(AgentError):
    """No program on this node can make such a call, so no event is missed."""


def check(way: Way) -> None:
    """Raises AgentError if the kernel would accept a program but never run it, or run it with other arguments."""
    if way.machine not in ("", os.uname().machine):
        raise NoSuchCallsError(f"this node is not {way.machine}, whose programs make such calls")
    _check_called(way)
    if way.kind == "lsm" and not (active := features.bpf_lsm()):
        if active is None:
            raise AgentError("cannot determine whether BPF is an active security module (mount /sys/kernel/security)")
        raise AgentError("BPF is not among the active security modules (boot with lsm=…,bpf)")
    names = way.same
    if names is None:
        return
    first, second = (btf.kernel().prototype(name) for name in names)
    if first is None or second is None:
        raise AgentError(f"the kernel has no {names[0] if first is None else names[1]}")
    if first != second:
        raise AgentError(f"the arguments of {names[0]} differ from those of {names[1]}")


def _check_called(way: Way) -> None:
    """Checks that the kernel calls the way's function, if it is one of several for calls of 32-bit programs."""
    functions = way.called
    if not functions:
        return
    called = next((name for name in functions if btf.kernel().prototype(name) is not None), None)
    if called is None or not syscall_programs.can_run_32_bit():
        raise NoSuchCallsError("this kernel has no such calls for 32-bit programs")
    if way.target in functions and way.target != called:
        raise AgentError(f"the kernel calls {called} instead")


def why(way: Way, error: AgentError | Failure) -> str:
    """Returns why this kernel does not accept the way's program."""
    if isinstance(error, AgentError):
        return str(error)
    lacking = features.lacking(way.kind)
    if way.kind == "lsm" and not lacking and btf.kernel().prototype(f"bpf_lsm_{way.target}") is None:
        return f"the kernel has no security hook {way.target}; it may be newer"
    is_function = way.kind in _FUNCTIONS and error.errno in _MISSING
    if is_function and not lacking and btf.kernel().prototype(_target(way)) is None:
        return f"the kernel has no function {_target(way)}; it may be inlined, or have another name"
    if way.kind == "kprobe.multi" and error.errno in _NOT_TAKEN and "attach" in error.call:
        return "this kernel cannot attach a program to many functions at once (Linux 5.18 with CONFIG_FPROBE can)"
    reason = lacking or refusal.reason(error)[0]
    if way.program == _OVERRIDING:
        return f"this kernel does not let BPF change a program's registers (Debian's 7.3 does): {reason}"
    if _WRITING in reason:
        return f"Set needs CAP_SYS_ADMIN (--privileged) and a kernel that allows writes to programs' memory: {reason}"
    if way.program == SLEEPABLE and features.bpf_lsm() is True:
        return f"imaHash needs a sleepable BPF program, which this kernel does not support: {reason}"
    return reason


def set_target(object: BpfObject, way: Way) -> None:
    """Sets the function that the way's program is attached to, before the object is loaded."""
    if way.kind in _TRAMPOLINES:
        object.set_attach_target(way.program, _target(way))


def attach(object: BpfObject, way: Way, functions: Mapping[int, str] | None = None) -> None:
    """Attaches the loaded object; to many functions, with their numbers as cookies. Raises libbpf.Failure."""
    match way.kind:
        case "kprobe.multi":
            object.attach_kprobes(way.program, functions or {})
        case "kprobe":
            object.attach_by("kprobe", way.program, False, _target(way).encode())
        case "tracepoint":
            object.attach_by("tracepoint", way.program, *way.target.encode().split(b"/", 1))
        case "raw_tracepoint":
            object.attach_by("raw_tracepoint", way.program, way.target.encode())
        case _:
            object.attach(way.program)


def try_all(ways: Sequence[Way]) -> TriedWays:
    """Attaches a program that does nothing, way by way. Returns the first that works, and why earlier ones fail."""
    elf, refused, needless = own_elf("attach_probe"), {}, []
    for way in ways:
        try:
            _try(elf, way)
        except (AgentError, Failure) as error:
            refused[name_of(way)] = why(way, error)
            needless.append(isinstance(error, NoSuchCallsError))
        else:
            return TriedWays(way=name_of(way), refused=refused)
    return TriedWays(way=None, refused=refused, needless=bool(needless) and all(needless))


def _try(elf: bytes, way: Way) -> None:
    check(way)
    calls = SyscallDispatcher()
    object = open_object(elf, "attach_probe", way.replace(also=()), calls)
    try:
        set_target(object, way)
        object.load()
        attach(object, way)
    finally:
        object.close()
        calls.close()


def _target(way: Way) -> str:
    """Returns the kernel function."""
    prefix = "__x64_sys_" if os.uname().machine == "x86_64" else "__arm64_sys_"
    return f"{prefix}{way.target}" if way.syscall else way.target
