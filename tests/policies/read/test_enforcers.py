"""NotifyEnforcer as hooks on the calls themselves, and what is refused of such actions, with the reason."""

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.hooks import hook_spec
from kubectl_gadget.policies.compiler.policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.model import Policy
from kubectl_gadget.policies.read.hooks import without_notices
from kubectl_gadget.policies.read.policy_files import parse_policies

KILLER = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: killer}
spec:
  lists:
  - {name: dups, type: syscalls, values: [sys_dup, sys_dup2]}
  - {name: asked, type: syscalls, values: [sys_dup, sys_dup2, sys_dup3]}
  enforcers: [{calls: ["list:dups"]}]
  tracepoints:
  - subsystem: raw_syscalls
    event: EVENT
    args: [{index: 4, type: syscall64}]
    selectors:
    - matchArgs: [{index: 4, operator: InMap, values: ["list:asked"]}]
      matchBinaries: [{operator: In, values: [/usr/bin/bash]}]
      matchActions: [{action: ACTION}]
"""
NOTIFY = "NotifyEnforcer, argError: -1, argSig: 9"


def policy(action: str = NOTIFY, event: str = "sys_enter", **changes: str) -> Policy:
    text = KILLER.replace("ACTION", action).replace("EVENT", event)
    for old, new in changes.items():
        text = text.replace(old, new)
    (found,) = parse_policies([("killer.yaml", text)], "default")
    return found


def test_each_call_gets_what_the_notice_would_have_led_to() -> None:
    hooks = without_notices(policy()).hooks
    assert [(hook.kind, hook.target, hook.syscall) for hook in hooks] == [
        ("kprobe", f"sys_{call}", True) for call in ("dup", "dup2", "dup3")
    ]
    actions = [[(action.kind, action.error) for action in hook.selectors[0].actions] for hook in hooks]
    assert actions == [[("Override", -1), ("Sigkill", 0)], [("Override", -1), ("Sigkill", 0)], [("Post", 0)]]
    assert {filter.subject.kind for hook in hooks for filter in hook.selectors[0].filters} == {"binary"}


def test_the_engine_denies_there_and_nowhere_else() -> None:
    engine = CompiledPolicies([policy()], CompilerOptions(enforce=True))
    assert [(hook.name, hook.denies) for hook in engine.hooks] == [
        ("sys_dup", True),
        ("__ia32_sys_dup", True),
        ("sys_dup2", True),
        ("__ia32_sys_dup2", True),
        ("sys_dup3", False),
        ("__ia32_sys_dup3", False),
    ]


def test_calls_of_32_bit_programs_are_denied_at_their_own_functions() -> None:
    killer = policy(sys_dup2="__ia32_sys_dup")
    engine = CompiledPolicies([killer], CompilerOptions(enforce=True, allow_weaker=True))
    assert [hook.name for hook in engine.hooks] == ["sys_dup", "__ia32_sys_dup", "sys_dup3", "__ia32_sys_dup3"]
    specs = [hook_spec(hook).ways for hook in engine.hooks]
    assert [[(way.program, way.target, way.machine) for way in ways] for ways in specs][1] == [
        ("on_fmod_ret", "__ia32_compat_sys_dup", "x86_64"),
        ("on_kprobe_override", "__ia32_compat_sys_dup", "x86_64"),
        ("on_fmod_ret", "__ia32_sys_dup", "x86_64"),
        ("on_kprobe_override", "__ia32_sys_dup", "x86_64"),
        ("on_sys_enter", "sys_enter", "x86_64"),
    ]


def test_what_cleans_up_has_nothing_to_do() -> None:
    assert not without_notices(policy("CleanupEnforcerNotification", "sys_exit")).hooks


def test_a_policy_without_notices_is_left_as_it_is() -> None:
    found = policy("Post")
    assert without_notices(found) is found


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"raw_syscalls": "sched", "sys_enter": "sched_process_exec"},
            "is for functions and for raw_syscalls/",
        ),
        ({"InMap": "NotInMap"}, "and first argument only"),
        ({'"list:asked"': "33"}, "numbers of system calls differ"),
        ({'["list:dups"]': "[security_file_open]"}, "the enforcer of security_file_open cannot be notified"),
    ],
)
def test_what_would_not_be_the_same_is_refused(changes: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        without_notices(policy(**changes))


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ("{action: TrackSock, argSock: 1}", "argSock 1 is not an argument that is a sock"),
        ("{action: GetUrl, argUrl: 'http://canary'}, {action: NoPost}", "GetUrl cannot be used with NoPost"),
    ],
)
def test_what_the_engine_does_not_do_is_refused_with_the_reason(actions: str, why: str) -> None:
    hook = "call: tcp_connect, syscall: false, args: [{index: 0, type: sock}]"
    text = f"kprobes: [{{{hook}, selectors: [{{matchActions: [{actions}]}}]}}]"
    head = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: canary}\nspec:\n  "
    with pytest.raises(UsageError, match=why):
        CompiledPolicies(parse_policies([("canary.yaml", head + text)], "default"), CompilerOptions())
