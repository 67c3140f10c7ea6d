"""Which rows of which gadget stand for calls of a policy's hook, and what they hold of the call's parameters.

`source_of` chooses for a hook among the gadgets of a recording; the more exact ones come first. The trap: a row that
lacks a value raises Undecided, so that a filter on it neither matches nor fails; None would be a value that the engine
could not read, which never matches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol

from kubectl_gadget.policies.decisions.calls import Address, ArgumentValue, ConnectionArgument, FileArgument, Undecided
from kubectl_gadget.policies.model import Hook, Test

FILE_TESTS: frozenset[Test] = frozenset({"file_type", "same_file"})
SOCKET_TESTS: frozenset[Test] = frozenset({"state"})
"""Tests of files and sockets that no gadget has the values for."""
_O_PATH = 0o10000000
_TCP, _UNIX = 6, 1
_BEFORE_CONNECT = (1, 13, 22, 97, 98, 99, 101, 106)
"""Errors of connect() that come before the function tcp_connect: EPERM, EACCES, EINVAL, EAFNOSUPPORT, EADDRINUSE,
EADDRNOTAVAIL, ENETUNREACH, EISCONN."""
_SI_USER, _SI_TKILL = 0, -6
_EXECUTES = ("sys_execve", "sys_execveat")
"""Calls whose rows of trace syscalls are made after the process has begun to run the new program."""
_FIRST_FIELD = 5
"""The field of a tracepoint syscalls/… with the first parameter, or with the result."""
_ENTER, _EXIT = "syscalls/sys_enter_", "syscalls/sys_exit_"


class GadgetRow(Protocol):
    """One row of a gadget."""

    def __getitem__(self, member: str) -> Any:
        """A member as in JSON. Raises Undecided if it is null or cut."""

    def number(self, field: str) -> int:
        """A field as in the record."""

    def argument(self, position: int) -> ArgumentValue:
        """A parameter that trace syscalls recorded: a text where the call has one, else the register's content."""


Reader = Callable[[GadgetRow], ArgumentValue]
Key = int | tuple[int, str]
"""A parameter's position, or its position and the member that `resolve` names."""


@dataclass(frozen=True)
class HookSource:
    """Rows of one gadget that stand for calls of these hooks."""

    gadget: str
    hooks: tuple[str, ...]
    """`sys_NAME` for a system call, `security_NAME` for a check, else a function or a tracepoint"""
    parameters: Mapping[Key, Reader] = field(default_factory=dict)
    where: Callable[[GadgetRow], bool] = lambda _: True
    returned: Reader | None = None
    by_caller: bool = False
    """the call's process is the one before the exec that the row is about"""
    needs: tuple[str, ...] = ()
    """parameters of the gadget with which it must have been recorded"""
    group: str = ""
    """the row does not say which of the group's calls it was; so of a policy's hooks, only the first of the group gets
    the row"""
    doubt: str = ""
    """how the events may differ from those of a live run, for people"""

    @property
    def name(self) -> str:
        """The first hook's name, without the prefix of its kind."""
        return self.hooks[0].removeprefix("sys_").removeprefix("security_")


@dataclass(frozen=True)
class ArgumentPlace:
    """Where a hook finds the values of its arguments in the rows of its source."""

    source: HookSource
    first: int = 0
    """the position of the first parameter, as the policy counts"""
    at_exit: bool = False
    """the hook's first parameter is the result"""

    def reader(self, index: int, resolve: Sequence[str | int]) -> Reader | None:
        """What reads an argument; None: rows of this gadget do not have it."""
        if self.at_exit:
            return self.source.returned if index == self.first and not resolve else None
        position = index - self.first
        if self.source.gadget == "trace_syscalls":
            return None if resolve or not 0 <= position < 6 else lambda row: row.argument(position)
        if resolve:
            return self.source.parameters.get((position, ".".join(map(str, resolve))))
        return self.source.parameters.get(position)


def _member(name: str) -> Reader:
    return lambda row: row[name]


def _number(name: str) -> Reader:
    return lambda row: row.number(name)


def _file(name: str) -> Reader:
    return lambda row: FileArgument(row[name], unknown=FILE_TESTS)


def _address(row: GadgetRow, name: str) -> Address:
    return ip_address(row[name])


def _result(row: GadgetRow) -> int:
    return -int(row["errno"])


