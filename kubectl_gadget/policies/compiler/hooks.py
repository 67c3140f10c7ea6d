"""One hook as the kernel takes it: the selectors of all its policies, the values to read and to compare, and the hook's
entry in RUN (docs/protocol.md, "Policies").
"""

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.attach import HookWay, choose_ways, ways
from kubectl_gadget.policies.compiler.selectors import (
    FILE_ID,
    SOCKET_MASKS,
    TRACKING_ACTIONS,
    CompilerOptions,
    PolicyAtHook,
    SelectorAtHook,
    file_position,
    hashed_argument,
    selectors_at,
    socket_position,
    tracks_sockets,
)
from kubectl_gadget.policies.compiler.slots import (
    MOST_SLOTS,
    START,
    Slot,
    SlotFlag,
    SlotSource,
    placed,
    slots_of,
    task_slot,
)
from kubectl_gadget.policies.compiler.tables import (
    Encoded,
    FilterTest,
    Followed,
    Look,
    Test,
    TestClass,
    add_filter,
    filter_test,
)
from kubectl_gadget.policies.language import MACHINES, lsm_hook
from kubectl_gadget.policies.model import Action, Assignment, Hook, HookFilter, NewFunction
from kubectl_gadget.policies.read.values import MOST, continuing_as, returning
from kubectl_gadget.wire.message import Value
from kubectl_gadget.wire.policy_messages import PolicyHookSpec, Remedy, Resolve, SameFile, Way
from kubectl_gadget.wire.policy_record import Form, Type

# What each node has to look up in its BTF, or in its tracepoints' formats, before it can read a hook's slots.
#
# For system calls, lists, tracepoints and programs the kernel's BTF does not give the types of arguments.

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
    """Return the type that an argument of the type `auto` must have for its filters: "text" or "number"; None without
    filters."""
    kinds = {test.look.kind for test in tests}
    return None if not kinds else "text" if kinds & _TEXT_TESTS else "number"


# One hook in the form that the kernel takes: the selectors of all its policies, the values to read and to compare.
#
# Each selector of a hook is one bit, in the order of the policies. After the bits of each policy one bit stays free,
# so that the kernel finds the first match of each policy without a loop over all of them
# (bpf/include/policy/decide.h). The trap: a hook with `returns` is compiled to two of these: one at the call, which
# can still be denied, and one at the return.


MASKS = (
    *("guard", "start", "post", "override", "signal", "limit", "none"),
    *("follow", "unfollow", "kernel_stack", "user_stack", "hash", "track", "untrack", "set"),
)
"""The names of enum policy_mask, in its order."""


