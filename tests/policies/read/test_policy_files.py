"""Policies from YAML: what is accepted, what it becomes, and the errors."""

import errno
import io
import os
import re
import textwrap
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.model import Generated, HookFilter, Policy, Range, RateLimit, Subject, SystemCall
from kubectl_gadget.policies.read.policy_files import parse_policies, read_policies
from tests.examples import examples
from tests.policies.shapes import SHAPES
from tests.policies.strategies import specs

HEAD = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: p}\n"


def policy_of(spec: str) -> Policy:
    return parse_policies([("p.yaml", f"{HEAD}spec:\n{textwrap.indent(spec, '  ')}")], "default")[0]


def error_of(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_policies([("p.yaml", text)], "default")
    return str(caught.value)


@pytest.mark.parametrize("name", SHAPES)
def test_popular_policies_are_taken(name: str) -> None:
    assert policy_of(SHAPES[name]).hooks


def test_a_filter_has_typed_values() -> None:
    (hook,) = policy_of(SHAPES["EGRESS"]).hooks
    addresses, family = hook.selectors[0].filters
    assert addresses.values == (
        *(IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12"), IPv6Network("fd00::/8")),
        IPv4Network("127.0.0.0/8"),
    )
    assert (addresses.test, addresses.negated) == ("destination_address", True)
    assert family.values == (2, 10)


def test_ports_are_ranges_and_privileged_ones_need_no_values() -> None:
    ports, privileged, _ = policy_of(SHAPES["TCP"]).hooks[0].selectors[0].filters
    assert ports.values == (Range(443, 443), Range(8000, 8080))
    assert (privileged.test, privileged.negated, privileged.values) == ("source_port", True, (Range(0, 1023),))


def test_there_may_be_more_than_eight_paths() -> None:
    assert len(policy_of(SHAPES["FILE_WATCH"]).hooks[0].selectors[0].filters[0].values) == 9


def test_call_is_a_system_call_by_default() -> None:
    hook = policy_of("kprobes: [{call: sys_write}]").hooks[0]
    assert (hook.target, hook.syscall) == ("sys_write", True)
    assert "add `syscall: false`" in error_of(f"{HEAD}spec: {{kprobes: [{{call: fd_install}}]}}")


def test_a_list_makes_one_hook_for_each_call() -> None:
    hooks = policy_of(SHAPES["DENY_CALLS"]).hooks
    assert [(hook.target, hook.abi) for hook in hooks[:3]] == [("sys_dup", ""), ("sys_dup2", ""), ("sys_dup", "i386")]
    assert hooks[3].generated == Generated("ksys", "generated_ftrace", "^ksys_.*")


def test_lists_of_system_calls_are_values_by_name() -> None:
    policy = policy_of(SHAPES["DENY_CALLS"])
    tracepoint = next(hook for hook in policy.hooks if hook.kind == "tracepoint")
    expected = (SystemCall("dup"), SystemCall("dup2"), SystemCall("dup", "i386"))
    assert tracepoint.selectors[0].filters[0].values == expected
    assert policy.enforcer_calls == expected


def test_a_tracepoints_filter_may_count_the_listed_arguments() -> None:
    tracepoint = next(hook for hook in policy_of(SHAPES["DENY_CALLS"]).hooks if hook.kind == "tracepoint")
    assert tracepoint.arguments[0].index == 4
    assert tracepoint.selectors[0].filters[0].subject == Subject("argument", 0)


def test_macros_add_their_filters() -> None:
    filters = policy_of(SHAPES["DENY_CALLS"]).hooks[0].selectors[0].filters
    assert [one.subject.kind for one in filters] == ["binary", "namespace"]
    assert filters[0].follow
    assert filters[1].values == ("host_ns", 4026531836)


def test_changes_with_not_in_ask_for_another_change() -> None:
    filters = policy_of(SHAPES["PRIVILEGES"]).hooks[0].selectors[0].filters
    changed = [one for one in filters if one.subject.kind == "capability_change"]
    setuid = 1 << 7
    assert [(one.values[0], one.negated) for one in changed] == [(setuid, True), ((1 << 41) - 1 - setuid, False)]


def test_arguments_are_counted_as_the_function_counts_them() -> None:
    hook = policy_of(SHAPES["PRIVILEGES"]).hooks[0]
    gained = hook.selectors[0].filters[0]
    assert gained.subject == Subject("argument", 2, other=1)
    assert policy_of(SHAPES["FOLLOW"]).hooks[3].arguments[1].size_index == 2


def test_rate_limits_are_milliseconds() -> None:
    action = policy_of(SHAPES["PRIVILEGES"]).hooks[0].selectors[0].actions[0]
    assert action.rate_limit == RateLimit(60_000, "global")


@pytest.mark.parametrize(
    ("type", "written", "value"),
    [
        ("int", "0xffffffff", -1),
        ("int", "0644", 0o644),
        ("int", "-EPERM", -1),
        ("int8", "-128", -128),
        ("uint64", "18446744073709551615", (1 << 64) - 1),
        ("capability", "CAP_SYS_ADMIN", 21),
        ("string", "0644", "0644"),
        ("string", "no", "no"),
        ("kernel_cap_t", "CAP_CHOWN,CAP_KILL", 0b100001),
    ],
)
def test_values_are_what_was_written(type: str, written: str, value: object) -> None:
    spec = (
        f"lsmhooks: [{{hook: h, args: [{{index: 0, type: {type}}}], selectors: "
        f"[{{matchArgs: [{{index: 0, operator: Equal, values: [{written!r}]}}]}}]}}]"
    )
    assert policy_of(spec).hooks[0].selectors[0].filters[0].values == (value,)


def test_what_does_nothing_is_noted() -> None:
    policy = policy_of("kprobes: [{call: sys_dup, selectors: [{matchActions: [{action: Sigkill, argError: -1}]}]}]")
    assert [f"{note.place} {note.text}" for note in policy.notes] == [
        "p.yaml:5:85: spec.kprobes[0].selectors[0].matchActions[0].argError does nothing: Sigkill does not take it"
    ]


def test_files_without_any_policy_are_named(tmp_path: Path) -> None:
    for name, text in (("a.yaml", ""), ("b.yaml", "---\n# nothing\n")):
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf"no policy was found in {tmp_path}"):
        read_policies([str(tmp_path)], "default")


def test_several_documents_and_lists_of_objects_are_read(tmp_path: Path) -> None:
    text = f"{HEAD}spec: {{loader: true}}\n"
    whole = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(text.replace("name: p", "name: q"))]}
    (tmp_path / "a.yaml").write_text(f"{text}---\n---\n{text.replace('name: p', 'name: r')}")
    (tmp_path / "b.json").write_text(yaml.dump(whole, default_flow_style=True))
    (tmp_path / "README").write_text("no policy")
    assert [policy.name for policy in read_policies([str(tmp_path)], "default")] == ["p", "r", "q"]


