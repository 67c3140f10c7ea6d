"""What a node that cannot hold a call up is to try, with the ways that tell it whether that helps."""

import pytest

from kubectl_gadget.policies.compiler.policies import CompiledPolicies
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.read.policy_files import parse_policies

POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: p}
spec:
  %s
    selectors: [{matchActions: [{action: %s}]}]
"""
CALL = "kprobes:\n  - call: sys_unlink"
LSM = "lsmhooks:\n  - hook: path_unlink"
UPROBE = "uprobes:\n  - path: /bin/sh\n    symbols: [main]"
DENY = "Override, argError: -1"


def remedies_of(hook: str, action: str, allow_weaker: bool = False) -> list[tuple[str, list[str]]]:
    """Text and kinds of ways."""
    policies = parse_policies([("p", POLICY % (hook, action))], "default")
    spec, *_ = CompiledPolicies(policies, CompilerOptions(enforce=True, allow_weaker=allow_weaker)).spec().hooks
    return [(one.text, [way.kind for way in one.ways]) for one in spec.remedies]


@pytest.mark.parametrize(
    ("action", "what"), [(DENY, "only watch"), ("Sigkill", "only send signals, which may come too late")]
)
def test_weaker_ways_and_security_hooks_help_at_a_call(action: str, what: str) -> None:
    assert remedies_of(CALL, action) == [
        (f"--allow-weaker, which lets such nodes {what}", ["fentry", "kprobe", "tp_btf", "tracepoint"]),
        ("a policy with lsmhooks, where such nodes can deny", ["lsm", "fmod_ret"]),
    ]


def test_at_a_security_hook_no_other_hook_is_suggested() -> None:
    assert remedies_of(LSM, DENY) == [("--allow-weaker, which lets such nodes only watch", ["fentry", "kprobe"])]


def test_checks_that_cannot_be_tried_are_always_reported() -> None:
    assert remedies_of(UPROBE, DENY) == [("--allow-weaker, which lets such nodes only watch", [])]


def test_a_list_that_a_node_makes_can_be_written_out() -> None:
    of_node = "lists:\n  - {name: k, type: generated_ftrace, pattern: ^vfs_}"
    hook = f"{of_node}\n  kprobes:\n  - call: list:k\n    syscall: false"
    ((text, kinds),) = remedies_of(hook, "Post")
    assert text.startswith("a list with `values`")
    assert kinds == ["fentry", "kprobe"]


def test_there_are_no_remedies_where_nothing_is_denied_or_all_is_allowed() -> None:
    assert remedies_of(CALL, "Post") == []
    assert remedies_of(CALL, DENY, allow_weaker=True) == []
