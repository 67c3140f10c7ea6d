"""The slots that a policy's hook reads: its arguments, its `data`, and the function's return value.

The trap: pointers passed to a system call point into the caller's memory, and the call's registers are the caller's,
not those with which the kernel's own function was called.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kubectl_gadget.policies.compiler import file_following, socket_tracking
from kubectl_gadget.policies.compiler.attach.hook_ways import OF_SYSCALLS, HookWay, field_offset, record_offset
from kubectl_gadget.policies.compiler.encoding.slots import Slot, SlotFlag, SlotSource, argument_slot
from kubectl_gadget.policies.compiler.refusals import IN_PROGRAMS, check_program
from kubectl_gadget.policies.model import Argument, Hook
from kubectl_gadget.wire.policy_events.policy_record import Type

_OF_TWO = (Type.BUFFER, Type.IOVEC, Type.CAPABILITIES_GAINED)
"""Types that need a second argument, `size_index`."""


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
    made = socket_tracking.made_by(hook, at_return)

    def read(argument: Argument) -> Slot | None:
        return argument_slot(argument, SlotSource.ARGUMENT, user, hook.place, at_return)

    arguments = tuple(
        _new_socket(read(argument), place in made) for place, argument in enumerate(file_following.with_files(hook))
    )
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
    return HookSlots(arguments, data, _new_socket(result, socket_tracking.RETURNED in made))


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
            size_index = offset(slot.size_index) if slot.type in _OF_TWO else 0
            return replace(slot, source=SlotSource.CONTEXT, index=offset(slot.index), size_index=size_index)
    return slot