def test_a_misspelt_policy_beside_others_is_not_left_out() -> None:
    text = f"{HEAD.replace('TracingPolicy', 'TracingPolcy')}spec: {{loader: true}}\n---\n{HEAD}spec: {{loader: true}}\n"
    assert "kind 'TracingPolcy' is not known; did you mean TracingPolicy?" in error_of(text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (f"{HEAD}spec: {{kprobes: [{{cal: sys_dup}}]}}", "spec.kprobes"),
        (f"{HEAD}spec: {{kprobes: [{{call: sys_dup, args: [{{index: 0, type: strng}}]}}]}}", "spec.kprobes.args.type"),
        (f"kind: List\nitems: [{{{', '.join(HEAD.split(chr(10))[:3])}, spec: {{loader: x}}}}]", "spec.loader"),
    ],
)
def test_the_way_out_names_the_field_that_is_wrong(text: str, field: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_policies([("p.yaml", text)], "default")
    assert caught.value.remedy == f"kubectl gadget policy explain {field}"


def test_a_folder_that_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        read_policies([str(tmp_path)], "default")


def test_other_objects_beside_a_policy_are_left_out_and_noted() -> None:
    text = f"kind: Pod\napiVersion: v1\n---\n{HEAD}spec: {{loader: true}}\n"
    (policy,) = parse_policies([("p.yaml", text)], "default")
    assert [note.text for note in policy.notes] == ["is a Pod, which is left out"]


def test_a_namespaced_policy_applies_to_its_namespace() -> None:
    text = f"{HEAD}spec: {{loader: true}}\n".replace("TracingPolicy", "TracingPolicyNamespaced")
    assert parse_policies([("p", text)], "shop")[0].namespace == "shop"
    text = text.replace("name: p", "name: p, namespace: bank")
    assert parse_policies([("p", text)], "shop")[0].namespace == "bank"


WRONG = [
    ("kprobs: []", "p.yaml:5:3: spec.kprobs is not known; did you mean kprobes or uprobes?"),
    ("kprobes: [{syscall: true}]", "p.yaml:5:13: spec.kprobes[0] lacks call"),
    ("kprobes: {}", "spec.kprobes must be a list, not a mapping"),
    ("kprobes: [{call: sys_dup, syscall: 'no'}]", "syscall must be true or false, not 'no': remove the quotes"),
    ("kprobes: [{call: sys_dup, call: sys_dup2}]", "spec.kprobes[0].call is set twice"),
    ("kprobes: [{call: no}]", "spec.kprobes[0].call must be a text, not no: write it in quotes"),
    ("kprobes: []", "p.yaml:5:3: spec has no hooks: kprobes, fentries, tracepoints, uprobes, usdts, lsmhooks or"),
    ("kprobes: [{call: sys_wrte}]", "sys_wrte, and a function of this name takes `syscall: false`; did you mean sys_w"),
    ("kprobes: [{call: sys_wrte, syscall: true}]", "there is no system call sys_wrte; did you mean sys_write"),
    ("kprobes: [{call: sys_write, syscall: false}]", "sys_write is a system call: `syscall` must be true"),
    ("kprobes: [{call: 'list:a'}]", "spec.kprobes[0].call there is no list 'a' in spec.lists"),
    ("kprobes: [{call: sys_dup, return: true}]", "spec.kprobes[0].return needs `returnArg`"),
    ("kprobes: [{call: sys_dup, args: [{type: fil}]}]", "args[0].type 'fil' is not known; did you mean file"),
    ("kprobes: [{call: sys_dup, args: [{index: 6}]}]", "args[0].index 6 cannot be read: of a kprobe only the first 6"),
    ("kprobes: [{call: sys_dup, args: [{type: char_buf}]}]", "char_buf needs sizeArgIndex or returnCopy"),
    ("kprobes: [{call: sys_dup, args: [{resolve: a..b}]}]", "'a..b' is not a way through a structure"),
    ("kprobes: [{call: sys_dup, data: [{type: int}]}]", "data[0].source is missing: current_task or pt_regs"),
    ("kprobes: [{call: sys_dup, selectors: [{matchArg: []}]}]", "selectors[0].matchArg is not known"),
    ("kprobes: [{call: sys_dup, selectors: [{macros: [a]}]}]", "there is no macro 'a' in spec.selectorsMacros"),
    ("lsmhooks: [{hook: security_file_open}]", "'security_file_open' is written without security_ here: file_open"),
    ("uprobes: [{path: bash, symbols: [a]}]", "spec.uprobes[0].path 'bash' is not an absolute path"),
    ("uprobes: [{path: /b, symbols: [a], offsets: [1]}]", "exactly one of symbols, offsets and addrs must be given"),
    ("uprobes: [{path: /b, symbols: [a], binaryDigests: ['sha256:1']}]", "'sha256:1' is not a digest"),
    ("loader: true\nhostSelector: {matchLabels: {a: b}}", "spec.hostSelector must be {}"),
    ("loader: true\ncontainerSelector: {matchLabels: {image: b}}", "has the key 'image'; expected name or repo"),
    ("loader: true\npodSelector: {matchExpressions: [{key: a, operator: In}]}", "In takes values"),
    ("loader: true\noptions: [{name: policy-mode, value: obey}]", "'obey' is not known; it is enforce or monitor"),
    ("loader: true\nlists: [{name: a, type: generated_ftrace}]", "spec.lists[0].pattern is missing"),
    ("loader: true\nlists: [{name: a, type: generated_ftrace, pattern: '('}]", "'(' is not a valid regular expression"),
    ("loader: true\nlists: [{name: a, type: generated_ftrace, pattern: '(?=a)'}]", "'(?=a)' is not a valid regular"),
    ("loader: true\nlists: [{name: a, type: syscalls, values: [dup]}]", "'dup' is not a name of a system call; is it"),
    ("loader: true\nenforcers: [{calls: [sys_dupp]}]", "there is no system call sys_dupp; did you mean sys_dup"),
    ("loader: true\nselectorsMacros: {a: {matchActions: []}}", "is not for the macro 'a', which has filters only"),
]  # fmt: skip
FILTERS = [
    ("int", "{operator: Prefix, values: [a]}", "operator Prefix does not fit the type int; Equal"),
    ("cred", "{operator: Equal, values: [a]}", "operator Equal does not fit the type cred, which cannot be compared"),
    ("int", "{operator: Equals, values: [1]}", "operator 'Equals' is not known here; did you mean Equal"),
    ("int", "{operator: Equal}", "matchArgs[0].values is missing"),
    ("int", "{operator: Equal, values: [one]}", "values[0] 'one' is not a number"),
    ("int8", "{operator: Equal, values: [256]}", "values[0] 256 is out of range: -128 to 255"),
    ("uint8", "{operator: LT, values: [-1]}", "values[0] -1 is out of range: 0 to 255"),
    ("int", "{operator: InRange, values: ['5:1']}", "values[0] '5:1' begins after its end"),
    ("int", "{index: 1, operator: Equal, values: [1]}", "index 1 is not among the hook's `args`, which have index 0"),
    ("int", "{args: [1], operator: Equal, values: [1]}", "args[0] 1 is out of range: 0 to 0"),
    ("syscall64", "{operator: InMap, values: [sys_opn]}", "'sys_opn' is not a system call; did you mean open"),
    ("syscall64", "{operator: InMap, values: [i386/sys_getuid23]}", "not a system call; did you mean getuid32"),
    ("uint64", "{operator: InMap, values: [i386/sys_open]}", "needs the type syscall64, which has the call's ABI"),
    ("syscall64", "{operator: GT, values: [sys_open]}", "is a name, which only Equal and InMap can compare"),
    ("sock", "{operator: DAddr, values: [10.0.0.0/33]}", "'10.0.0.0/33' is neither an address nor a network"),
    ("sock", "{operator: DPort, values: [70000]}", "70000 is out of range: 0 to 65535"),
    ("sock", "{operator: Family, values: [AF_INET4]}", "'AF_INET4' is not a number or the name of one"),
    ("sock", "{operator: SPortPriv, values: [1]}", "values are not for SPortPriv"),
    ("sockaddr", "{operator: DAddr, values: [10.0.0.1]}", "DAddr does not fit the type sockaddr; SAddr"),
    ("file", "{operator: FileType, values: [regg]}", "'regg' is not a type of files; did you mean reg"),
    ("file", "{operator: SameFile, values: [a]}", "'a' is not an absolute path"),
    ("int", "{operator: CelExpr, values: ['arg0 + 1']}", "'arg0 + 1' is a number, not a condition"),
    ("int", "{operator: CelExpr, values: ['arg1 == 1']}", "there is no arg1: the hook has 1 `args`"),
    ("int", "{operator: CelExpr, values: ['arg0 == ']}", "the expression ends too early"),
    ("int", "{operator: CelExpr, values: ['arg0 * 2 == 1']}", "this is not supported"),
    ("int", "{operator: CelExpr, values: ['arg0 = 1']}", "try: 'arg0 == 1'"),
    ("int", "{operator: CelExpr, values: ['Int32(arg0) == 1']}", "int32()?"),
    ("cap_effective", "{args: [0], operator: CapabilitiesGained}", "must name one argument; only CapabilitiesGained"),
    ("kernel_cap_t", "{operator: Equal, values: [CAP_KIL]}", "'CAP_KIL' is not a capability; did you mean CAP_KILL"),
]  # fmt: skip
ACTIONS = [
    ("{action: Kill}", "'Kill' is not known; did you mean Sigkill"),
    ("{action: Signal}", "Signal needs argSig"),
    ("{action: Signal, argSig: SIGTRM}", "'SIGTRM' is not a number or the name of one; did you mean SIGTERM"),
    ("{action: Override, argError: EPRM}", "'EPRM' is not a number or the name of one; did you mean EPERM"),
    ("{action: Override, argRegs: ['rax=0']}", "argRegs is only for uprobes"),
    (
        "{action: Override, argNewSymbol: f, sopath: /f.so}",
        "matchActions[0].sopath is not supported: It would load a library",
    ),
    ("{action: Set}", "Set is for usdt, not for a lsm"),
    ("{action: Post, rateLimit: 1x}", "'1x' is not a time"),
    ("{action: Post, rateLimitScope: global}", "needs a rateLimit"),
    ("{action: GetUrl}", "GetUrl needs argUrl"),
    ("{action: GetUrl, argUrl: 'ftp://a'}", "'ftp://a' is not an http or https URL"),
    ("{action: NotifyEnforcer, argSig: 9}", "NotifyEnforcer needs spec.enforcers"),
    ("{action: NotifyEnforcer}", "NotifyEnforcer needs argError or argSig"),
]


@pytest.mark.parametrize(("spec", "message"), WRONG)
def test_what_is_wrong_is_named(spec: str, message: str) -> None:
    assert message in error_of(f"{HEAD}spec:\n{textwrap.indent(spec, '  ')}")


@pytest.mark.parametrize(("type", "filter", "message"), FILTERS)
def test_a_filter_that_does_not_fit_is_named(type: str, filter: str, message: str) -> None:
    spec = f"lsmhooks: [{{hook: h, args: [{{type: {type}}}], selectors: [{{matchArgs: [{filter}]}}]}}]"
    message_found = error_of(f"{HEAD}spec: {{{spec}}}")
    assert message in message_found
    assert re.search(r"p\.yaml:4:\d+: spec\.lsmhooks\[0\]\.selectors\[0\]\.matchArgs\[0\]", message_found)


@pytest.mark.parametrize(("action", "message"), ACTIONS)
def test_an_action_that_does_not_fit_is_named(action: str, message: str) -> None:
    spec = f"lsmhooks: [{{hook: h, selectors: [{{matchActions: [{action}]}}]}}]"
    assert message in error_of(f"{HEAD}spec: {{{spec}}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "p.yaml:2:1: is not valid YAML"),
        ("kind: x\n\ta: b\n", "p.yaml:2:1: is not valid YAML: YAML cannot be indented with tabs"),
        ("kind: x\x85\ta: b: c\n", "p.yaml"),
        ("kind: Pod\n", "p.yaml:1:1: is a Pod; policies are of kind"),
        (HEAD.replace("icy\n", "ciy\n"), "p.yaml:2:7: kind 'TracingPolciy' is not known; did you mean TracingPolicy"),
        ("kind: NetworkPolicy\n", "enforce --network-policy takes this one"),
        (f"{HEAD}spec: {{<<: {{loader: true}}}}\n", "spec.<< merges another mapping, which is not supported"),
        ("- 1\n", "p.yaml:1:1: must be a mapping, not a list"),
        (HEAD.replace("v1alpha1", "v2"), "has apiVersion cilium.io/v2; expected cilium.io/v1alpha1"),
        (HEAD, "p.yaml:1:1: lacks spec"),
        (f"{HEAD}spec: {{loader: true}}\n---\n{HEAD}spec: {{loader: true}}\n", "the policy 'p' is also in p.yaml:1"),
        ("[" * 9000, "p.yaml"),
    ],
)
def test_a_file_that_is_not_a_policy_is_named(text: str, message: str) -> None:
    assert message in error_of(text)