class CompiledHook:
    """One hook with the selectors of all its policies. Raises UsageError when it needs what the engine cannot do."""

    def __init__(
        self, number: int, name: str, entries: Sequence[PolicyAtHook], options: CompilerOptions, followed: Followed
    ) -> None:
        self.number = number
        self.name = name
        self.options = options
        self.hook: Hook = entries[0].hook
        """the first policy's hook; the other policies' hooks have the same target"""
        self.at_return = self.hook.returns and not entries[0].at_call
        self.tracks = tracks_sockets(entries[0].policy)
        self.ignores_missing = all(entry.hook.ignore_missing for entry in entries)
        self._silent = {id(entry.hook) for entry in entries if entry.at_call}
        self.bits: list[SelectorAtHook | None] = []
        self._starts = 0
        for entry in entries:
            self._starts |= 1 << len(self.bits)
            self.bits += [*selectors_at(entry, options), None]
        self.ways = choose_ways(name, entries, [one for _, one in self.selectors], self.denies, options)
        self.slots: list[Slot] = []
        self.unsent: list[bool] = []
        """for each slot: True when events do not include it"""
        self.spans: list[tuple[int, int]] = []
        """for each slot: the number of its first test, and how many tests it has"""
        self.arguments: dict[int, list[int | None]] = {}
        """for each policy's hook, by id(): the slot number of each argument"""
        self.data: dict[int, list[int | None]] = {}
        self.results: dict[int, int | None] = {}
        self.called: int | None = None
        """the slot that holds which of several functions was called"""
        try:
            self._compile([entry.hook for entry in entries], followed)
        except ValueError as error:
            raise UsageError(f"{self.hook.place}: {name}: {error}") from None

    def _compile(self, hooks: Sequence[Hook], followed: Followed) -> None:
        read = {id(hook): slots_of(hook, self.at_return) for hook in hooks}
        filter_tests: list[tuple[int, FilterTest]] = []
        for bit, one in self.selectors:
            own = read[id(one.hook)]
            filter_tests += [
                (bit, filter_test(filter, own.arguments, own.result, followed, own.data))
                for filter in self._filters(one)
            ]
            filter_tests += [(bit, _is_followed(own.arguments[place])) for place in one.followed_only]
        sent = {slot for own in read.values() for slot in own.used()}
        if self.hook.generated:
            sent.add(task_slot(Type.FUNCTION))
        if self.options.names_process:
            sent |= {task_slot(type) for type in (Type.BINARY, Type.PARENT_BINARY)}
        self.slots = sorted(sent | {item.slot for _, item in filter_tests})
        if len(self.slots) > MOST_SLOTS:
            raise ValueError(f"{len(self.slots)} different values to read; at most {MOST_SLOTS} are supported")
        self.unsent = [slot not in sent for slot in self.slots]
        self.encoded = self._encode(filter_tests)
        numbers: dict[Slot | None, int | None] = {slot: number for number, slot in enumerate(self.slots)} | {None: None}
        for hook_id, own in read.items():
            self.arguments[hook_id] = [numbers[slot] for slot in own.arguments]
            self.data[hook_id] = [numbers[slot] for slot in own.data]
            self.results[hook_id] = numbers[own.result]
        self.called = numbers[task_slot(Type.FUNCTION)] if self.hook.generated else None

    def _encode(self, filter_tests: Sequence[tuple[int, FilterTest]]) -> Encoded:
        tests: list[Test] = []
        for slot in self.slots:
            first = len(tests)
            for bit, item in filter_tests:
                if item.slot == slot:
                    add_filter(tests, first, bit, item.look, item.placed(self.slots), item.negated)
            self.spans.append((first, len(tests) - first))
        encoded = Encoded(tests, len(self.bits))
        self.ways = usable_ways(self.hook, self.slots, self.ways)
        by_slot = [tests[first : first + count] for first, count in self.spans]
        self.resolved = to_resolve(self.hook, self.slots, by_slot, self.ways)
        return encoded

    def _filters(self, one: SelectorAtHook) -> Iterable[HookFilter]:
        yield from (filter for filter in one.selector.filters if filter.subject.kind != "workload")
        if self.at_return:
            yield from one.selector.return_filters

    @cached_property
    def selectors(self) -> list[tuple[int, SelectorAtHook]]:
        """All selectors, each with its bit."""
        return [(bit, one) for bit, one in enumerate(self.bits) if one is not None]

    @cached_property
    def forms(self) -> list[Form]:
        """Return the layout of each slot's value in records."""
        return [slot.form for slot in self.slots]

    @property
    def mirrors(self) -> bool:
        """Return True if the hook was added for system calls of 32-bit programs and is not named by a policy."""
        return bool(self.hook.mirrors)

    @property
    def enforces(self) -> bool:
        """Return True if the kernel does more here than observe."""
        return any(one.enforced and (one.acts or one.written) for _, one in self.selectors)

    @property
    def denies(self) -> bool:
        """Return True if a selector denies calls, rather than only sending a signal. Always False at a return."""
        return not self.at_return and any(one.enforced and one.denial for _, one in self.selectors)

    @property
    def takes_stacks(self) -> bool:
        """Return True if any event includes a stack."""
        return any(self.masks[name] for name in ("kernel_stack", "user_stack"))

    @property
    def reacting(self) -> int:
        """The bits of the selectors whose events user space reacts to."""
        return sum(1 << bit for bit, one in self.selectors if one.reacts and one.acts)

    @property
    def requests(self) -> dict[int, tuple[tuple[str, str], ...]]:
        """By the selector's bit: the requests that agents make when it matches."""
        posting = (
            (bit, one) for bit, one in self.selectors if self._posts(one) and one.policy.options.mode != "monitor"
        )
        return {bit: one.requests for bit, one in posting if one.requests}

    @property
    def overriding(self) -> dict[int, Action]:
        """The Override actions at a program's function, by the bit of their selector."""
        return {
            bit: action
            for bit, one in self.selectors
            if one.hook.probe and one.enforced
            for action in one.selector.actions
            if action.kind == "Override"
        }

    @cached_property
    def masks(self) -> dict[str, int]:
        """For each name in MASKS, the bits of the selectors that do it."""
        sets = dict.fromkeys(MASKS, 0) | {"guard": -1, "start": self._starts}
        for bit, one in self.selectors:
            sets["guard"] &= ~(1 << bit)
            for name, wanted in self._masks_of(one):
                sets[name] |= (1 << bit) if wanted else 0
        return sets

    def _masks_of(self, one: SelectorAtHook) -> Iterable[tuple[str, bool]]:
        yield "post", self._posts(one)
        yield "override", self.denies and one.enforced and bool(one.denial)
        yield "signal", one.enforced and bool(one.signal_sent(self.at_return))
        yield "limit", one.limit is not None
        yield "set", one.enforced and one.written is not None
        for action in one.selector.all_actions:
            yield "follow", action.kind == "FollowFD"
            yield "unfollow", action.kind == "UnfollowFD"
            yield "kernel_stack", action.kernel_stack
            yield "user_stack", action.user_stack
            yield "hash", action.file_hash
            yield "track", action.kind == "TrackSock"
            yield "untrack", action.kind == "UntrackSock"
        if self.at_return and one.hook.return_argument_action in TRACKING_ACTIONS:
            yield SOCKET_MASKS[one.hook.return_argument_action], True

    def _posts(self, one: SelectorAtHook) -> bool:
        return id(one.hook) not in self._silent and one.posts


