"""The tables of the engine, read as the kernel reads them, decide as the model does (tests.policies.model)."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.policies.hook import Applicable, PolicyHook
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.selectors import Requirement
from kubectl_gadget.policies.compiler.hooks import hook_spec
from kubectl_gadget.policies.compiler.policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.compiler.tables import automata, network_bits, networks_with_wider, with_shorter
from kubectl_gadget.policies.language import COMPAT_CALL
from kubectl_gadget.policies.model import (
    HOST_NAMESPACE,
    NAMESPACES,
    Action,
    Argument,
    Hook,
    HookFilter,
    Policy,
    PolicyOptions,
    Scope,
    Selector,
    Subject,
    SystemCall,
)
from kubectl_gadget.wire.policy_record import Type, Value
from tests.examples import examples
from tests.policies.compiler import random_policies as some
from tests.policies.compiler.reader import Reader
from tests.policies.oracle import ArgumentValue, Call, ConnectionArgument, Process, decide

_INT, _ULONG, _TEXT, _SOCK = Argument(0, "int"), Argument(1, "uint64"), Argument(2, "string"), Argument(3, "sock")
HOOK = Hook("kprobe", "function", arguments=(_INT, _ULONG, _TEXT, _SOCK))
FILTERS = st.one_of(
    some.number_filters(0, -(1 << 31), (1 << 31) - 1),
    some.number_filters(1, 0, (1 << 64) - 1),
    some.text_filters(2),
    some.socket_filters(3),
    some.expression_filters(0, 1),
)
CONNECTIONS = st.builds(
    ConnectionArgument,
    family=some.PORTS,
    protocol=some.PORTS,
    state=some.PORTS,
    source=some.ADDRESSES,
    destination=some.ADDRESSES,
    source_port=some.PORTS,
    destination_port=some.PORTS,
)
CALLS = st.tuples(
    st.one_of(st.none(), some.numbers(-(1 << 31), (1 << 31) - 1)),
    st.one_of(st.none(), some.numbers(0, (1 << 64) - 1)),
    st.one_of(st.none(), some.TEXTS),
    st.one_of(st.none(), CONNECTIONS),
)


def as_read(engine: CompiledPolicies, policy: Policy, call: Sequence[ArgumentValue]) -> list[Value | None]:
    """What the kernel would have read into the hook's slots."""
    (hook,) = engine.hooks
    values: list[Value | None] = [None] * len(hook.slots)
    for place, value in zip(hook.arguments[id(policy.hooks[0])], call, strict=True):
        assert place is not None
        slot = hook.slots[place]
        if isinstance(value, int):
            values[place] = Value(slot, (value,))
        elif isinstance(value, str):
            values[place] = Value(slot, text=value.encode())
        elif isinstance(value, ConnectionArgument):
            ports = (value.source_port or 0, value.destination_port or 0)
            numbers = (*ports, value.protocol or 0, value.family or 0, value.state or 0)
            values[place] = Value(slot, numbers, (value.source, value.destination))
    return values


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(150))
@given(some.policies(HOOK, FILTERS), st.lists(CALLS, min_size=1, max_size=8))
def test_tables_and_model_choose_the_same_selectors(
    policies: list[Policy], calls: list[tuple[ArgumentValue, ...]]
) -> None:
    engine = CompiledPolicies(policies, CompilerOptions())
    (hook,) = engine.hooks
    reader = Reader(hook)
    for values in calls:
        call = Call(Process(), dict(zip(HOOK.arguments, values, strict=True)))
        chosen = [hook.bits[bit] for bit in reader.chosen(as_read(engine, policies[0], values))]
        found = [(place.policy.name, place.number) for place in chosen if place is not None]
        decisions = decide(policies, lambda policy: policy.hooks, call)
        assert found == [(decision.policy, decision.selector) for decision in decisions]


def test_a_longer_prefix_holds_what_the_shorter_ones_hold() -> None:
    assert with_shorter({b"/etc/": 1, b"/": 2, b"/etc/ssh/": 4, b"/var": 8}) == {
        b"/": 2,
        b"/etc/": 3,
        b"/etc/ssh/": 7,
        b"/var": 10,
    }


def test_a_network_of_ipv6_holds_no_ipv4_address() -> None:
    everything, ten = network_bits(IPv6Network("::/0")), network_bits(IPv4Network("10.0.0.0/8"))
    found = networks_with_wider({everything: 1, ten: 2})
    assert (found[everything], found[ten], found[network_bits(IPv4Network("0.0.0.0/0"))]) == (1, 2, 0)


