"""Slots: the values that the engine reads at a hook, `struct policy_slot` of bpf/include/policy/config.h.

A slot is a value of one type from one source. Equal arguments of several policies share one slot. The trap: types,
sources and flags are numbers shared with the C code; a test compares them with the object's BTF.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.attach import OF_SYSCALLS, HookWay, field_offset, record_offset
from kubectl_gadget.policies.compiler.selectors import (
    IN_PROGRAMS,
    RETURNED_SOCKET,
    check_program,
    tracked_sockets,
    with_files,
)
from kubectl_gadget.policies.model import Argument, Hook
from kubectl_gadget.wire.policy_record import Form, Type
from kubectl_gadget.yaml_files import Place

MOST_SLOTS, MOST_STEPS = 24, 6


class SlotSource(IntEnum):
    """enum policy_source."""

    ARGUMENT = 1
    SYSCALL_ARGUMENT = 2
    CONTEXT = 3
    RETURN = 4
    TASK = 5
    REGISTERS = 6
    CONTEXT_ADDRESS = 7
    CALL_REGISTERS = 8


class SlotFlag(IntFlag):
    """enum policy_flag."""

    SIGNED = 1
    USER = 2
    EMBEDDED = 4
    UNSENT = 8
    RETURNED_SIZE = 16
    OF_CALL = 32
    WHOLE = 64
    NEW_SOCKET = 128


NO_FLAG = SlotFlag(0)

WITH_TEXT = (
    *(Type.STRING, Type.BUFFER, Type.FILE, Type.PATH, Type.FD, Type.DENTRY, Type.BINPRM, Type.KIOCB, Type.MODULE),
    *(Type.BPF_MAP, Type.BPF_PROGRAM, Type.NET_DEVICE, Type.BINARY, Type.PARENT_BINARY, Type.SOCKADDR),
    *(Type.DATA_LOC, Type.IOVEC, Type.IOV_ITER, Type.LOAD_INFO, Type.BPF_ATTR, Type.PERF_EVENT),
)
_SLOT = struct.Struct(f"<4B4HI{MOST_STEPS}I")

_INTEGERS = {
    **{f"int{bits}": (bits // 8, True) for bits in (8, 16, 32, 64)},
    **{f"sint{bits}": (bits // 8, True) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (bits // 8, False) for bits in (8, 16, 32, 64)},
    **{"int": (4, True), "long": (8, True), "ulong": (8, False), "size_t": (8, False), "syscall64": (8, False)},
    **{"capability": (4, True), "bpf_cmd": (4, True)},
}
_TYPES = {
    **{"string": Type.STRING, "char_buf": Type.BUFFER, "const_buf": Type.BUFFER, "fd": Type.FD, "file": Type.FILE},
    **{"path": Type.PATH, "filename": Type.STRING, "dentry": Type.DENTRY, "linux_binprm": Type.BINPRM},
    **{"kiocb": Type.KIOCB, "sock": Type.SOCK, "socket": Type.SOCKET, "sockaddr": Type.SOCKADDR},
    **{"sockaddr_un": Type.SOCKADDR, "cred": Type.CRED, "user_namespace": Type.USER_NAMESPACE},
    **{"module": Type.MODULE, "bpf_map": Type.BPF_MAP, "bpf_prog": Type.BPF_PROGRAM, "net_device": Type.NET_DEVICE},
    **{"skb": Type.SKB, "kernel_cap_t": Type.CAPABILITY_SET, "cap_inheritable": Type.CAPABILITY_SET},
    **{"cap_permitted": Type.CAPABILITY_SET, "cap_effective": Type.CAPABILITY_SET, "data_loc": Type.DATA_LOC},
    **{"char_iovec": Type.IOVEC, "iov_iter": Type.IOV_ITER, "load_info": Type.LOAD_INFO, "bpf_attr": Type.BPF_ATTR},
    **{"perf_event": Type.PERF_EVENT, "auto": Type.AUTO},
}


_OF_CALLERS = (Type.STRING, Type.BUFFER, Type.SOCKADDR, Type.IOVEC, Type.BPF_ATTR)
"""Types that lie in the caller's memory when they are passed to a system call."""
_SOURCES = {"current_task": SlotSource.TASK, "registers": SlotSource.REGISTERS}
START = ("btfType",)
"""Begins `resolve` with a pointer to a struct; the names of the struct and of its kernel module, or "", follow."""


