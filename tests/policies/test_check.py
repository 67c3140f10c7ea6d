"""What `policy check` says of a policy, and of nodes."""

from typing import Any

import pytest
import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies import check
from kubectl_gadget.policies.check import check_policy, gaps, have_new, hook_name, judge, question, unseen_variants
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.policies.read.policy_files import builtin_files, parse_policies, read_builtin_policies
from tests.messages import hello, hooks
from tests.policies.shapes import SHAPES

HEAD = {"apiVersion": "cilium.io/v1alpha1", "kind": "TracingPolicy", "metadata": {"name": "p"}}
ALL = {"fentry": True, "kprobe": True, "lsm": True, "uprobe": True}


def policy_of(spec: str) -> Policy:
    return parse_policies([("p", yaml.safe_dump({**HEAD, "spec": yaml.safe_load(spec)}))], "default")[0]


def warnings_of(spec: str) -> list[str]:
    return [warning.text for warning in check_policy(policy_of(spec)).warnings]


@pytest.mark.parametrize(
    ("hook", "safe"),
    [
        ("kprobes: [{call: sys_openat, args: [{index: 1, type: string}]}]", "file_open"),
        ("kprobes: [{call: sys_connect, args: [{index: 1, type: sockaddr}]}]", "socket_connect"),
        ("kprobes: [{call: sys_write, args: [{index: 0, type: fd}]}]", "file_permission"),
        ("kprobes: [{call: do_sys_openat2, syscall: false, args: [{index: 1, type: string}]}]", "file_open"),
        ("kprobes: [{call: __sys_connect, syscall: false, args: [{index: 1, type: sockaddr}]}]", "socket_connect"),
        (
            "tracepoints: [{subsystem: syscalls, event: sys_enter_execve, args: [{index: 5, type: string}]}]",
            "bprm_check_security, or security_bprm_check",
        ),
    ],
)
def test_arguments_that_a_thread_can_change_are_named_with_the_safe_hook(hook: str, safe: str) -> None:
    warning, *_ = warnings_of(hook)
    assert f"safe: lsmhooks {safe}" in warning


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("lsmhooks: [{hook: file_opne}]", ["no Linux up to 6.18 has the LSM hook file_opne; did you mean file_open?"]),
        ("lsmhooks: [{hook: file_open}, {hook: sb_add_mnt_opt}, {hook: uring_allowed}]", []),
        (
            "tracepoints: [{subsystem: syscalls, event: sys_exit_opnat}]",
            ["no Linux up to 6.18 has the system call opnat; did you mean openat or openat2?"],
        ),
        ("tracepoints: [{subsystem: syscalls, event: sys_enter_newfstat}, {subsystem: sched, event: any}]", []),
    ],
)
def test_hooks_that_no_known_kernel_has_are_reported_where_no_node_is_asked(hook: str, said: list[str]) -> None:
    assert warnings_of(hook) == said
    assert check_policy(policy_of(hook), asked=True).warnings == ()


def test_a_node_that_lacks_a_hook_says_which_one_looks_like_it() -> None:
    (hook,) = policy_of("lsmhooks: [{hook: file_opne}]").hooks
    refused = {"lsm/file_opne": "the kernel has no bpf_lsm_file_opne"}
    answer = {"ways": {"lsm file_opne": {"way": "", "refused": refused}}}
    assert (
        judge(hook, hello({"can": ALL}), hooks(answer)).why
        == "lsm: the kernel has no bpf_lsm_file_opne; did you mean file_open?"
    )


@pytest.mark.parametrize(
    "hook",
    [
        "kprobes: [{call: sys_openat, args: [{index: 2, type: int}]}]",
        "kprobes: [{call: security_file_open, syscall: false, args: [{index: 0, type: file}]}]",
        "kprobes: [{call: __sys_connect_file, syscall: false, args: [{index: 1, type: sockaddr}]}]",
        "kprobes: [{call: sys_read, args: [{index: 1, type: char_buf, returnCopy: true}], return: true, "
        "returnArg: {type: int}, selectors: [{matchArgs: [{index: 1, operator: Equal, values: [a]}]}]}]",
    ],
)
def test_arguments_that_cannot_change_are_not_reported_as_races(hook: str) -> None:
    assert warnings_of(hook) == []