def _is_followed(slot: Slot | None) -> FilterTest:
    assert slot is not None
    return FilterTest(slot, Look(TestClass.IN_SET, FILE_ID), (0,), negated=True)


# Override at programs' functions: the new register values for each selector, in the layout of
# bpf/include/policy/registers.h.
#
# Registers differ between architectures, so each architecture has its own table. A policy that names registers has an
# entry only in the table of their architecture.


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


# A compiled hook as an entry of RUN's `hooks` (docs/protocol.md, "Policies"): tables, variables, ways.
#
# `tables` holds bytes that are written to the kernel's maps unchanged, keys and values alternating.


_ANY_LSM_HOOK, _ANY_FUNCTION = Hook("lsm", "file_open"), Hook("kprobe", "vfs_read")
_LIMITED_ENTRIES = 32768
_ACTION = struct.Struct("<iIQIIIIQ")
_SCOPES = {"global": 0, "process": 1, "thread": 2}


def hook_spec(hook: CompiledHook) -> PolicyHookSpec:
    """One entry of RUN's `hooks`."""
    encoded, masks = hook.encoded, hook.masks
    tables = dict(encoded.tables)
    tables["policy_masks"] = b"".join(
        struct.pack("<I", key) + encoded.set(masks[name]) for key, name in enumerate(MASKS)
    )
    tables |= register_tables(hook.overriding)
    tables["policy_actions"] = b"".join(
        struct.pack("<I", bit) + _action(hook, one) for bit, one in enumerate(hook.bits)
    )
    generated, mirrors = hook.hook.generated, hook.hook.mirrors
    if mirrors:
        # The same for all mirrors of one hook, and for no others: a call may have several hooks.
        mirrors += f"{' return' if hook.at_return else ''}{' sockets' if hook.tracks else ''}"
    return PolicyHookSpec(
        name=hook.name,
        words=encoded.words,
        variables=_variables(hook),
        ways=tuple(_way(hook, way) for way in hook.ways),
        selectors=tuple(-1 if one is None else one.scope for one in hook.bits),
        workloads={bit: one.workloads for bit, one in hook.selectors if one.workloads},
        unsure=_unsure(hook),
        tables=tables,
        limited=_LIMITED_ENTRIES if masks["limit"] else 1,
        optional=hook.ignores_missing,
        remedies=_remedies(hook),
        resolve=hook.resolved,
        files=tuple(
            SameFile(test=test, path=os.fsdecode(path), selectors=selectors) for test, path, selectors in encoded.files
        ),
        whole=any(slot.flags & SlotFlag.WHOLE for slot in hook.slots),
        mappings=hook.hook.kind == "loader",
        functions=generated.pattern if generated else None,
        mirrors=mirrors,
    )


def _variables(hook: CompiledHook) -> dict[str, Value]:
    masks = hook.masks
    return {
        "policy_hook": hook.number,
        "policy_words": hook.encoded.words,
        "policy_slot_count": len(hook.slots),
        "policy_tests": hook.encoded.tests,
        "policy_signals": bool(masks["signal"]),
        "policy_limits": bool(masks["limit"]),
        "policy_follows_files": hook.options.follows,
        "policy_stacks": hook.takes_stacks,
        "policy_sets": bool(masks["set"]),
        "policy_tracks_sockets": hook.tracks,
        **_hash(hook),
    }