def test_more_than_a_word_of_selectors_and_policies_with_more_than_a_word_of_them() -> None:
    policies = [
        Policy(str(number), hooks=(Hook("kprobe", "f", arguments=(_INT,), selectors=_equals(number, 70)),))
        for number in range(5)
    ]
    engine = CompiledPolicies(policies, CompilerOptions())
    (hook,) = engine.hooks
    reader = Reader(hook)
    for value in (0, 1, 63, 64, 69, 70, 73, 74):
        chosen = [hook.bits[bit] for bit in reader.chosen([Value(hook.slots[0], (value,))])]
        found = [(int(place.policy.name), place.number) for place in chosen if place is not None]
        assert found == [(number, value - number) for number in range(5) if 0 <= value - number < 70]


def _equals(first: int, count: int) -> tuple[Selector, ...]:
    return tuple(
        Selector(filters=(HookFilter(Subject("argument", 0), "equal", (value,)),))
        for value in range(first, first + count)
    )


def test_programs_that_policies_follow_have_one_number_each_whoever_follows_them() -> None:
    def hook(*paths: str) -> Hook:
        return Hook("kprobe", "f", selectors=(Selector(filters=(follows(*paths),)),))

    def follows(*paths: str) -> HookFilter:
        return HookFilter(Subject("binary"), "equal", paths, follow=True)

    engine = CompiledPolicies(
        [Policy("p", hooks=(hook("/a", "/b"),)), Policy("q", hooks=(hook("/b", "/c"),))], CompilerOptions()
    )
    (compiled,) = engine.hooks
    reader = Reader(compiled)
    found = {program: reader.chosen([Value(compiled.slots[0], (program,))]) for program in range(4)}
    assert found == {0: [0], 1: [0, 2], 2: [2], 3: []}
    followed = engine.spec().processes.followed
    assert [followed[at + 5 : at + 7] for at in range(0, len(followed), 268)] == [b"/a", b"/b", b"/c"]


def test_process_details_that_no_policy_needs_are_not_kept() -> None:
    assert CompiledPolicies([Policy("p", hooks=(Hook("kprobe", "f"),))], CompilerOptions()).spec().processes is None


def test_more_programs_than_there_are_bits_for_cannot_be_followed() -> None:
    filter = HookFilter(Subject("binary"), "equal", tuple(f"/{i}" for i in range(1025)), follow=True)
    with pytest.raises(UsageError, match="at most 1024 programs"):
        CompiledPolicies(
            [Policy("p", hooks=(Hook("kprobe", "f", selectors=(Selector(filters=(filter,)),)),))], CompilerOptions()
        )


def test_a_hash_is_refused_where_no_security_module_has_the_file() -> None:
    selector = Selector(actions=(Action("Post", file_hash=True),))
    for hook in (Hook("kprobe", "f", arguments=(Argument(0, "file"),)), Hook("lsm", "f", arguments=(_INT,))):
        with pytest.raises(UsageError, match="imaHash is for lsmhooks with a file"):
            CompiledPolicies([Policy("p", hooks=(replace(hook, selectors=(selector,)),))], CompilerOptions())


DENYING = (Selector(actions=(Action("Override", error=-1),)),)


def methods(*chosen: Any) -> list[str]:
    """The ways that deny, where policies insist on these."""
    hook = Hook("kprobe", "security_file_open", selectors=DENYING)
    policies = [
        Policy(str(number), hooks=(hook,), options=PolicyOptions(override_method=method))
        for number, method in enumerate(chosen)
    ]
    (compiled,) = CompiledPolicies(policies, CompilerOptions(enforce=True)).hooks
    return [way.program for way in compiled.ways if way.denies]


def test_a_method_that_a_policy_insists_on_is_the_only_one() -> None:
    assert methods(None) == ["on_lsm", "on_fmod_ret"]
    assert methods("fmod-ret", None) == ["on_fmod_ret"]
    with pytest.raises(UsageError, match="cannot be overridden"):
        methods("override-return")
    with pytest.raises(UsageError, match="different values of override-method: fmod-ret and override-return"):
        methods("fmod-ret", "override-return")


def test_while_labels_are_unknown_selectors_that_deny_apply_and_those_that_allow_do_not() -> None:
    trusted = HookFilter(Subject("workload"), "equal", (Scope(pods=(Requirement("app", "In", ("trusted",)),)),))
    selectors = (Selector(filters=(trusted,)), Selector(filters=(trusted,), actions=(Action("Sigkill"),)), Selector())
    strict = Policy("strict", hooks=(Hook("kprobe", "f", selectors=selectors),))
    watching = Policy("watching", hooks=(Hook("kprobe", "f", selectors=selectors[:1]),))
    engine = CompiledPolicies([strict, watching], CompilerOptions(enforce=True, allow_weaker=True))
    (compiled,) = engine.hooks
    hook = PolicyHook(hook_spec(compiled), lambda object: None, NotImplemented, NotImplemented, [].append)
    everyone, labelled = (engine.scopes.index(scope) for scope in (Scope(), trusted.values[0]))
    assert engine.by_labels
    assert hook.bits(Applicable((everyone, labelled), ())) == 0b10111
    assert hook.bits(Applicable((everyone,), ())) == 0b00100
    assert hook.bits(Applicable((everyone,), (labelled,))) == 0b10110