@dataclass(frozen=True, order=True)
class Slot:
    """A value and its source. Slots are sorted by the order in which they are read, the cheapest first."""

    type: Type
    source: SlotSource
    flags: SlotFlag = NO_FLAG
    size: int = 8
    index: int = 0
    size_index: int = 0
    steps: tuple[int, ...] = ()
    resolve: tuple[str | int, ...] = ()
    """members to follow; the agent translates them into steps, using the kernel's BTF"""

    @property
    def form(self) -> Form:
        """Return the layout of its value in a record."""
        return Form(self.type, self.size, bool(self.flags & SlotFlag.SIGNED))

    def encode(self, first_test: int, tests: int, unsent: bool) -> bytes:
        """`struct policy_slot`."""
        flags = self.flags | (SlotFlag.UNSENT if unsent else 0)
        steps = [*self.steps, *[0] * (MOST_STEPS - len(self.steps))]
        head = (self.type, self.source, flags, self.size, self.index, self.size_index, first_test, tests)
        return _SLOT.pack(*head, len(self.steps), *steps)


REMEMBERED = (Type.NAMESPACE_CHANGES, Type.CAPABILITY_CHANGES, Type.STARTED_BY)
"""Types that need state to be kept for each process."""


def task_slot(type: Type, in_namespace: bool = False) -> Slot:
    """A property of the current process. `in_namespace`: unreadable in the node's own user namespace."""
    return Slot(type, SlotSource.TASK, index=int(in_namespace))


def argument_slot(
    argument: Argument, source: SlotSource, user: bool, place: Place, at_return: bool = False, has_length: bool = False
) -> Slot | None:
    """The slot of an argument; None for one that is not read (`nop`, or `returnCopy` at the call). `user`: its pointers
    point into the caller's memory. `has_length`: its length follows a socket address. Raises UsageError when the engine
    cannot read its type, or cannot read it there."""
    name = argument.type
    index = argument.index
    if name == "nop" or (argument.return_copy and not at_return):
        return None
    if argument.source != "parameter":
        source, index, user = _SOURCES[argument.source], 0, False
    resolve = argument.resolve
    if argument.btf_type:
        resolve = (*START, argument.btf_type, argument.btf_module, *resolve)
    if resolve and name == "filename":
        raise UsageError(f"{place}: `resolve` of a filename is not supported: it is read as a text")
    if name in _INTEGERS:
        size, signed = _INTEGERS[name]
        flags = SlotFlag.OF_CALL if name == "syscall64" else SlotFlag.SIGNED if signed else NO_FLAG
        # In that case the steps follow pointers in the caller's memory.
        flags |= SlotFlag.USER if user and resolve else NO_FLAG
        return Slot(Type.NUMBER, source, flags, size, index, resolve=resolve)
    type = _TYPES.get(name)
    if type is None:
        known = ", ".join(sorted(_INTEGERS | _TYPES))
        raise UsageError(f"{place}: arguments of the type {name} are not supported yet; these are: {known}")
    flags = SlotFlag.USER if user and type in _OF_CALLERS else SlotFlag(0)
    # `struct filename` begins with a pointer to the name, which lies in the kernel's memory.
    steps = (0,) if name == "filename" else ()
    if argument.max_data:
        flags |= SlotFlag.WHOLE
    if type in (Type.BUFFER, Type.IOVEC):
        if argument.return_copy and type is Type.BUFFER:
            return Slot(type, source, flags | SlotFlag.RETURNED_SIZE, 8, index, resolve=resolve)
        if argument.size_index is None:
            raise UsageError(f"{place}: {name} needs `sizeArgIndex`, the parameter that has its size, from 1")
        return Slot(type, source, flags, 8, index, argument.size_index, resolve=resolve)
    if type is Type.SOCKADDR and has_length and not resolve and source is SlotSource.ARGUMENT:
        return Slot(type, source, flags, 8, index, index + 1)
    return Slot(type, source, flags if name != "filename" else SlotFlag(0), 8, index, steps=steps, resolve=resolve)


