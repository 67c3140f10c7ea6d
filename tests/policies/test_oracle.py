"""What policies mean: filters one by one, the order of selectors, several policies."""

from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.policies.model import Hook, Policy
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.examples import examples
from tests.policies.oracle import (
    ArgumentValue,
    Call,
    ConnectionArgument,
    FileArgument,
    Process,
    ScopedWorkload,
    Verdict,
    decide,
    decide_hook,
    filter_matches,
    matching,
    number_in_type,
    verdict,
)
from tests.policies.strategies import PATHS, specs

FULL = (1 << 41) - 1


def policy_of(spec: dict[str, Any], name: str = "p") -> Policy:
    whole = {"apiVersion": "cilium.io/v1alpha1", "kind": "TracingPolicy", "metadata": {"name": name}, "spec": spec}
    return parse_policies([("p", yaml.safe_dump(whole))], "default")[0]


def hook_of(selectors: list[dict[str, Any]], *types: str, **more: Any) -> Hook:
    args = [{"index": index, "type": type} for index, type in enumerate(types)]
    kprobe = {"call": "security_file_open", "syscall": False, "args": args, "selectors": selectors, **more}
    return policy_of({"kprobes": [kprobe]}).hooks[0]


def call_of(hook: Hook, *values: ArgumentValue, **process: Any) -> Call:
    return Call(Process(**process), dict(zip(hook.arguments, values, strict=True)))


@pytest.mark.parametrize(
    ("type", "operator", "values", "value", "matches"),
    [
        ("int", "Equal", ["1", "2", "3", "4", "5"], 5, True),
        ("int", "NotEqual", ["1", "2"], 2, False),
        ("int", "NotEqual", ["1", "2"], 3, True),
        ("int", "NotEqual", ["1"], None, False),
        ("int", "GT", ["3"], 3, False),
        ("int", "LT", ["3"], -1, True),
        ("int", "Mask", ["1", "0x200"], 0x300, True),
        ("int", "Mask", ["1"], 2, False),
        ("int", "InRange", ["-2:3"], -2, True),
        ("int", "NotInRange", ["1:5"], 5, False),
        ("int", "InMap", ["1:5", "9"], 9, True),
        ("syscall64", "InMap", ["sys_openat"], 257, True),
        ("syscall64", "InMap", ["sys_openat"], 257 | 1 << 31, False),
        ("string", "SubStringIgnCase", ["TOOL"], "/opt/tools", True),
        ("string", "SubString", ["TOOL"], "/opt/tools", False),
        ("file", "Equal", ["/etc/shadow"], FileArgument("/etc/shadow"), True),
        ("file", "Prefix", ["/etc/"], FileArgument("/etc"), False),
        ("file", "NotPostfix", [".key"], FileArgument("/a.key"), False),
        ("file", "Glob", ["/home/*/.ssh/id_*"], FileArgument("/home/ann/.ssh/id_rsa"), True),
        ("file", "Glob", ["/home/*/id_*"], FileArgument("/home/ann/.ssh/id_rsa"), False),
        ("file", "Glob", ["/home/**/id_[!a-q]??"], FileArgument("/home/ann/.ssh/id_rsa"), True),
        ("file", "FileType", ["reg", "lnk"], FileArgument("/a", 0o120000), True),
        ("file", "NotFileType", ["sock"], FileArgument("/a", 0o140000), False),
        ("sock", "DAddr", ["10.0.0.0/8"], ConnectionArgument(destination=ip_address("::ffff:10.1.2.3")), True),
        ("sock", "NotDAddr", ["10.0.0.0/8"], ConnectionArgument(destination=ip_address("::ffff:10.1.2.3")), False),
        ("sock", "NotDAddr", ["10.0.0.0/8"], ConnectionArgument(), False),
        ("sock", "SAddr", ["0.0.0.0/0"], ConnectionArgument(source=ip_address("2001:db8::1")), False),
        ("sock", "DPort", ["80:90"], ConnectionArgument(destination_port=90), True),
        ("sock", "SPortPriv", [], ConnectionArgument(source_port=1023), True),
        ("sock", "NotSportPriv", [], ConnectionArgument(source_port=1024), True),
        ("sock", "State", ["TCP_LISTEN"], ConnectionArgument(state=10), True),
        ("sock", "Protocol", ["IPPROTO_UDP"], ConnectionArgument(protocol=6), False),
        ("sockaddr_un", "Prefix", ["/run/"], ConnectionArgument(path="/run/docker.sock"), True),
        ("kernel_cap_t", "Equal", ["CAP_CHOWN"], 1, True),
        ("int", "CelExpr", ["arg0 + 1 == int32(0) || arg0 > 7"], -1, True),
        ("int", "CelExpr", ["and(arg0, 6) == 4"], 13, True),
        ("int", "CelExpr", ["!(xor(arg0, arg0) != 0) && not(arg0) == -1 - arg0"], 13, True),
        ("int", "CelExpr", ["uint32(arg0) == 4294967295"], -1, True),
        ("int", "CelExpr", ["arg0 == 1"], None, False),
    ],
)
def test_an_operator(type: str, operator: str, values: list[str], value: ArgumentValue, matches: bool) -> None:
    filter = {"index": 0, "operator": operator} | ({"values": values} if values else {})
    hook = hook_of([{"matchArgs": [filter]}], type)
    assert bool(matching(hook, call_of(hook, value))) is matches


