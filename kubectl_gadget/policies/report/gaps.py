"""What a policy that denies fails to cover, and what would: reported by `policy check`, and when a policy is enforced.

This is knowledge about Linux; tests/bpf/test_policy_proof.py and test_policy_evasions.py verify it. The trap: it looks
at one policy at a time, so whatever another policy covers is still called a gap.
"""

from collections.abc import Iterator, Mapping, Sequence

from kubectl_gadget.policies.language.linux_names import lsm_hook
from kubectl_gadget.policies.model import Hook, Note, Policy, Selector, Test

_ENFORCING = ("Override", "Sigkill", "NotifyEnforcer")
_EARLIER = "start its pods after the policy"
_MAPPINGS = (("mmap_file", "file_mprotect"), "access through memory that a file is mapped to")
NEW_HOOK = "file_truncate"
"""Since Linux 6.2; before, path_truncate is called for every truncation."""

_BESIDE: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "file_permission": (_MAPPINGS, (("path_truncate", NEW_HOOK), "truncation")),
    "file_open": ((("file_permission",), "what is done with a file that is open already"),),
    "path_truncate": (((NEW_HOOK,), "ftruncate() and O_TRUNC"),),
    NEW_HOOK: ((("path_truncate",), "truncate()"),),
    "path_unlink": ((("path_rename",), "renaming"),),
    "socket_connect": ((("socket_sendmsg",), "datagrams, and connections that sendto() begins with MSG_FASTOPEN"),),
    "bprm_check_security": ((("mmap_file",), "a program that the dynamic loader loads, not the kernel"),),
}
"""By the hook that denies: the hooks that are needed as well, and what is possible without them."""
_NEVER: Mapping[str, str] = {
    "file_permission": f"stores to an earlier mapping ({_EARLIER})",
    "mmap_file": f"stores to an earlier mapping ({_EARLIER})",
    "socket_connect": f"earlier connections ({_EARLIER})",
}
"""What no hook can deny, and what helps instead."""
_OTHER_NAMES = "the same file by another name, such as a hard link or a bind mount (compare by SameFile)"
_OTHER_NAMES_BELOW = (
    "the same files by other names, such as hard links or bind mounts (single files: compare by SameFile)"
)


def gaps(policy: Policy, has_new: bool | None = None) -> Iterator[Note]:
    """One note for each hook that denies something but not every way to do it. `has_new`: whether the kernels in
    question have NEW_HOOK; None: unknown, or not the same for all."""
    if policy.options.mode == "monitor":
        return
    denying = [(name, hook) for hook in policy.hooks if _denies(hook) and (name := _name(hook))]
    there = {name for name, _ in denying}
    for name, hook in denying:
        found = []
        for needed, what in _BESIDE.get(name, ()):
            missing = [one for one in needed if one not in there and (one != NEW_HOOK or has_new is not False)]
            if missing:
                found.append(f"{what} (add {_listed(missing, has_new)})")
        if name in _NEVER:
            found.append(_NEVER[name])
        if any(_goes_by_name(selector, "equal") for selector in hook.selectors):
            found.append(_OTHER_NAMES)
        elif any(_goes_by_name(selector, "prefix", "glob") for selector in hook.selectors):
            found.append(_OTHER_NAMES_BELOW)
        if found:
            yield Note(hook.place, f"{name} does not stop {', '.join(found)}")


def _listed(hooks: Sequence[str], has_new: bool | None) -> str:
    return " and ".join(f"from Linux 6.2 on {one}" if one == NEW_HOOK and not has_new else one for one in hooks)


def _goes_by_name(selector: Selector, *how: Test) -> bool:
    """Whether it denies files by their paths, with one of these tests, and not by their identity as well."""
    filters = [
        one
        for one in selector.filters
        if one.subject.kind == "argument" and any(isinstance(value, str) and value[:1] == "/" for value in one.values)
    ]
    # NotPrefix denies everything elsewhere, under whatever name.
    tests = {one.test for one in filters if not (one.negated and one.test != "equal")}
    return _enforces(selector) and not tests.isdisjoint(how) and "same_file" not in tests


def _name(hook: Hook) -> str | None:
    return hook.target if hook.kind == "lsm" else lsm_hook(hook.target)


def _denies(hook: Hook) -> bool:
    return any(map(_enforces, hook.selectors))


def _enforces(selector: Selector) -> bool:
    return any(action.kind in _ENFORCING for action in selector.actions)
