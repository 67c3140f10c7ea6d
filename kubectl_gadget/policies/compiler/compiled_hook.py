"""One hook in the form that the kernel takes: the selectors of all its policies, the values to read and to compare.

Each selector of a hook is one bit, in the order of the policies. After the bits of each policy one bit stays free, so
that the kernel finds the first match of each policy without a loop over all of them (bpf/include/policy/decide.h). The
trap: a hook with `returns` is compiled to two of these: one at the call, which can still be denied, and one at the
return.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler import file_following, socket_tracking
from kubectl_gadget.policies.compiler.attach.hook_ways import choose_ways
from kubectl_gadget.policies.compiler.encoding.comparison_tables import Encoded, Look, Test, TestClass, add_filter
from kubectl_gadget.policies.compiler.encoding.comparisons import FilterTest, Followed, filter_test
from kubectl_gadget.policies.compiler.encoding.slots import MOST_SLOTS, Slot, task_slot
from kubectl_gadget.policies.compiler.hook_slots import slots_of
from kubectl_gadget.policies.compiler.node_types import to_resolve, usable_ways
from kubectl_gadget.policies.compiler.selectors_at_hook import (
    CompilerOptions,
    PolicyAtHook,
    SelectorAtHook,
    selectors_at,
)
from kubectl_gadget.policies.model import Action, Hook, HookFilter
from kubectl_gadget.wire.policy_events.policy_record import Form, Type

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
        """the first policy's hook; those of the other policies have the same target"""
        self.at_return = self.hook.returns and not entries[0].at_call
        self.tracks = socket_tracking.tracks(entries[0].policy)
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
        """How each slot's value is laid out in records."""
        return [slot.form for slot in self.slots]

    @property
    def mirrors(self) -> bool:
        """Whether the hook was added for system calls of 32-bit programs and is not named by a policy."""
        return bool(self.hook.mirrors)

    @property
    def enforces(self) -> bool:
        """Whether the kernel does more here than observe."""
        return any(one.enforced and (one.acts or one.written) for _, one in self.selectors)

    @property
    def denies(self) -> bool:
        """Whether a selector denies calls, rather than only sending a signal. Always False at a return."""
        return not self.at_return and any(one.enforced and one.denial for _, one in self.selectors)

    @property
    def takes_stacks(self) -> bool:
        """Whether any event includes a stack."""
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
        if self.at_return and one.hook.return_argument_action in socket_tracking.KINDS:
            yield socket_tracking.MASKS[one.hook.return_argument_action], True

    def _posts(self, one: SelectorAtHook) -> bool:
        return id(one.hook) not in self._silent and one.posts


def _is_followed(slot: Slot | None) -> FilterTest:
    assert slot is not None
    return FilterTest(slot, Look(TestClass.IN_SET, file_following.FILE_ID), (0,), negated=True)
