"""Hooks of this kernel: which exist, and whether it accepts programs there (WAY and LOOK_UP of docs/protocol.md).

The trap: that the kernel has a hook of this name proves little. Kernels refuse whole kinds of programs, and accept some
without ever running them, so only loading and attaching one gives the answer.
"""

import errno
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from kubectl_gadget.agent.bpf import btf, syscall_programs
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import BpfObject, own_elf
from kubectl_gadget.agent.bpf.syscall_programs import COMPAT, NATIVE, OF_32_BITS, SyscallDispatcher, SyscallObject
from kubectl_gadget.agent.host.this_node import tracefs
from kubectl_gadget.agent.kernel import features, refusal
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import FoundFunction, FoundFunctions, Hooks, TriedWays
from kubectl_gadget.wire.client_messages import LookUp
from kubectl_gadget.wire.policy_messages import Way
from kubectl_gadget.wording import close_matches

# Ways to a hook: attaches programs, detects what the kernel accepts without effect, and tries whether this kernel
# accepts any program there.

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
        raise AgentError(f"{names[0]} and {names[1]} have different arguments")


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
    if way.kind == "kprobe.multi":
        object.attach_kprobes(way.program, functions or {})
    elif way.kind == "kprobe":
        object.attach_by("kprobe", way.program, False, _target(way).encode())
    elif way.kind == "tracepoint":
        object.attach_by("tracepoint", way.program, *way.target.encode().split(b"/", 1))
    elif way.kind == "raw_tracepoint":
        object.attach_by("raw_tracepoint", way.program, way.target.encode())
    else:
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


# Hooks that a client looks up: functions, system calls, tracepoints, LSM hooks. Nothing is attached, except to ways
# that the client wants to be tried: there, a program without effects is attached for a moment.
#
# The trap: a function in /proc/kallsyms may still be inlined, or marked notrace; only tracefs lists what can be hooked.
# Without tracefs the answer is None, "unknown".

KALLSYMS = "/proc/kallsyms"
_PREFIX = {"x86_64": "__x64_", "aarch64": "__arm64_"}
_COMPAT = {"i386": "__ia32_", "arm32": "__arm64_compat_"}
_MOST_GENERATED = 20_000
_MOST_HOOKED = 20_000
"""Functions at one hook; this many take 20 MB of the kernel's memory."""


def look_up(asked: LookUp) -> Hooks:
    """Returns the answer to a lookup. Raises AgentError when a pattern is invalid."""
    functions = {name: _symbol(name) for name in asked.functions}
    # Listing 200,000 symbols takes a tenth of a second.
    present = {*functions.values()}.intersection(_kernel_symbols()) if functions else set()
    tracepoints = {name: _tracepoint(name) for name in asked.tracepoints}
    missing = {name for name, symbol in functions.items() if name == symbol and symbol not in present}
    unknown = {name for name, exists in tracepoints.items() if exists is False}
    traceable = traceable_names() if asked.patterns else None
    return Hooks(
        functions={name: FoundFunction(exists=symbol in present) for name, symbol in functions.items()},
        tracepoints=tracepoints,
        generated={pattern: _matching(pattern, traceable) for pattern in asked.patterns},
        near=_near(missing, _kernel_symbols) | _near(unknown, _tracepoints),
        ways={name: try_all(each) for name, each in asked.ways.items()},
        traceable_problem=traceable_problem() if asked.patterns and traceable is None else "",
    )


def _symbol(name: str) -> str:
    """Returns the kernel's symbol for `sys_write` and `i386/sys_write`; other names are returned unchanged."""
    abi, slash, rest = name.rpartition("/")
    if slash:
        return _COMPAT.get(abi, "") + rest
    return _PREFIX.get(os.uname().machine, "") + name if name.startswith("sys_") else name


def _kernel_symbols() -> Iterator[str]:
    try:
        with open(KALLSYMS, encoding="ascii", errors="replace") as file:
            for line in file:
                yield line.split(maxsplit=3)[2]
    except OSError as error:
        raise AgentError(f"{KALLSYMS} cannot be read: {error.strerror}") from None


def _near(missing: Collection[str], known: Callable[[], Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Returns at most two similar names for each missing one. `known` is called only when names are missing."""
    names = set(known()) if missing else set()
    return {name: tuple(found) for name in missing if (found := close_matches(name, names, 2, 0.7))}


def traceable_names() -> list[str] | None:
    """Returns the functions that can be hooked; a name is repeated if several share it. None: unknown."""
    try:
        with open(f"{tracefs()}/available_filter_functions", encoding="ascii", errors="replace") as file:
            return [line.split(maxsplit=1)[0] for line in file if not line.isspace()]
    except OSError:
        return None


def traceable_problem() -> str:
    """Returns why traceable_names() returned None, and what helps."""
    if (folder := tracefs()) is None:
        where = "mount -t tracefs tracefs /sys/kernel/tracing; in a pod: as a hostPath"
        return f"tracefs, which lists the functions that can be hooked, is not mounted ({where})"
    if not os.path.exists(file := f"{folder}/available_filter_functions"):
        return "this kernel lists no functions that can be hooked (CONFIG_DYNAMIC_FTRACE)"
    return f"{file}, which lists the functions that can be hooked, cannot be read (rights, or the kernel's lockdown)"


def _tracepoint(name: str) -> bool | None:
    if not re.fullmatch(r"\w+/\w+", name):
        return False
    folder = tracefs()
    return os.path.isdir(f"{folder}/events/{name}") if folder else None


def _tracepoints() -> Iterator[str]:
    """Yields all tracepoints as GROUP/EVENT, where tracefs can be read."""
    for group in os.scandir(f"{folder}/events") if (folder := tracefs()) else ():
        if group.is_dir():
            yield from (f"{group.name}/{event.name}" for event in os.scandir(group.path) if event.is_dir())


def _matching(pattern: str, traceable: list[str] | None) -> FoundFunctions | None:
    """Returns how many functions a pattern matches, and which; "" matches the system calls. None: unknown."""
    if traceable is None:
        return None
    names = sorted(set(matching(pattern, traceable)))
    return FoundFunctions(count=len(names), functions=tuple(names[:_MOST_GENERATED]))


def matching(pattern: str, names: Iterable[str]) -> Iterator[str]:
    """Yields the names that a regular expression matches; "" matches system calls. Raises AgentError if invalid."""
    try:
        compiled = re.compile(pattern or f"^{_PREFIX.get(os.uname().machine, '')}sys_")
    except re.error as error:
        raise AgentError(f"{pattern!r} is not a valid regular expression: {error}") from None
    return (name for name in names if compiled.search(name))


def hookable_functions(pattern: str) -> dict[int, str]:
    """Returns, by number, the functions that a regular expression matches, for a hook on all of them; an empty one
    matches the system calls. Several functions may share one name, and the kernel then attaches to none of them. Raises
    AgentError when there are none, too many, or when the kernel does not list them."""
    if not pattern:
        object = BpfObject(own_elf("syscalls"), "syscalls", [])
        try:
            return {number: f"sys_{name}" for name, number in syscall_programs.numbers(object).items()}
        finally:
            object.close()
    names = traceable_names()
    if names is None:
        raise AgentError(traceable_problem())
    found = sorted(name for name, times in Counter(matching(pattern, names)).items() if times == 1)
    if not found:
        raise AgentError(f"no function that can be hooked matches {pattern!r}")
    if len(found) > _MOST_HOOKED:
        raise AgentError(f"{len(found)} functions match {pattern!r}; at most {_MOST_HOOKED} are supported")
    return dict(enumerate(found))
