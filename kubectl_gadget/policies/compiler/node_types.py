"""What each node has to look up in its BTF, or in its tracepoints' formats, before it can read a hook's slots.

The trap: for system calls, lists, tracepoints and programs the kernel's BTF does not give the types of arguments.
"""

from collections.abc import Sequence
from dataclasses import replace

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.attach.hook_ways import HookWay
from kubectl_gadget.policies.compiler.encoding.comparison_tables import Test, TestClass
from kubectl_gadget.policies.compiler.encoding.slots import START, Slot, SlotSource
from kubectl_gadget.policies.model import Hook
from kubectl_gadget.wire.policy_events.policy_record import Type
from kubectl_gadget.wire.policy_messages import Resolve

_RESOLVED_FROM = {
    SlotSource.ARGUMENT: "parameter",
    SlotSource.RETURN: "return",
    SlotSource.TASK: "task",
    SlotSource.REGISTERS: "registers",
    SlotSource.CALL_REGISTERS: "registers",
}
_TEXT_TESTS = {TestClass.PREFIX, TestClass.POSTFIX, TestClass.SUBSTRING, TestClass.GLOB}


def usable_ways(hook: Hook, slots: Sequence[Slot], ways: list[HookWay]) -> list[HookWay]:
    """The ways by which all slots can be read. Raises UsageError for `pt_regs` at a hook that has no registers."""
    if hook.kind == "tracepoint" and any(slot.type is Type.AUTO and not slot.resolve for slot in slots):
        # Types come from the node's `format` file, which lists all fields, including those at well-known offsets.
        ways = [replace(way, arguments="record") for way in ways]
    if any(slot.source is SlotSource.REGISTERS for slot in slots):
        ways = [way for way in ways if way.kind in ("kprobe", "uprobe", "usdt")]
        if not ways:
            raise UsageError(f"{hook.place}: pt_regs exist only at kprobes and uprobes")
    return ways


def to_resolve(
    hook: Hook, slots: Sequence[Slot], tests: Sequence[Sequence[Test]], ways: Sequence[HookWay]
) -> tuple[Resolve, ...]:
    """RUN's `resolve`. `tests`: for each slot, its tests. Raises UsageError for what BTF cannot resolve."""
    by_btf = all(way.arguments == "function" and not way.probe for way in ways) and not hook.generated
    entries = []
    for number, slot in enumerate(slots):
        if not slot.resolve and slot.type is not Type.AUTO:
            continue
        is_auto, begins = slot.type is Type.AUTO, slot.resolve[:1] == START
        by_format = hook.kind == "tracepoint" and not slot.resolve and slot.source is SlotSource.ARGUMENT
        of_hook = slot.source in (SlotSource.ARGUMENT, SlotSource.RETURN) and not begins
        if of_hook and not by_format and not by_btf:
            what = "the type auto" if is_auto else "`resolve`"
            why = "uses the kernel's BTF, which does not describe system calls, lists, tracepoints, programs"
            raise UsageError(f"{hook.place}: {what} {why}")
        struct, module = map(str, slot.resolve[1:3]) if begins else ("", "")
        entries.append(
            Resolve(
                slot=number,
                index=slot.index,
                source=_RESOLVED_FROM[slot.source],
                struct=struct if begins else None,
                path=slot.resolve[3:] if begins else slot.resolve,
                auto=is_auto,
                compared=_compared(tests[number]) if is_auto else None,
                module=module,
                btf=hook.probe.btf_path if begins and not module and hook.probe else "",
            )
        )
    return tuple(entries)


def _compared(tests: Sequence[Test]) -> str | None:
    """What an argument of the type `auto` has to be for its filters: "text" or "number"; None without filters."""
    kinds = {test.look.kind for test in tests}
    return None if not kinds else "text" if kinds & _TEXT_TESTS else "number"