def test_what_is_quoted_is_not_of_any_length() -> None:
    assert len(error_of("x" * 100_000)) < 1000


@pytest.mark.parametrize("name", ["", "https://example.com/policy.yaml"])
def test_a_path_that_is_not_a_file_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"an empty file name|is a URL, and URLs are not fetched"):
        read_policies([name], "default")


def test_bytes_that_are_not_text_are_refused_on_standard_input() -> None:
    with pytest.raises(UsageError, match="standard input is not valid YAML: it is not UTF-8"):
        read_policies(["-"], "default", io.TextIOWrapper(io.BytesIO(b"\xff")))


def test_all_that_is_wrong_is_reported_at_once() -> None:
    text = f"{HEAD}spec:\n  kprobes:\n  - call: fd_install\n  - call: sys_wrte\n    syscall: true\n"
    assert [line.strip().split(" ")[0] for line in error_of(text).split("\n")] == ["p.yaml:6:11:", "p.yaml:7:11:"]


@pytest.mark.slow
@settings(max_examples=examples(60), deadline=None)
@given(specs())
def test_a_random_policy_is_read_the_same_from_yaml_and_json(spec: dict[str, object]) -> None:
    import json

    whole = {"apiVersion": "cilium.io/v1alpha1", "kind": "TracingPolicy", "metadata": {"name": "p"}, "spec": spec}
    block = parse_policies([("a", yaml.safe_dump(whole))], "d")
    flow = parse_policies([("a", json.dumps(whole))], "d")
    assert block == flow
    hooks = block[0].hooks
    assert [len(hook.selectors) for hook in hooks] == [len(one["selectors"]) for one in spec["kprobes"]]  # type: ignore[attr-defined]
    assert all(isinstance(one, HookFilter) for hook in hooks for selector in hook.selectors for one in selector.filters)
    assert replace(block[0], notes=()) == flow[0]