# The slots that a policy's hook reads: its arguments, its `data`, and the function's return value.
#
# Pointers passed to a system call point into the caller's memory, and the call's registers are the caller's, not those
# with which the kernel's own function was called.


_OF_TWO = (Type.BUFFER, Type.IOVEC, Type.CAPABILITIES_GAINED)
"""Types that need a second argument, `size_index`."""


_WITH_LENGTH = frozenset(
    (
        *("sys_bind", "sys_connect", "sys_sendto", "socket_bind", "socket_connect"),
        *("unix_bind", "unix_stream_connect", "unix_dgram_connect"),
    )
)
"""Functions in which the length of a socket address follows it. Elsewhere, an abstract name ends at its first NUL."""


@dataclass(frozen=True)
class HookSlots:
    """The slots of one policy's hook, in the order in which the hook names them. None: nothing is read."""

    arguments: tuple[Slot | None, ...]
    data: tuple[Slot | None, ...]
    result: Slot | None

    def used(self) -> Iterator[Slot]:
        yield from (slot for slot in (*self.arguments, *self.data, self.result) if slot is not None)


def slots_of(hook: Hook, at_return: bool) -> HookSlots:
    """The slots of a hook. Raises UsageError for values that cannot be read there."""
    if hook.kind in IN_PROGRAMS:
        check_program(hook)
    of_call = hook.syscall or (hook.kind == "tracepoint" and hook.target.startswith(OF_SYSCALLS))
    user = of_call or hook.kind in IN_PROGRAMS
    named = hook.target.removeprefix("security_").replace(OF_SYSCALLS[0], "sys_")
    has_length = hook.kind in ("kprobe", "lsm", "tracepoint") and named in _WITH_LENGTH
    made = tracked_sockets(hook, at_return)

    def read(argument: Argument) -> Slot | None:
        return argument_slot(argument, SlotSource.ARGUMENT, user, hook.place, at_return, has_length)

    arguments = tuple(_new_socket(read(argument), place in made) for place, argument in enumerate(with_files(hook)))
    data = tuple(map(read, hook.data))
    if of_call:
        data = tuple(
            replace(slot, source=SlotSource.CALL_REGISTERS) if slot and slot.source is SlotSource.REGISTERS else slot
            for slot in data
        )
    result = None
    if at_return and hook.return_argument is not None:
        returned = replace(hook.return_argument, index=0)
        result = argument_slot(returned, SlotSource.RETURN, user, hook.place)
    return HookSlots(arguments, data, _new_socket(result, RETURNED_SOCKET in made))


def _new_socket(slot: Slot | None, made: bool) -> Slot | None:
    """The slot; `made`: the hook tracks this socket whichever selector matches."""
    return replace(slot, flags=slot.flags | SlotFlag.NEW_SOCKET) if slot and made else slot


def placed(slot: Slot, way: HookWay) -> Slot:
    """The slot, adapted to where this way finds its value."""
    if slot.source is not SlotSource.ARGUMENT:
        return slot
    match way.arguments:
        case "syscall":
            return replace(slot, source=SlotSource.SYSCALL_ARGUMENT)
        case "record":
            return replace(slot, source=SlotSource.CONTEXT)
        case "fields" | "context":
            offset = field_offset if way.arguments == "fields" else record_offset
            size_index = offset(slot.size_index) if slot.type in _OF_TWO or slot.size_index else 0
            return replace(slot, source=SlotSource.CONTEXT, index=offset(slot.index), size_index=size_index)
    return slot
