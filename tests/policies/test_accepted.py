"""What policies written for the field's other engine say is taken: ranges, elements, registers, notices; and limits of
its API that do not hold here are told."""

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.check import check_policy
from kubectl_gadget.policies.compiler.policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.model import Policy, Range
from kubectl_gadget.policies.read.hooks import without_notices
from kubectl_gadget.policies.read.policy_files import parse_policies

HEAD = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: NAME}\nspec:\n"


def policy(spec: str, name: str = "p") -> Policy:
    (found,) = parse_policies([("p.yaml", HEAD.replace("NAME", name) + spec)], "default")
    return found


def ranges(type: str, value: str) -> list[tuple[int, int]]:
    found = policy(
        f"  kprobes: [{{call: sys_prctl, args: [{{index: 0, type: {type}}}],"
        f" selectors: [{{matchArgs: [{{index: 0, operator: InRange, values: ['{value}']}}]}}]}}]"
    )
    values = found.hooks[0].selectors[0].filters[0].values
    return [(value.first, value.last) for value in values if isinstance(value, Range)]


@pytest.mark.parametrize(
    ("type", "value", "expected"),
    [
        ("int", "1879048189:4294967295", [(1879048189, 2147483647), (-2147483648, -1)]),
        ("int", "4294967294:4294967295", [(-2, -1)]),
        ("int", "-5:5", [(-5, 5)]),
        ("int8", "100:255", [(100, 127), (-128, -1)]),
        ("uint32", "5:4294967295", [(5, 4294967295)]),
        ("int64", "1:18446744073709551615", [(1, (1 << 63) - 1), (-(1 << 63), -1)]),
    ],
)
def test_a_range_of_a_signed_type_may_end_as_an_unsigned_one(
    type: str, value: str, expected: list[tuple[int, int]]
) -> None:
    assert ranges(type, value) == expected


@pytest.mark.parametrize("value", ["-5:4294967295", "0:4294967296", "5:4"])
def test_a_malformed_range_is_refused(value: str) -> None:
    with pytest.raises(UsageError):
        ranges("int", value)


def resolved(data: str) -> tuple[str | int, ...]:
    return policy(f"  kprobes: [{{call: do_pipe2, syscall: false, {data}}}]").hooks[0].arguments[0].resolve


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("'[0]'", (0,)),
        ("'[1].fd'", (1, "fd")),
        ("user.uid.val", ("user", "uid", "val")),
        ("'a[1][2].b'", ("a", 1, 2, "b")),
    ],
)
def test_a_way_may_begin_with_an_element(written: str, path: tuple[str | int, ...]) -> None:
    assert resolved(f"args: [{{index: 0, type: int, resolve: {written}}}]") == path


@pytest.mark.parametrize("written", ["'a..b'", "'.a'", "'a.[1]'", "'[x]'", "'a['"])
def test_a_malformed_way_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="not a way through a structure"):
        resolved(f"args: [{{index: 0, type: int, resolve: {written}}}]")


@pytest.mark.parametrize(
    ("register", "path"),
    [
        ("rdi", ("di",)),
        ("di", ("di",)),
        ("r10", ("r10",)),
        ("rsp", ("sp",)),
        ("rip", ("ip",)),
        ("orig_rax", ("orig_ax",)),
        ("x3", ("regs", 3)),
        ("pc", ("pc",)),
        ("sp", ("sp",)),
        ("lr", ("regs", 30)),
        ("cs", ("cs",)),
    ],
)
def test_registers_have_their_names_in_assembler_and_in_the_kernel(register: str, path: tuple[str | int, ...]) -> None:
    hook = policy(
        f"  kprobes: [{{call: sys_prctl, data: [{{type: uint64, source: pt_regs, resolve: {register}}}]}}]"
    ).hooks[0]
    assert hook.data[0].resolve == path


NOTICE = """  enforcers: [{calls: [%s]}]
  kprobes:
  - call: %s
    syscall: %s
    args: [{index: 0, type: int}]
    selectors:
    - matchArgs: [{index: 0, operator: Equal, values: ["5"]}]
      matchActions: [{action: NotifyEnforcer, argError: -2, argSig: 9}]
"""


@pytest.mark.parametrize(("call", "syscall"), [("sys_prctl", "true"), ("security_file_open", "false")])
def test_a_notice_from_the_call_itself_is_an_override_with_all_filters(call: str, syscall: str) -> None:
    (hook,) = without_notices(policy(NOTICE % (call, call, syscall))).hooks
    (selector,) = hook.selectors
    assert [(action.kind, action.error, action.signal) for action in selector.actions] == [
        ("Override", -2, 0),
        ("Sigkill", 0, 9),
    ]
    assert len(selector.filters) == 1
    compiled, *mirrors = CompiledPolicies([policy(NOTICE % (call, call, syscall))], CompilerOptions(enforce=True)).hooks
    assert compiled.denies
    assert [hook.denies for hook in mirrors if hook.mirrors] == ([True] if syscall == "true" else [])