def _descriptor(row: GadgetRow) -> int:
    return -int(row["errno"]) if row["errno"] else row.number("fd")


def _connected(row: GadgetRow) -> ConnectionArgument:
    return ConnectionArgument(
        family=row.number("family"),
        protocol=_TCP,
        source=_address(row, "local"),
        destination=_address(row, "remote"),
        source_port=row["local_port"],
        destination_port=row["remote_port"],
        unknown=SOCKET_TESTS,
    )


def _checked_address(row: GadgetRow) -> ConnectionArgument:
    """An address that trace lsm shows: of a Unix socket the name, without the @ that stands for a NUL."""
    family = row.number("argument_1")
    if family == _UNIX:
        return ConnectionArgument(family, path=row["name"])
    return ConnectionArgument(family, source=_address(row, "address"), source_port=row["port"])


def _given(address: str, port: str) -> Reader:
    """A sockaddr, which policies compare as a source."""
    return lambda row: ConnectionArgument(row.number("family"), source=_address(row, address), source_port=row[port])


def _is(operation: str) -> Callable[[GadgetRow], bool]:
    return lambda row: row["operation"] == operation


def _opened(row: GadgetRow) -> bool:
    return row["errno"] == 0 and not row.number("opened_flags") & _O_PATH


def _connects(row: GadgetRow) -> bool:
    return row["operation"] == "connect" and row["errno"] not in _BEFORE_CONNECT


def _program(row: GadgetRow) -> ArgumentValue:
    if row["interpreted"]:
        raise Undecided("trace process names the interpreter of a script, not the script's file")
    return FileArgument(row["exe"], unknown=FILE_TESTS)


_WHICH = "{} does not say by which call, so its rows count for the first of these that the policy names"


def _calls(gadget: str, operation: str, names: Mapping[str, Mapping[Key, Reader]]) -> Iterator[HookSource]:
    """System calls with the same effect; the gadget's row does not say which of them was used."""
    doubt = _WHICH.format(gadget.replace("_", " ")) if len(names) > 1 else ""
    for name, parameters in names.items():
        call = (f"sys_{name}",)
        yield HookSource(gadget, call, parameters, _is(operation), returned=_result, group=operation, doubt=doubt)


_PATH, _TO = _member("path_written"), _member("to_written")
_OPEN, _FLAGS, _MODE = _member("path"), _number("flags"), _number("mode")


_OPENS: Mapping[str, Mapping[Key, Reader]] = {
    "openat": {1: _OPEN, 2: _FLAGS, 3: _MODE},
    "open": {0: _OPEN, 1: _FLAGS, 2: _MODE},
    "creat": {0: _OPEN, 1: _MODE},
    "openat2": {1: _OPEN},
}


def _opens() -> Iterator[HookSource]:
    which = _WHICH.format("trace open")
    for name, parameters in _OPENS.items():
        call = (f"sys_{name}",)
        yield HookSource("trace_open", call, parameters, returned=_descriptor, group="open", doubt=which)
    file = _file("resolved")
    doubt = "trace open has no files that the kernel itself opens, such as those of programs that are executed"
    opened: Mapping[Key, Reader] = {0: file, (0, "f_flags"): _number("opened_flags")}
    yield HookSource("trace_open", ("security_file_open",), opened, _opened, needs=("resolve",), doubt=doubt)
    doubt = "trace open has no descriptors other than those of open and its like"
    given: Mapping[Key, Reader] = {0: _number("fd"), 1: file}
    yield HookSource(
        "trace_open", ("fd_install",), given, lambda row: row["errno"] == 0, needs=("resolve",), doubt=doubt
    )


def _executions() -> Iterator[HookSource]:
    failed = "trace process has no attempts that failed, and does not say whether it was execve or execveat"
    executes = _is("exec")
    for name, position in (("execve", 0), ("execveat", 1)):
        yield HookSource(
            "trace_process",
            (f"sys_{name}",),
            {position: _member("path")},
            executes,
            by_caller=True,
            group="exec",
            doubt=failed,
        )
    checks = ("security_bprm_check", "security_bprm_check_security", "security_bprm_creds_from_file")
    yield HookSource("trace_process", checks, {0: _program}, executes, by_caller=True)
    yield HookSource("trace_process", ("sched/sched_process_exec",), {4: _member("path"), 5: _number("pid")}, executes)
    yield HookSource(
        "trace_process", ("sched/sched_process_exit",), {4: _member("comm"), 5: _number("pid")}, _is("exit")
    )