def test_a_hash_where_the_file_cannot_be_read_yet_is_warned_of() -> None:
    selectors = "selectors: [{matchActions: [{action: Post, imaHash: %s}]}]"
    hook = f"lsmhooks: [{{hook: %s, args: [{{index: 0, type: file}}], {selectors}}}]"
    assert any("hook file_post_open" in text for text in warnings_of(hook % ("file_open", "true")))
    assert not any("imaHash" in text for text in warnings_of(hook % ("file_open", "false")))
    assert not any("imaHash" in text for text in warnings_of(hook % ("file_post_open", "true")))


def test_a_hot_hook_without_a_filter_is_warned_of() -> None:
    hook = "kprobes: [{call: vfs_read, syscall: false%s}]"
    assert warnings_of(hook % "") == [
        "kprobe/vfs_read runs 10,000s a second and more on a busy node, and nothing filters it"
    ]
    assert warnings_of(hook % ", selectors: [{matchPIDs: [{operator: In, values: [1]}]}]") == []


def test_a_signal_alone_does_not_prevent_the_operation() -> None:
    lone = "lsmhooks: [{hook: path_mkdir, selectors: [{matchActions: [{action: Signal, argSig: SIGTERM}%s]}]}]"
    assert warnings_of(lone % "")[0].endswith("before the process ends: add Override, argError -1")
    assert warnings_of(lone % ", {action: Override, argError: -1}") == []


def test_a_kill_also_denies_the_call_where_the_hook_can() -> None:
    killing = "selectors: [{matchActions: [{action: Sigkill}]}]"
    assert warnings_of(f"lsmhooks: [{{hook: path_mkdir, {killing}}}]") == []
    (warning,) = warnings_of(f"kprobes: [{{call: tcp_connect, syscall: false, {killing}}}]")
    assert warning.endswith("few kernels can override this hook; safe: lsmhooks")


def test_a_denial_without_an_error_is_refused() -> None:
    spec = "lsmhooks: [{hook: file_open, selectors: [{matchActions: [{action: Override%s}]}]}]"
    for nothing in ("", ", argError: 0"):
        (text,) = check_policy(policy_of(spec % nothing)).unsupported
        assert "Override with an argError of 0 is not supported" in text
    assert not check_policy(policy_of(spec % ", argError: -1")).unsupported


def test_notices_are_checked_where_they_are_carried_out() -> None:
    spec = """
enforcers: [{calls: [sys_dup, sys_dup3]}]
tracepoints:
- {subsystem: raw_syscalls, event: sys_enter, args: [{index: 4, type: syscall64}],
   selectors: [{matchActions: [{action: NotifyEnforcer, argError: -1}]}]}
"""
    assert [hook_name(hook.hook) for hook in check_policy(policy_of(spec)).hooks] == [
        "kprobe/sys_dup",
        "kprobe/sys_dup3",
    ]


def test_what_the_engine_cannot_do_is_named_for_each_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(policies: list[Policy], options: object) -> None:
        for hook in policies[0].hooks:
            if hook.kind == "usdt":
                raise UsageError(f"{hook.place}: usdt hooks are not supported yet")

    monkeypatch.setattr(check, "CompiledPolicies", engine)
    spec = "usdts: [{path: /a, provider: b, name: c}, {path: /a, provider: b, name: d}]\nlsmhooks: [{hook: file_open}]"
    assert [text.split(": ")[1] for text in check_policy(policy_of(spec)).unsupported] == [
        "spec.usdts[0]",
        "spec.usdts[1]",
    ]


def test_a_policy_that_can_be_run_has_nothing_unsupported() -> None:
    spec = "lsmhooks: [{hook: file_open, args: [{index: 0, type: file}]}]"
    assert check_policy(policy_of(spec)).unsupported == ()


def test_selectors_after_one_that_takes_all_are_named() -> None:
    selectors = "[{matchActions: [{action: NoPost}]}, {matchPIDs: [{operator: In, values: [1]}]}]"
    (warning,) = warnings_of(f"lsmhooks: [{{hook: file_open, selectors: {selectors}}}]")
    assert warning.startswith("is never reached")