def _outcome(text: str) -> str:
    """The error, or the policies' places."""
    try:
        return str([policy.place for policy in parse_policies([("p.yaml", text)], "default")] or "p.yaml: nothing")
    except UsageError as error:
        return str(error)


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["list:a", "sys_dup", "In"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "kprobes",
                        "call",
                        "args",
                        "index",
                        "type",
                        "selectors",
                        "matchArgs",
                        "operator",
                        "values",
                        "lists",
                    ),
                    *(
                        "matchActions",
                        "action",
                        "podSelector",
                        "matchLabels",
                        "options",
                        "name",
                        "value",
                        "tracepoints",
                    ),
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=examples(150), deadline=None)
@given(_JUNK)
def test_random_yaml_is_refused_in_words(junk: object) -> None:
    whole = {"apiVersion": "cilium.io/v1alpha1", "kind": "TracingPolicy", "metadata": {"name": "p"}, "spec": junk}
    assert _outcome(yaml.safe_dump(whole, allow_unicode=True)).startswith("p.yaml")


_SPOILT: list[object] = [
    *(None, True, -1, 2**70, "", "x", "list:copies", "In", "CAP_KILL", "1:2", "0x-1", [], {}, [1], {"a": 1}, "\0", "["),
    *("9" * 5000, "arg0 == 1", 1.5, "٣"),
]