def test_a_file_is_the_same_through_another_path() -> None:
    hook = hook_of([{"matchArgs": [{"operator": "SameFile", "values": ["/etc/shadow"]}]}], "file")
    values: dict[Any, ArgumentValue] = {hook.arguments[0]: FileArgument("/tmp/link", identity=(8, 77))}
    assert matching(hook, Call(Process(), values, files={"/etc/shadow": (8, 77)})) == [0]
    assert matching(hook, Call(Process(), values, files={"/etc/shadow": (8, 78)})) == []


def test_a_capability_is_gained_when_the_old_set_lacks_it() -> None:
    hook = hook_of([{"matchArgs": [{"args": [1, 0], "operator": "CapabilitiesGained"}]}], *["cap_effective"] * 2)
    assert matching(hook, call_of(hook, 0b01, 0b11)) == [0]
    assert matching(hook, call_of(hook, 0b11, 0b01)) == []


def test_following_forks_asks_all_ancestors() -> None:
    pids = {"operator": "NotIn", "values": [0, 1], "isNamespacePID": True, "followForks": True}
    hook = hook_of([{"matchPIDs": [pids]}])
    child_of_init = Process(pid=900, namespace_pid=7, ancestors=(Process(pid=800, namespace_pid=1),))
    entered = Process(pid=901, namespace_pid=8, ancestors=(Process(pid=10),))
    assert [bool(matching(hook, Call(process))) for process in (child_of_init, entered)] == [False, True]


def test_binaries_are_those_of_the_process_the_parent_and_of_those_that_started_it() -> None:
    shell = Process(binary="/bin/sh")
    process = Process(binary="/bin/cat", ancestors=(shell,), started_by=frozenset({"/bin/sh", "/sbin/sshd"}))
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"matchBinaries": [{"operator": "In", "values": ["/bin/cat"]}]}, True),
        ({"matchBinaries": [{"operator": "In", "values": ["/sbin/sshd"]}]}, False),
        ({"matchBinaries": [{"operator": "In", "values": ["/sbin/sshd"], "followChildren": True}]}, True),
        ({"matchBinaries": [{"operator": "NotIn", "values": ["/sbin/sshd"], "followChildren": True}]}, False),
        ({"matchParentBinaries": [{"operator": "Postfix", "values": ["/sh"]}]}, True),
    ]
    for selector, expected in cases:
        assert bool(matching(hook_of([selector]), Call(process))) is expected, selector


def test_namespaces_and_their_changes() -> None:
    process = Process(
        namespaces={"mnt": 5, "net": 1, "user": 9},
        namespaces_at_exec={"mnt": 4, "net": 1, "user": 9},
        host_namespaces={"mnt": 2, "net": 1, "user": 2},
    )
    host_network = {"namespace": "Net", "operator": "In", "values": ["host_ns"]}
    own_mounts = {"namespace": "Mnt", "operator": "NotIn", "values": ["host_ns", "7"]}
    cases = [
        ({"matchNamespaces": [host_network, own_mounts]}, True),
        ({"matchNamespaceChanges": [{"operator": "In", "values": ["Mnt", "User"]}]}, True),
        ({"matchNamespaceChanges": [{"operator": "In", "values": ["Net"]}]}, False),
        ({"matchNamespaceChanges": [{"operator": "NotIn", "values": ["Mnt"]}]}, False),
        ({"matchNamespaceChanges": [{"operator": "NotIn", "values": ["Net"]}]}, True),
    ]
    for selector, expected in cases:
        assert bool(matching(hook_of([selector]), Call(process))) is expected, selector


def test_capabilities_and_their_changes() -> None:
    process = Process(
        capabilities={"effective": 1 << 21 | 1 << 7},
        capabilities_at_exec={"effective": 1 << 21},
        namespaces={"user": 1},
        host_namespaces={"user": 1},
    )
    cases = [
        ("matchCapabilities", "In", ["CAP_SYS_ADMIN"], False, True),
        ("matchCapabilities", "NotIn", ["CAP_CHOWN", "CAP_SYS_ADMIN"], False, False),
        ("matchCapabilities", "In", ["CAP_SYS_ADMIN"], True, False),
        ("matchCapabilityChanges", "In", ["CAP_SETUID"], False, True),
        ("matchCapabilityChanges", "In", ["CAP_SYS_ADMIN"], False, False),
        ("matchCapabilityChanges", "NotIn", ["CAP_SYS_ADMIN"], False, True),
        ("matchCapabilityChanges", "NotIn", ["CAP_SETUID"], False, False),
    ]
    for key, operator, values, in_namespace, expected in cases:
        selector = {key: [{"operator": operator, "values": values, "isNamespaceCapability": in_namespace}]}
        assert bool(matching(hook_of([selector]), Call(process))) is expected, selector