def test_a_report_counts_tables_and_names_what_filters() -> None:
    file, mapped, cut = check_policy(policy_of(SHAPES["FILE_WATCH"])).hooks
    assert (file.tables, file.filtered_by, file.often) == (3, "argument", "all the time")
    assert (mapped.tables, cut.tables, cut.filtered_by) == (2, 0, "")


def test_nodes_are_asked_for_each_hook_once() -> None:
    asked = question([policy_of(SHAPES["DENY_CALLS"]), policy_of(SHAPES["LSM"])])
    called = ["i386/sys_dup", "sys_dup", "sys_dup2", "sys_lseek"]
    assert list(asked.functions) == sorted(called)
    assert asked.tracepoints == ("raw_syscalls/sys_enter", "sched/sched_process_exec")
    assert asked.patterns == ("^ksys_.*",)


FUNCTION = "kprobes: [{call: security_file_opne, syscall: false}]"
MISSING = {
    "functions": {"security_file_opne": {"exists": False}},
    "near": {"security_file_opne": ["security_file_open"]},
}
NO_FUNCTION = {"way": None, "refused": {"fentry/x": "the kernel has no function", "lsm/x": "not permitted"}}


@pytest.mark.parametrize(
    ("spec", "answer", "tried", "works", "why"),
    [
        (FUNCTION, {}, {"way": "fentry/x"}, True, ""),
        (
            FUNCTION,
            MISSING,
            NO_FUNCTION,
            False,
            "opne; did you mean security_file_open?; lsm:",
        ),
        (
            FUNCTION.replace("false}", "false, ignore: {callNotFound: true}}"),
            MISSING,
            NO_FUNCTION,
            True,
            "callNotFound",
        ),
        ("tracepoints: [{subsystem: a, event: b}]", {}, {"way": None, "refused": {"tracepoint/x": "no"}}, False, "no"),
    ],
)
def test_a_hook_on_a_node(spec: str, answer: dict[str, Any], tried: dict[str, Any], works: bool, why: str) -> None:
    policy = policy_of(spec)
    (name,) = question([policy]).ways
    found = judge(policy.hooks[0], hello({"can": ALL}), hooks({**answer, "ways": {name: tried}}))
    assert found.works is works
    assert why in found.why


def test_probes_in_programs_are_not_tried() -> None:
    policy = policy_of("uprobes: [{path: /b, symbols: [a]}]")
    assert not question([policy]).ways
    for able, works in ((True, True), (False, False), (None, None)):
        assert judge(policy.hooks[0], hello({"can": {**ALL, "uprobe": able}}), hooks({})).works is works


def test_it_is_unknown_what_a_node_does_with_a_hook_that_is_not_supported() -> None:
    deny = "selectors: [{matchActions: [{action: Override, argError: -1}]}]"
    policy = policy_of(
        f"lists: [{{name: k, type: generated_syscalls}}]\nkprobes: [{{call: 'list:k', syscall: true, {deny}}}]"
    )
    assert not question([policy]).ways
    assert judge(policy.hooks[0], hello({"can": ALL}), hooks({})).works is not True


@pytest.mark.parametrize(
    ("kernel", "found", "works", "why"),
    [
        ("6.12.1", {"count": 7}, None, "only a run shows"),
        ("5.15.0-1-amd64", {"count": 7}, False, "needs Linux 5.18"),
        ("6.12.1", {"count": 0}, False, "no function matches '^k'"),
        ("6.12.1", None, False, "cannot be listed there"),
    ],
)
def test_a_list_of_functions_on_a_node(kernel: str, found: object, works: bool | None, why: str) -> None:
    (hook,) = policy_of("lists: [{name: k, type: generated_ftrace, pattern: ^k}]\nkprobes: [{call: 'list:k'}]").hooks
    judgement = judge(hook, hello({"can": ALL, "kernel": kernel}), hooks({"generated": {"^k": found}}))
    assert judgement.works is works
    assert why in judgement.why


def test_builtin_policies_are_right_and_describe_what_they_show() -> None:
    found = read_builtin_policies()
    assert [each.name for each in found] == [
        *("container-escape", "credential-access", "crypto-miner", "dropped-program", "file-integrity"),
        *("kubectl-exec", "package-manager", "privilege-gain", "shell-in-container", "unexpected-egress"),
    ]
    for each in found:
        assert each.policy.name == each.name
        assert each.summary
        assert not check_policy(each.policy).warnings
        assert all(hook.message and hook.tags for hook in each.policy.hooks)
        assert all(hook_name(hook) for hook in each.policy.hooks)