def test_a_rate_limit_of_thousands_of_digits_is_out_of_range() -> None:
    action = {"action": "Post", "rateLimit": "9" * 5000}
    spec = {"kprobes": [{"call": "sys_read", "selectors": [{"matchActions": [action]}]}]}
    with pytest.raises(UsageError, match="rateLimit '999"):
        policy_of(yaml.safe_dump(spec))


def _places(node: object) -> list[tuple[object, object]]:
    """Every mapping or list with each of its keys."""
    keys: list[object] = (
        list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    )
    return [found for key in keys for found in ((node, key), *_places(node[key]))]  # type: ignore[index]


@settings(max_examples=examples(150), deadline=None)
@given(st.sampled_from(sorted(SHAPES)), st.sampled_from(_SPOILT), st.data())
def test_a_spoilt_policy_is_refused_in_words(shape: str, junk: object, data: st.DataObject) -> None:
    spec = yaml.safe_load(SHAPES[shape])
    node, key = data.draw(st.sampled_from(_places(spec)))
    node[key] = junk  # type: ignore[index]
    whole = {**yaml.safe_load(HEAD), "spec": spec}
    assert "p.yaml" in _outcome(yaml.safe_dump(whole, allow_unicode=True))


@settings(max_examples=examples(150), deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@`#,? \n\t0x"), max_size=60))
def test_random_text_is_refused_in_words(text: str) -> None:
    assert _outcome(text).startswith("p.yaml")
