"""Override at programs' functions: the new register values for each selector, in the layout of
bpf/include/policy/registers.h.

The trap: registers differ between architectures, so each architecture has its own table. A policy that names registers
has an entry only in the table of their architecture.
"""

import struct
from collections.abc import Mapping, Sequence

from kubectl_gadget.policies.language.linux_names import MACHINES
from kubectl_gadget.policies.model import Action, Assignment, NewFunction
from kubectl_gadget.policies.read.registers import MOST, continuing_as, returning

_KINDS = ("number", "sum", "memory", "function")
"""enum policy_assignment_kind."""
_ASSIGNMENT = struct.Struct("<5B3xQ")
_WORD = (1 << 64) - 1


def new_functions(overriding: Mapping[int, Action]) -> list[NewFunction]:
    """The functions that run instead of the hooked one, in the order of their numbers."""
    return list(dict.fromkeys(action.instead for action in overriding.values() if action.instead))


def register_tables(overriding: Mapping[int, Action]) -> dict[str, bytes]:
    """The tables `policy_assignments@MACHINE`: the assignments of each selector, by its bit."""
    if not overriding:
        return {}
    found = {}
    functions = new_functions(overriding)
    for machine in MACHINES:
        each = {bit: _assignments(action, machine, functions) for bit, action in overriding.items()}
        if all(each.values()):
            entries = (struct.pack("<I", bit) + _encode(assignments) for bit, assignments in each.items())
            found[f"policy_assignments@{machine}"] = b"".join(entries)
    return found


def _assignments(action: Action, machine: str, functions: Sequence[NewFunction]) -> tuple[Assignment, ...]:
    """An action's assignments on one machine; empty when the action names registers of another."""
    named = tuple(one for one in action.registers if one.to.machine == machine)
    if action.instead and len(named) == len(action.registers):
        return (*named, continuing_as(machine, functions.index(action.instead)))
    if action.registers:
        return named
    return returning(machine, action.error)


def _encode(assignments: tuple[Assignment, ...]) -> bytes:
    """`struct policy_assignments`."""
    room = (MOST + 1) * _ASSIGNMENT.size
    return struct.pack("<Q", len(assignments)) + b"".join(map(_one, assignments)).ljust(room, b"\0")


def _one(one: Assignment) -> bytes:
    source = (one.source.place, one.source.bytes) if one.source else (0, 8)
    return _ASSIGNMENT.pack(_KINDS.index(one.kind), one.to.place, one.to.bytes, *source, one.number & _WORD)