def test_every_builtin_policy_can_be_run() -> None:
    found = read_builtin_policies()
    assert found
    assert {builtin.name: check_policy(builtin.policy).unsupported for builtin in found} == dict.fromkeys(
        (builtin.name for builtin in found), ()
    )


def test_a_builtin_policy_is_named_by_its_file() -> None:
    (file,) = builtin_files(["kubectl-exec"])
    assert file.endswith("manifests/policies/kubectl-exec.yaml")


def test_the_reasons_of_a_node_are_grouped() -> None:
    policy = policy_of("lsmhooks: [{hook: file_open}]")
    (name,) = question([policy]).ways
    refused = {
        "lsm/file_open": "not permitted",
        "fentry/security_file_open": "not permitted",
        "kprobe/x": "no such file",
    }
    found = judge(policy.hooks[0], hello({"can": ALL}), hooks({"ways": {name: {"way": None, "refused": refused}}}))
    assert (found.works, found.way) == (False, "refused")
    assert found.why == "lsm, fentry: not permitted; kprobe: no such file"
    taken = {"way": "fentry/security_file_open", "refused": {"lsm/file_open": "not permitted"}}
    assert judge(policy.hooks[0], hello({"can": ALL}), hooks({"ways": {name: taken}})).way == "fentry"


def test_second_hooks_are_tried_as_an_installation_would_load_them() -> None:
    policy = policy_of("kprobes: [{call: sys_setuid, syscall: true}]")
    own, first, second = question([policy]).ways
    assert [way.target for way in question([policy]).ways[second]] == [
        *["__ia32_compat_sys_setuid16"] * 2,
        *["__ia32_sys_setuid16"] * 2,
    ]
    seen: dict[str, Any] = {"way": "fentry/x"}
    refused = {"way": None, "refused": {"fentry/y": "not permitted\nmore", "kprobe/y": "no such file"}}

    def unseen(**tried: Any) -> list[tuple[str, str]]:
        names = {"own": own, "first": first, "second": second}
        return list(unseen_variants(policy, hooks({"ways": {names[name]: one for name, one in tried.items()}})))

    assert unseen(own=seen, first=seen, second=seen) == []
    assert unseen(own=seen, first=seen, second=refused) == [
        ("__ia32_sys_setuid16", "fentry/y: not permitted; kprobe/y: no such file")
    ]
    assert len(unseen(own=seen, first=refused, second=refused)) == 2
    # The kernel has no such calls; one program sees all variants; an agent of another version says nothing.
    assert unseen(own=seen, first=refused | {"needless": True}, second=refused | {"needless": True}) == []
    assert unseen(own=seen, first={"way": "tp_btf/sys_enter (setuid)"}, second=refused) == []
    assert unseen(own=seen) == []


def test_a_second_hook_at_the_call_sees_no_returns() -> None:
    call = "call: sys_setuid, syscall: true"
    policy = policy_of(f"kprobes: [{{{call}}}, {{{call}, return: true, returnArg: {{type: int}}}}]")
    names = list(question([policy]).ways)
    refused = {"way": None, "refused": {"fexit/y": "not permitted"}}
    tried = {name: refused if "returns" in name else {"way": "tp_btf/sys_enter (setuid)"} for name in names}
    unseen = list(unseen_variants(policy, hooks({"ways": tried})))
    assert [name for name, _ in unseen] == ["__ia32_sys_setuid", "__ia32_sys_setuid16"]


def test_for_a_hook_that_denies_only_ways_that_deny_are_tried() -> None:
    deny = "{hook: file_open, selectors: [{matchActions: [{action: Override, argError: -1}]}]}"
    (ways,) = question([policy_of(f"lsmhooks: [{deny}]")]).ways.values()
    assert [way.kind for way in ways] == ["lsm", "fmod_ret"]