def _remedies(hook: CompiledHook) -> tuple[Remedy, ...]:
    """Suggestions for nodes that support none of the ways. Only a node knows which helps there: it tries the ways of
    each. A hook that does not exist can neither deny nor send signals."""
    if hook.hook.generated and not hook.hook.syscall:
        what = "a list with `values`, the functions' names, which have a program each"
        return (_remedy(what, ways(_ANY_FUNCTION, False, False)),)
    if not hook.denies or hook.options.allow_weaker:
        return ()
    found = []
    if weaker := [way for way in ways(hook.hook, hook.at_return, True) if not way.denies]:
        what = "send signals, which may come too late" if hook.masks["signal"] else "watch"
        found.append(_remedy(f"--allow-weaker, which lets such nodes only {what}", weaker))
    if not hook.hook.probe and hook.hook.kind != "lsm" and lsm_hook(hook.hook.target) is None:
        able = [way for way in ways(_ANY_LSM_HOOK, False, True) if way.denies]
        found.append(_remedy("a policy with lsmhooks, where such nodes can deny", able))
    return tuple(found)


def _remedy(text: str, tried: Sequence[HookWay]) -> Remedy:
    """One suggestion. Ways in programs are left out, since they cannot be tried without a file."""
    return Remedy(text=text, ways=tuple(way.message() for way in tried if not way.probe))


def _unsure(hook: CompiledHook) -> tuple[int, ...]:
    """Of the selectors for some workloads, those that apply to all until labels are known: those that deny or kill.
    Selectors that would let calls pass apply to none."""
    strict = {one.policy.name for _, one in hook.selectors if one.enforced and one.acts}
    return tuple(bit for bit, one in hook.selectors if one.workloads and (one.acts or one.policy.name not in strict))


def _action(hook: CompiledHook, one: SelectorAtHook | None) -> bytes:
    """`struct policy_action`."""
    if one is None:
        return bytes(_ACTION.size)
    rate = one.limit.rate_limit if one.limit else None
    interval, scope = (rate.milliseconds * 1_000_000, _SCOPES[rate.scope]) if rate else (0, 0)
    file = 0
    for action in one.selector.all_actions:
        if action.kind in ("FollowFD", "UnfollowFD"):
            file = hook.arguments[id(one.hook)][file_position(one.hook, action)] or 0
    argument, value = (one.written.argument, one.written.value) if one.written else (0, 0)
    signal = one.signal_sent()
    return _ACTION.pack(one.denial, signal, interval, scope, file, _socket(hook, one), argument, value)


def _socket(hook: CompiledHook, one: SelectorAtHook) -> int:
    """The slot of the socket that is tracked or no longer tracked; 0 also when there is none."""
    if hook.at_return and one.hook.return_argument_action in TRACKING_ACTIONS:
        return hook.results[id(one.hook)] or 0
    for action in one.selector.all_actions:
        if action.kind in TRACKING_ACTIONS:
            return hook.arguments[id(one.hook)][socket_position(one.hook, action)] or 0
    return 0


def _way(hook: CompiledHook, way: HookWay) -> Way:
    slots = b"".join(
        placed(slot, way).encode(first, tests, unsent)
        for slot, (first, tests), unsent in zip(hook.slots, hook.spans, hook.unsent, strict=True)
    )
    overrides = way.denies and bool(hook.masks["override"])
    instead = new_functions(hook.overriding) if overrides else ()
    return way.message({"policy_slots": slots, "policy_overrides": overrides}, _method(hook, way), instead)


def _method(hook: CompiledHook, way: HookWay) -> str:
    """Return what this way enforces, for people."""
    if hook.options.reaction == "kill" and hook.reacting:
        return "kills from user space, after the fact,"
    if not hook.enforces:
        return "observes"
    if hook.masks["set"]:
        return "overwrites arguments"
    if not hook.denies:
        return "sends signals"
    return "denies" if way.denies else "only sends signals" if hook.masks["signal"] else "only observes"


def _hash(hook: CompiledHook) -> dict[str, Value]:
    """Return the argument whose file is hashed."""
    for _, one in hook.selectors:
        if any(action.file_hash for action in one.selector.all_actions):
            argument = hashed_argument(one.hook)
            assert argument is not None
            return {"policy_hash_index": argument.index, "policy_hash_program": argument.type == "linux_binprm"}
    return {}
