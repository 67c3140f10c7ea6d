"""Looks up hooks in this kernel: functions, system calls, tracepoints, LSM hooks. Nothing is attached, except to ways
that the client wants to be tried: there, a program without effects is attached for a moment (attach_ways.py).

The trap: a function in /proc/kallsyms may still be inlined, or marked notrace; only tracefs lists what can be hooked,
and without tracefs the answer is None, "unknown".
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator

from kubectl_gadget.agent.bpf import syscall_programs
from kubectl_gadget.agent.bpf.object import BpfObject, own_elf
from kubectl_gadget.agent.host.this_node import tracefs
from kubectl_gadget.agent.kernel import attach_ways
from kubectl_gadget.errors import AgentError
from kubectl_gadget.similar_names import close_matches
from kubectl_gadget.wire.agent_messages import FoundFunction, FoundFunctions, Hooks
from kubectl_gadget.wire.client_messages import LookUp

_KALLSYMS = "/proc/kallsyms"
_PREFIX = {"x86_64": "__x64_", "aarch64": "__arm64_"}
_COMPAT = {"i386": "__ia32_", "arm32": "__arm64_compat_"}
_MOST_GENERATED = 20_000
_MOST_HOOKED = 20_000
"""Functions at one hook; so many take 20 MB of the kernel's memory."""


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
        ways={name: attach_ways.try_all(each) for name, each in asked.ways.items()},
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
        with open(_KALLSYMS, encoding="ascii", errors="replace") as file:
            for line in file:
                yield line.split(maxsplit=3)[2]
    except OSError as error:
        raise AgentError(f"{_KALLSYMS} cannot be read: {error.strerror}") from None


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
    matches the system calls. The trap: several functions may share one name, and the kernel then attaches to none of
    them. Raises AgentError when there are none, too many, or when the kernel does not list them."""
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
