"""What each node has to look up in its BTF, or in its tracepoints' formats, before it can read a hook's slots.

The trap: for system calls, lists, tracepoints and programs the kernel's BTF does not give the types of arguments.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.engine.attach.hook_ways import Way
from kubectl_gadget.policies.engine.encoding.comparison_tables import Test, TestClass
from kubectl_gadget.policies.engine.encoding.slots import START, Slot, SlotSource
from kubectl_gadget.policies.model import Hook
from kubectl_gadget.policy_events.record import Type

_RESOLVED_FROM = {
    SlotSource.ARGUMENT: "parameter",
    SlotSource.RETURN: "return",
    SlotSource.TASK: "task",
    SlotSource.REGISTERS: "registers",
    SlotSource.CALL_REGISTERS: "registers",
}
_TEXT_TESTS = {TestClass.PREFIX, TestClass.POSTFIX, TestClass.SUBSTRING, TestClass.GLOB}


def usable_ways(hook: Hook, slots: Sequence[Slot], ways: list[Way]) -> list[Way]:
    """The ways by which all slots can be read. Raises UsageError for `pt_regs` at a hook that has no registers."""
    if hook.kind == "tracepoint" and any(slot.type is Type.AUTO and not slot.resolve for slot in slots):
        # Types come from the node's `format` file, which lists all fields, including those at well-known offsets.
        ways = [replace(way, arguments="record") for way in ways]
    if any(slot.source is SlotSource.REGISTERS for slot in slots):
        ways = [way for way in ways if way.kind in ("kprobe", "uprobe", "usdt")]
        if not ways:
            raise UsageError(f"{hook.place}: pt_regs are there at kprobes and uprobes only")
    return ways


def to_resolve(
    hook: Hook, slots: Sequence[Slot], tests: Sequence[Sequence[Test]], ways: Sequence[Way]
) -> list[dict[str, Any]]:
    """RUN's `resolve`. `tests`: for each slot, its tests. Raises UsageError for what BTF cannot resolve."""
    by_btf = all(way.arguments == "function" and not way.probe for way in ways) and not hook.generated
    entries = []
    for number, slot in enumerate(slots):
        if not slot.resolve and slot.type is not Type.AUTO:
            continue
        entry: dict[str, Any] = {"slot": number, "index": slot.index, "source": _RESOLVED_FROM[slot.source]}
        path = list(slot.resolve)
        by_format = hook.kind == "tracepoint" and not slot.resolve and slot.source is SlotSource.ARGUMENT
        of_hook = slot.source in (SlotSource.ARGUMENT, SlotSource.RETURN) and slot.resolve[:1] != START
        if of_hook and not by_format and not by_btf:
            what = "the type auto" if slot.type is Type.AUTO else "`resolve`"
            why = "goes by the kernel's BTF, which says nothing of system calls, lists, tracepoints, programs"
            raise UsageError(f"{hook.place}: {what} {why}")
        if slot.resolve[:1] == START:
            entry["struct"], module, path = path[1], path[2], path[3:]
            entry |= {"module": module} if module else {"btf": hook.probe.btf_path} if hook.probe else {}
        if slot.type is Type.AUTO:
            entry |= {"auto": True, "compared": _compared(tests[number])}
        entries.append(entry | {"path": path})
    return entries


def _compared(tests: Sequence[Test]) -> str | None:
    """What an argument of the type `auto` has to be for its filters: "text" or "number"; None without filters."""
    kinds = {test.look.kind for test in tests}
    return None if not kinds else "text" if kinds & _TEXT_TESTS else "number"