def test_patterns_share_an_automaton_until_it_is_full() -> None:
    patterns = {b"/%d/*" % number + b"x" * 60: 1 << number for number in range(9)}
    made, placed = automata(patterns, 7)
    assert [automaton.used <= 256 for automaton in made] == [True] * len(made)
    assert [number for number, _, _ in placed] == [7, 7, 7, 7, 8, 8, 8, 8, 9]


@pytest.mark.parametrize(
    ("filter", "why"),
    [
        (HookFilter(Subject("argument", 2), "glob", ("x" * 256,)), "more than 255 bytes"),
        (HookFilter(Subject("argument", 0), "expression", (" + ".join(["arg0"] * 40) + " == 0",)), "too long"),
        (HookFilter(Subject("argument", 0), "expression", ("arg2 == 0",)), "arg2 is not a number"),
    ],
)
def test_what_has_no_room_in_the_kernel_is_refused(filter: HookFilter, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        CompiledPolicies(
            [Policy("p", hooks=(replace(HOOK, selectors=(Selector(filters=(filter,)),)),))], CompilerOptions()
        )


def test_a_capability_that_only_the_new_set_has_is_one_test() -> None:
    sets = (Argument(2, "kernel_cap_t"), Argument(4, "kernel_cap_t"))
    gained = HookFilter(Subject("argument", 0, other=1), "capabilities_gained", ())
    hook = Hook("kprobe", "security_capset", arguments=sets, selectors=(Selector(filters=(gained,)),))
    (compiled,) = CompiledPolicies([Policy("p", hooks=(hook,))], CompilerOptions()).hooks
    slot = next(slot for slot in compiled.slots if slot.type is Type.CAPABILITIES_GAINED)
    assert (slot.index, slot.size_index) == (2, 4)
    values = [Value(slot.form, (1 << 40 if slot.type is Type.CAPABILITIES_GAINED else 0,)) for slot in compiled.slots]
    assert Reader(compiled).chosen(values) == [0]
    assert Reader(compiled).chosen([Value(value.form, (0,)) for value in values]) == []


def test_where_types_are_is_left_to_the_node() -> None:
    argument = Argument(0, "auto", btf_type="nf_conn", btf_module="nf_conntrack", resolve=("status",))
    (hook,) = CompiledPolicies(
        [Policy("p", hooks=(Hook("kprobe", "f", arguments=(argument,)),))], CompilerOptions()
    ).hooks
    (entry,) = hook_spec(hook).resolve
    assert (entry.struct, entry.module, entry.path) == ("nf_conn", "nf_conntrack", ("status",))


def test_names_of_calls_are_each_architectures_own_numbers() -> None:
    names = (SystemCall("openat"), SystemCall("open"), SystemCall("dup", "i386"), 7)
    asked = HookFilter(Subject("argument"), "equal", names)
    hook = Hook("tracepoint", "raw_syscalls/sys_enter", arguments=(Argument(4, "syscall64"),))
    policy = Policy("p", hooks=(replace(hook, selectors=(Selector(filters=(asked,)),)),))
    (compiled,) = CompiledPolicies([policy], CompilerOptions()).hooks

    def matching(machine: str) -> set[int]:
        reader = Reader(compiled, machine)
        numbers = (*range(600), *(COMPAT_CALL | number for number in range(600)))
        return {number for number in numbers if reader.chosen([Value(compiled.slots[0].form, (number,))])}

    # There is no open of arm64, and no 32-bit program of x86 on it.
    assert matching("x86_64") == {257, 2, COMPAT_CALL | 41, 7}
    assert matching("aarch64") == {56, 7}


def test_the_nodes_own_namespace_is_one_of_several_values() -> None:
    asked = HookFilter(Subject("namespace", name="net"), "equal", (HOST_NAMESPACE, 77))
    hook = Hook(
        "kprobe", "f", selectors=(Selector(filters=(asked,)), Selector(filters=(replace(asked, negated=True),)))
    )
    (compiled,) = CompiledPolicies([Policy("p", hooks=(hook,))], CompilerOptions()).hooks
    (slot,) = compiled.slots
    net = NAMESPACES.index("net")

    def chosen(number: int, own: bool) -> list[int]:
        numbers = [0] * 11
        numbers[net], numbers[10] = number, own << net
        return Reader(compiled).chosen([Value(slot.form, tuple(numbers))])

    assert [chosen(77, False), chosen(78, False), chosen(78, True), chosen(77, True)] == [[0], [1], [0], [0]]
