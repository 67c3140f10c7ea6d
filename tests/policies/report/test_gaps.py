"""What a policy that denies leaves open, and what it says about that."""

import pytest
import yaml

from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.policies.report.check import gaps

HEAD = {"apiVersion": "cilium.io/v1alpha1", "kind": "TracingPolicy", "metadata": {"name": "p"}}
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