@pytest.mark.parametrize(
    ("there", "has_new"), [([True], True), ([False, False], False), ([True, False], None), ([None], None), ([], None)]
)
def test_nodes_report_whether_they_have_a_hook_that_a_gap_takes(there: list[bool | None], has_new: bool | None) -> None:
    policy = policy_of(
        "lsmhooks: [{hook: path_truncate, selectors: [{matchActions: [{action: Override, argError: -1}]}]}]"
    )
    assert "security_file_truncate" in question([policy]).functions
    found = [{} if exists is None else {"security_file_truncate": {"exists": exists}} for exists in there]
    answers = [hooks({"functions": functions}) for functions in found]
    assert have_new(answers) is has_new


# Gaps: what a policy that denies leaves open.


DENY = [{"matchActions": [{"action": "Override", "argError": -1}]}]


def gaps_of(*hooks: str, selectors: object = DENY, mode: str = "enforce", has_new: bool | None = None) -> list[str]:
    spec = {
        "options": [{"name": "policy-mode", "value": mode}],
        "lsmhooks": [{"hook": hook, "args": [{"index": 0, "type": "nop"}], "selectors": selectors} for hook in hooks],
    }
    (policy,) = parse_policies([("p", yaml.safe_dump({**HEAD, "spec": spec}))], "default")
    return [note.text for note in gaps(policy, has_new)]


def test_a_guard_of_writes_names_the_hooks_that_it_lacks_and_what_no_hook_holds_up() -> None:
    assert gaps_of("file_permission") == [
        "file_permission does not stop access through memory that a file is mapped to (add mmap_file and "
        "file_mprotect), truncation (add path_truncate and from Linux 6.2 on file_truncate), stores to an earlier "
        "mapping (start its pods after the policy)"
    ]


def test_with_all_hooks_only_mappings_from_before_are_left() -> None:
    texts = gaps_of("file_permission", "mmap_file", "file_mprotect", "file_truncate", "path_truncate")
    assert texts == [
        f"{hook} does not stop stores to an earlier mapping (start its pods after the policy)"
        for hook in ("file_permission", "mmap_file")
    ]


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("file_open", "add file_permission"),
        ("path_truncate", "ftruncate() and O_TRUNC (add from Linux 6.2 on file_truncate)"),
        ("file_truncate", "truncate() (add path_truncate)"),
        ("path_unlink", "renaming (add path_rename)"),
        ("socket_connect", "MSG_FASTOPEN (add socket_sendmsg)"),
        ("bprm_check_security", "the dynamic loader loads, not the kernel (add mmap_file)"),
    ],
)
def test_each_hook_that_is_not_the_only_way_says_so(hook: str, words: str) -> None:
    (text,) = gaps_of(hook)
    assert words in text


@pytest.mark.parametrize(
    ("has_new", "words"),
    [(True, "truncation (add path_truncate and file_truncate)"), (False, "truncation (add path_truncate)")],
)
def test_a_hook_that_the_kernel_lacks_is_not_advised(has_new: bool, words: str) -> None:
    (text,) = gaps_of("file_permission", has_new=has_new)
    assert words in text
    assert bool(gaps_of("path_truncate", has_new=has_new)) == has_new


def test_a_function_that_asks_a_security_hook_is_that_hook() -> None:
    spec = {"kprobes": [{"call": "security_bprm_check", "syscall": False, "selectors": DENY}]}
    (policy,) = parse_policies([("p", yaml.safe_dump({**HEAD, "spec": spec}))], "default")
    (note,) = gaps(policy)
    assert note.text.startswith("bprm_check_security does not stop")


@pytest.mark.parametrize(
    ("operator", "is_gap"),
    [("Equal", True), ("SameFile", False), ("Prefix", True), ("Glob", True), ("NotPrefix", False)],
)
def test_a_file_that_is_denied_by_its_path_has_other_names(operator: str, is_gap: bool) -> None:
    selectors = [{"matchArgs": [{"index": 0, "operator": operator, "values": ["/etc/shadow"]}], **DENY[0]}]
    hook = {"hook": "path_chmod", "args": [{"index": 0, "type": "path"}], "selectors": selectors}
    (policy,) = parse_policies([("p", yaml.safe_dump({**HEAD, "spec": {"lsmhooks": [hook]}}))], "default")
    assert ["SameFile" in note.text for note in gaps(policy)] == [True] * is_gap


def test_what_only_watches_has_no_gaps() -> None:
    assert gaps_of("file_permission", selectors=[{"matchActions": [{"action": "Post"}]}]) == []
    assert gaps_of("file_permission", mode="monitor") == []