def _signals() -> Iterator[HookSource]:
    signal, code = _number("signal"), _number("code")

    def made(*codes: int) -> Callable[[GadgetRow], bool]:
        return lambda row: row.number("receiver_pid") != 0 and (not codes or row["code_raw"] in codes)

    generated: Mapping[Key, Reader] = {4: signal, 6: code, 7: _member("receiver_comm"), 8: _number("receiver_tid")}
    yield HookSource("trace_signal", ("signal/signal_generate",), generated, made())
    yield HookSource("trace_signal", ("security_task_kill",), {2: signal}, made(_SI_USER, _SI_TKILL, -1))
    failed = "trace signal does not say by which call, and calls that failed have no signal"
    yield HookSource("trace_signal", ("sys_kill",), {1: signal}, made(_SI_USER), group="kill", doubt=failed)
    yield HookSource("trace_signal", ("sys_tkill",), {1: signal}, made(_SI_TKILL), group="kill", doubt=failed)
    yield HookSource("trace_signal", ("sys_tgkill",), {2: signal}, made(_SI_TKILL), group="kill", doubt=failed)


_PRIVILEGES: Mapping[str, Mapping[Key, Reader]] = {
    **{name: {0: _number("target")} for name in ("setuid", "setgid", "setfsuid", "setfsgid", "setgroups")},
    **{name: {1: _number("target")} for name in ("setreuid", "setregid", "setresuid", "setresgid")},
    "setns": {0: _number("target")},
    "capset": {},
    "chroot": {},
    "ptrace": {0: _number("request"), 1: _number("target")},
}
_FILES: Mapping[str, Mapping[str, Mapping[Key, Reader]]] = {
    "unlink": {"unlinkat": {1: _PATH}, "unlink": {0: _PATH}},
    "rmdir": {"rmdir": {0: _PATH}},
    "rename": {"renameat2": {1: _PATH, 3: _TO}, "renameat": {1: _PATH, 3: _TO}, "rename": {0: _PATH, 1: _TO}},
    "mkdir": {"mkdirat": {1: _PATH}, "mkdir": {0: _PATH}},
    "symlink": {"symlinkat": {0: _TO, 2: _PATH}, "symlink": {0: _TO, 1: _PATH}},
    "chmod": {"fchmodat": {1: _PATH}, "chmod": {0: _PATH}, "fchmod": {}},
    "chown": {"fchownat": {1: _PATH}, "chown": {0: _PATH}, "lchown": {0: _PATH}, "fchown": {}},
}
_LSM: Mapping[str, Mapping[Key, Reader]] = {
    "file_open": {0: _file("path"), (0, "f_flags"): _number("argument_1")},
    "bprm_check_security": {0: _file("path")},
    "file_truncate": {0: _file("path"), (0, "f_flags"): _number("argument_1")},
    "file_ioctl": {0: _file("path"), 1: _number("argument_1"), 2: _number("argument_2")},
    "mmap_file": {0: _file("path"), 1: _number("argument_1")},
    "path_chmod": {0: _file("path"), 1: _number("argument_1")},
    "path_chown": {0: _file("path")},
    "path_truncate": {0: _file("path")},
    "path_chroot": {0: _file("path")},
    "file_mprotect": {(0, "vm_file"): _file("path"), 1: _number("argument_1")},
    "move_mount": {0: _file("path"), 1: _file("to")},
    "task_kill": {2: _number("argument_1")},
    "ptrace_access_check": {(0, "tgid"): _number("target_pid"), 1: _number("argument_1")},
    "task_prctl": {place: _number(f"argument_{place + 1}") for place in range(3)},
    "socket_create": {place: _number(f"argument_{place + 1}") for place in range(3)},
    "socket_bind": {1: _checked_address},
    "socket_connect": {1: _checked_address},
    "bpf": {0: _number("argument_1")},
    "kernel_module_request": {0: _member("name")},
    "kernel_read_file": {0: _file("path"), 1: _number("argument_1")},
    "kernel_load_data": {0: _number("argument_1")},
    "syslog": {0: _number("argument_1")},
}


