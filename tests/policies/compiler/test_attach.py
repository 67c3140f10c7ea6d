"""The second hook beside one at a system call, for calls of 32-bit programs."""

import pytest

from kubectl_gadget.policies.compiler.hooks import hook_spec
from kubectl_gadget.policies.compiler.policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.read.policy_files import parse_policies

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: calls}
spec:
  kprobes:
"""


def engine(*hooks: str, **options: bool) -> CompiledPolicies:
    text = POLICY + "".join(f"  - {{{hook}}}\n" for hook in hooks)
    return CompiledPolicies(parse_policies([("policy.yaml", text)], "default"), CompilerOptions(**options))


def beside(*hooks: str) -> list[str]:
    return [hook.name for hook in engine(*hooks).hooks if hook.mirrors]


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ("sys_openat", ["__ia32_sys_openat"]),
        ("sys_setuid", ["__ia32_sys_setuid", "__ia32_sys_setuid16"]),
        ("sys_clone", ["__ia32_sys_ia32_clone", "__ia32_sys_x86_clone"]),
    ],
)
def test_each_function_for_such_calls_has_a_hook(call: str, names: list[str]) -> None:
    assert beside(f"call: {call}") == names


def test_calls_that_are_not_64_bit_or_already_hooked_have_no_mirror() -> None:
    assert beside("call: vfs_read, syscall: false") == []
    assert beside("call: i386/sys_openat") == []
    assert beside("call: sys_openat", "call: i386/sys_openat", "call: sys_close") == ["__ia32_sys_close"]


def test_mirrors_cost_64_bit_calls_nothing_where_functions_can_be_hooked() -> None:
    _, mirror = engine("call: sys_openat").hooks
    ways = hook_spec(mirror).ways
    assert [(way.kind, way.target) for way in ways] == [
        *[(kind, "__ia32_compat_sys_openat") for kind in ("fentry", "kprobe")],
        *[(kind, "__ia32_sys_openat") for kind in ("fentry", "kprobe")],
        ("tp_btf", "sys_enter"),
    ]
    assert {way.machine for way in ways} == {"x86_64"}
    assert all(way.called == ("__ia32_compat_sys_openat", "__ia32_sys_openat") for way in ways)
    assert hook_spec(mirror).optional


def test_what_denies_is_tried_first_and_a_return_is_examined_where_it_is() -> None:
    denying = "call: sys_openat, selectors: [{matchActions: [{action: Override, argError: -1}]}]"
    _, mirror = engine(denying, enforce=True).hooks
    assert [way.program for way in hook_spec(mirror).ways] == ["on_fmod_ret", "on_kprobe_override"] * 2
    returning = "call: sys_openat, return: true, returnArg: {index: 0, type: int}"
    _, mirror = engine(returning).hooks
    assert [way.program for way in hook_spec(mirror).ways] == ["on_fexit", "on_fexit", "on_call_exit"]