def test_a_notice_that_would_deny_a_later_call_is_refused() -> None:
    with pytest.raises(UsageError, match="no enforcer covers sys_prctl, so a notification would deny a later call"):
        without_notices(policy(NOTICE % ("sys_dup", "sys_prctl", "true")))


def test_a_notice_may_ask_for_the_calls_first_argument() -> None:
    spec = """  enforcers: [{calls: [sys_prctl]}]
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{index: 4, type: syscall64}, {index: 5, type: int64}]
    selectors:
    - matchArgs:
      - {index: 0, operator: InMap, values: [sys_prctl]}
      - {index: 1, operator: Equal, values: ["0xffff"]}
      matchActions: [{action: NotifyEnforcer, argError: -1, argSig: 9}]
"""
    (hook,) = without_notices(policy(spec)).hooks
    assert (hook.target, [(one.index, one.type) for one in hook.arguments]) == ("sys_prctl", [(0, "int64")])
    (filter,) = hook.selectors[0].filters
    assert (filter.subject.kind, filter.subject.position, filter.values) == ("argument", 0, (0xFFFF,))


def notes(found: Policy) -> list[str]:
    return [note.text for note in found.notes]


def test_limits_that_other_tools_have_are_reported_and_not_refused() -> None:
    tags = ", ".join(f"t{number}" for number in range(17))
    binaries = "{operator: In, values: [/a]}, {operator: In, values: [/b]}"
    spec = f"  kprobes: [{{call: sys_prctl, tags: [{tags}], selectors: [{{matchBinaries: [{binaries}]}}]}}]"
    said = notes(policy(spec, "Not_A_Name"))
    assert any("'Not_A_Name' is not a valid Kubernetes name" in text for text in said)
    assert any(text.startswith("has 17 tags; ") and text.endswith(" 16") for text in said)
    assert any(text.startswith("has 2 entries; ") for text in said)
    one = spec.replace(tags, "a").replace(binaries, binaries[: binaries.index("}") + 1])
    assert notes(policy(one)) == []


OVERRIDE = """  kprobes:
  - call: %s
    syscall: false
    return: true
    returnArg: {type: int}
    args: [{index: 0, type: file}]
    selectors: [{matchActions: [{action: Override, argError: -1}]}]
"""


def test_override_with_return_is_denied_at_the_call_and_reported_at_the_return() -> None:
    at_call, at_return = CompiledPolicies(
        [policy(OVERRIDE % "security_file_open")], CompilerOptions(enforce=True)
    ).hooks
    assert (at_call.denies, at_return.denies) == (True, False)
    assert [way.kind for way in at_return.ways] == ["fexit"]


def test_policies_that_cannot_be_enforced_are_reported_by_the_check() -> None:
    report = check_policy(policy(OVERRIDE % "security_file_open"))
    assert report.unsupported == ()
    refused = check_policy(
        policy(
            "  kprobes: [{call: security_file_open, syscall: false, selectors: [{matchActions: [{action: Override}]}]}]"
        )
    )
    assert any("argError of 0" in text for text in refused.unsupported)


def test_fields_of_tracepoints_need_no_type() -> None:
    spec = "  tracepoints: [{subsystem: syscalls, event: sys_enter_lseek, args: [{index: 7}, {index: 5, type: auto}]}]"
    (hook,) = CompiledPolicies([policy(spec)], CompilerOptions()).spec().hooks
    assert [way.record for way in hook.ways] == [True]
    assert [(one.index, one.auto, one.path) for one in hook.resolve] == [(5, True, ()), (7, True, ())]


def test_the_documentations_own_example_is_taken() -> None:
    spec = """  kprobes:
  - call: security_inode_copy_up
    syscall: false
    args: [{index: 0, type: int64}, {index: 1, type: int, resolve: user.uid.val}]
    selectors: [{matchActions: [{action: Post}]}]
"""
    assert CompiledPolicies([policy(spec)], CompilerOptions()).spec().hooks


@pytest.mark.parametrize(("returns", "said"), [("", True), ("return: true, returnArg: {type: long}, ", False)])
def test_a_filter_on_a_buffer_that_may_not_be_in_memory_yet_is_warned_of(returns: str, said: bool) -> None:
    spec = (
        f"  kprobes: [{{call: sys_write, {returns}args: [{{index: 1, type: char_buf, sizeArgIndex: 3}}],"
        " selectors: [{matchArgs: [{index: 1, operator: Prefix, values: [x]}]}]}]"
    )
    texts = [warning.text for warning in check_policy(policy(spec)).warnings]
    assert any("has not touched its memory yet" in text for text in texts) == said