def test_the_first_selector_that_matches_decides() -> None:
    hook = hook_of(
        [
            {"matchArgs": [{"operator": "Equal", "values": ["1"]}], "matchActions": [{"action": "NoPost"}]},
            {"matchActions": [{"action": "Sigkill"}]},
        ],
        "int",
    )
    silent, killed = (decide_hook("p", hook, call_of(hook, value)) for value in (1, 2))
    assert silent is not None
    assert (silent.selector, silent.posts, verdict([silent])) == (0, False, Verdict(None, ()))
    assert killed is not None
    assert (killed.selector, killed.posts, verdict([killed])) == (1, True, Verdict(None, (9,)))
    assert verdict([killed], monitor=lambda policy: True) == Verdict(None, ())


def test_at_the_return_the_first_selector_counts_whose_return_filters_match_too() -> None:
    returned = {"return": True, "returnArg": {"type": "int"}}
    selectors = [
        {"matchReturnArgs": [{"operator": "LT", "values": ["0"]}], "matchReturnActions": [{"action": "NoPost"}]},
        {"matchReturnArgs": [{"operator": "GT", "values": ["-1"]}]},
    ]
    hook = hook_of(selectors, **returned)
    decisions = [decide_hook("p", hook, Call(Process(), returned=value), at_return=True) for value in (-1, 0, None)]
    assert [None if one is None else (one.selector, one.posts) for one in decisions] == [(0, False), (1, True), None]


def test_only_policies_for_the_process_decide_and_the_first_error_counts() -> None:
    deny = {"hook": "file_open", "selectors": [{"matchActions": [{"action": "Override", "argError": -13}]}]}
    other = {"hook": "file_open", "selectors": [{"matchActions": [{"action": "Override", "argError": -1}]}]}
    policies = [
        policy_of({"lsmhooks": [other], "podSelector": {"matchLabels": {"app": "db"}}}, "others"),
        policy_of({"lsmhooks": [deny]}, "deny"),
        policy_of({"lsmhooks": [other]}, "late"),
    ]
    process = Process(workload=ScopedWorkload("shop", "web-1", {"app": "web"}, "main"))
    decisions = decide(policies, lambda policy: policy.hooks, Call(process))
    assert [decision.policy for decision in decisions] == ["deny", "late"]
    assert verdict(decisions) == Verdict(-13, ())


def test_a_register_becomes_a_number_of_its_type() -> None:
    hook = hook_of([], "int", "uint8", "int64")
    assert [number_in_type(argument, 0xFFFFFFFFFFFFFFFF) for argument in hook.arguments] == [-1, 255, -1]


_NUMBERS = st.integers(0, 6)
_ADDRESSES = st.sampled_from(["10.0.0.1", "192.168.0.9", "2001:db8::1"]).map(ip_address)


def _value(type: str) -> st.SearchStrategy[Any]:
    if type == "sock":
        known = {"source": _ADDRESSES, "destination": _ADDRESSES, "source_port": st.sampled_from([22, 85])}
        return st.builds(ConnectionArgument, family=st.sampled_from([2, 10]), **known)
    if type == "string":
        return st.sampled_from(PATHS)
    return st.sampled_from(PATHS).map(FileArgument) if type in ("file", "path") else _NUMBERS


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(specs(), st.data())
def test_a_filter_and_its_opposite_never_both_match(spec: dict[str, Any], data: st.DataObject) -> None:
    from dataclasses import replace

    for hook in policy_of(spec).hooks:
        values = {argument: data.draw(_value(argument.type) | st.none()) for argument in hook.arguments}
        call = Call(Process(pid=1, namespaces={"pid": 1}, capabilities={"effective": FULL}), values)
        found = matching(hook, call)
        decision = decide_hook("p", hook, call)
        assert (decision.selector if decision else None) == (found[0] if found else None)
        for position, selector in enumerate(hook.selectors):
            answers = [filter_matches(one, hook, call) for one in selector.filters]
            opposites = [filter_matches(replace(one, negated=not one.negated), hook, call) for one in selector.filters]
            assert not any(a and b for a, b in zip(answers, opposites, strict=True))
            assert (position in found) is all(answers)


def test_addresses_without_a_family_of_their_own_are_compared_as_they_are() -> None:
    hook = hook_of([{"matchArgs": [{"operator": "DAddr", "values": ["::/0"]}]}], "sock")
    assert matching(hook, call_of(hook, ConnectionArgument(destination=IPv4Address("10.0.0.1")))) == []