def _others() -> Iterator[HookSource]:
    answered = "trace tcp has connections with the answer to them, so processes may have changed by then"
    tries = "trace tcp has no connections that fail before a packet is sent, and none of other protocols"
    yield HookSource("trace_tcp", ("tcp_connect",), {0: _connected}, _connects, doubt=answered)
    remote = _given("remote", "remote_port")
    yield HookSource("trace_tcp", ("security_socket_connect",), {1: remote}, _connects, doubt=tries)
    bound = _given("address", "asked_port")
    local = "trace bind has no Unix sockets"
    yield HookSource("trace_bind", ("security_socket_bind",), {1: bound}, doubt=local)
    yield HookSource("trace_bind", ("sys_bind",), {0: _number("fd")}, returned=_result, doubt=local)
    for name, parameters in _PRIVILEGES.items():
        yield HookSource("trace_privilege", (f"sys_{name}",), parameters, _is(name), returned=_result)
    mounted: Mapping[Key, Reader] = {
        0: _member("source_written"),
        1: _member("target_written"),
        2: _member("type"),
        3: _number("flags"),
    }
    yield HookSource("trace_mount", ("sys_mount",), mounted, _is("mount"), returned=_result)
    for operation, names in _FILES.items():
        yield from _calls("trace_file", operation, names)
    for name in ("sys_bpf", "security_bpf"):
        yield HookSource("trace_bpf", (name,), {0: _number("command")}, returned=_result)
    for name in ("cap_capable", "security_capable"):
        yield HookSource("trace_capabilities", (name,), {2: _number("capability")}, returned=_result)


def _checks() -> Iterator[HookSource]:
    def of(name: str) -> Callable[[GadgetRow], bool]:
        return lambda row: row["hook"] == name

    for name, parameters in _LSM.items():
        names = (f"security_{name}", *(("security_bprm_check",) if name == "bprm_check_security" else ()))
        yield HookSource("trace_lsm", names, parameters, of(name), returned=lambda row: -row.number("verdict"))


SOURCES: tuple[HookSource, ...] = (*_checks(), *_opens(), *_executions(), *_others(), *_signals())


def _of_call(name: str) -> HookSource:
    return HookSource(
        "trace_syscalls",
        (f"sys_{name}",),
        where=lambda row: row["syscall"] == name,
        returned=_member("result"),
    )


def key_of(hook: Hook) -> str:
    """The hook's name in `HookSource.hooks`; empty for hooks of which no gadget has rows."""
    if hook.kind in ("uprobe", "usdt", "loader", "raw_tracepoint") or hook.generated or hook.abi:
        return ""
    if hook.kind == "tracepoint":
        for prefix in (_ENTER, _EXIT):
            if hook.target.startswith(prefix):
                return f"sys_{hook.target.removeprefix(prefix)}"
        return hook.target
    return f"security_{hook.target}" if hook.kind == "lsm" else hook.target


def sources_of(hook: Hook) -> Iterator[HookSource]:
    """All sources of a hook, the exact ones first."""
    key = key_of(hook)
    if key.startswith("sys_") and key not in _EXECUTES:
        yield _of_call(key.removeprefix("sys_"))
    yield from (source for source in SOURCES if key in source.hooks)


def source_of(hook: Hook, recorded: Mapping[str, Mapping[str, Any]]) -> ArgumentPlace | None:
    """Where the rows of a hook are, among these gadgets with their parameters; None: nowhere."""
    for source in sources_of(hook):
        parameters = recorded.get(source.gadget)
        if parameters is None or not all(parameters.get(name) for name in source.needs):
            continue
        if source.gadget in ("trace_lsm", "trace_syscalls") and not _has_rows(source.name, parameters):
            continue
        is_call = hook.kind == "tracepoint" and hook.target.startswith((_ENTER, _EXIT))
        return ArgumentPlace(source, _FIRST_FIELD if is_call else 0, hook.target.startswith(_EXIT))
    return None


def _has_rows(name: str, parameters: Mapping[str, Any]) -> bool:
    """Whether trace lsm or trace syscalls was recorded with this hook or call: names separated by commas, or all. A
    class of calls may have it."""
    asked = {word.strip() for word in str(parameters.get("hook") or parameters.get("syscalls") or "all").split(",")}
    return bool({"all", name} & asked) or any(word.startswith("%") for word in asked)
