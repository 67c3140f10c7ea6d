"""Whether a node supports a policy's hooks, and by which way.

The agent is asked with LOOK_UP of docs/protocol.md, tries the ways to each hook, and answers with HOOKS. The trap: None
means "could not tell", never "no".
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.attach.hook_ways import ways
from kubectl_gadget.policies.compiler.attach.mirrors import with_mirrors
from kubectl_gadget.policies.compiler.compiled_policies import target_name
from kubectl_gadget.policies.language.linux_names import lsm_function
from kubectl_gadget.policies.model import Hook, Policy
from kubectl_gadget.policies.report.gaps import NEW_HOOK, gaps
from kubectl_gadget.policies.report.unknown_names import nearest_lsm_hook
from kubectl_gadget.similar_names import did_you_mean
from kubectl_gadget.wire.agent_messages import Hello, Hooks, TriedWays
from kubectl_gadget.wire.client_messages import LookUp
from kubectl_gadget.wire.policy_messages import Way

_MANY, _MANY_SINCE = "kprobe.multi", (5, 18)
_OTHER_NAME = "; it may be inlined, or have another name"


@dataclass(frozen=True)
class Judgement:
    """Whether one node supports one hook."""

    works: bool | None
    way: str = ""
    """lsm, fentry, kprobe, tracepoint, uprobe …; missing; refused: the kernel does not load or attach the programs"""
    why: str = ""
    """the reason, when the node does not support it or it could not be determined"""


def question(policies: Iterable[Policy]) -> LookUp:
    """The LOOK_UP for these policies."""
    policies = list(policies)
    functions: set[str] = set()
    if any(NEW_HOOK in gap.text for policy in policies for gap in gaps(policy)):
        functions.add(lsm_function(NEW_HOOK))
    tracepoints: set[str] = set()
    patterns: set[str] = set()
    for hook in (hook for policy in policies for hook in policy.hooks):
        if hook.generated:
            patterns.add(hook.generated.pattern)
        elif hook.kind in ("kprobe", "fentry", "loader"):
            functions.add(_function(hook))
        elif hook.kind in ("tracepoint", "raw_tracepoint"):
            tracepoints.add(hook.target)
    return LookUp(
        functions=tuple(sorted(functions)),
        tracepoints=tuple(sorted(tracepoints)),
        patterns=tuple(sorted(patterns)),
        ways={_key(hook): found for policy in policies for hook in with_mirrors(policy) if (found := _ways(hook))},
    )


def have_new(answers: Iterable[Hooks]) -> bool | None:
    """Whether the nodes with these answers have the hook that gaps() needs to know; None: they differ, or it is
    unknown."""
    function = lsm_function(NEW_HOOK)
    found = {one.exists if (one := answer.functions.get(function)) else None for answer in answers}
    return found.pop() if len(found) == 1 else None


def _key(hook: Hook) -> str:
    """The key for the ways to a hook, in the question and in the answer."""
    target = f"list:{hook.generated.name}" if hook.generated else hook.target
    abi = f"{hook.abi}/" if hook.abi else ""
    abi = f"mirror {abi}" if hook.mirrors else abi
    return f"{hook.kind} {abi}{target}{' returns' if hook.returns else ''}{' denies' if _denies(hook) else ''}"


def _ways(hook: Hook) -> tuple[Way, ...]:
    """The ways to try; empty for hooks that are looked up in another manner, or that the engine does not support."""
    if hook.probe or (hook.generated and not hook.syscall):
        return ()
    try:
        found = ways(hook, hook.returns, _denies(hook))
    except UsageError:
        return ()
    able = [way for way in found if way.denies] if _denies(hook) else found
    return tuple(way.message() for way in able)


def _tried(tried: TriedWays, hook: Hook, answer: Hooks) -> Judgement:
    """The result of loading and attaching."""
    if tried.way:
        return Judgement(True, tried.way.partition("/")[0].replace("_tracepoint", " tracepoint"))
    by_why: dict[str, list[str]] = {}
    for way, why in tried.refused.items():
        by_why.setdefault(why.partition("\n")[0], []).append(way.partition("/")[0])
    found = answer.functions.get(_function(hook))
    if hook.kind in ("kprobe", "fentry", "loader") and found is not None and not found.exists:
        if hook.ignore_missing:
            return Judgement(True, "left out", "the kernel does not have it, which ignore.callNotFound allows")
        whys = [f"the kernel has no function {hook.target}{_nearest(hook, answer) or _OTHER_NAME}"]
        whys += [f"{', '.join(names)}: {why}" for why, names in by_why.items() if "no function" not in why]
        return Judgement(False, "missing", "; ".join(whys))
    whys = [f"{', '.join(names)}: {why}" for why, names in by_why.items()]
    return Judgement(False, "refused", "; ".join(whys) + _nearest(hook, answer))


def _nearest(hook: Hook, answer: Hooks) -> str:
    """`; did you mean …?` for a name that the node does not have; else empty."""
    if hook.kind == "lsm":
        return nearest_lsm_hook(hook.target)
    return did_you_mean(hook.target, answer.near.get(hook.target, ()))


def judge(hook: Hook, hello: Hello, answer: Hooks) -> Judgement:
    """Whether the node that sent `hello` and `answer` supports the hook."""
    if hook.kind in ("uprobe", "usdt"):
        able = hello.can.get("uprobe")
        whys = {True: "", False: "the kernel denies uprobes to the agent", None: "cannot be determined there"}
        return Judgement(able, "uprobe", whys[able])
    tried = answer.ways.get(_key(hook))
    if tried is not None:
        return _tried(tried, hook, answer)
    if hook.generated:
        return _generated(hook, hello, answer)
    return Judgement(None, "", "not tried, since this version does not support the hook")


def unseen_variants(policy: Policy, answer: Hooks) -> Iterator[tuple[str, str]]:
    """The kernel's functions for calls of 32-bit programs that the node cannot attach a second hook to, and why. Such a
    hook would be left out, and the policy would not hold for those calls."""
    mirrors = [hook for hook in with_mirrors(policy) if hook.mirrors]
    tried = [(hook, answer.ways[_key(hook)]) for hook in mirrors if _key(hook) in answer.ways]
    # At the raw tracepoint, the first hook sees all variants of the call.
    covered = {(hook.mirrors, hook.returns) for hook, one in tried if one.way and one.way.startswith("tp_btf/")}
    for hook, one in tried:
        if not (one.way or one.needless or (hook.mirrors, hook.returns) in covered):
            whys = [way + ": " + why.partition("\n")[0] for way, why in one.refused.items()]
            yield target_name(hook), "; ".join(whys)


def _function(hook: Hook) -> str:
    return f"{hook.abi}/{hook.target}" if hook.abi else hook.target


def _generated(hook: Hook, hello: Hello, answer: Hooks) -> Judgement:
    """Functions that match; whether the kernel can attach a program to all of them is known only after an attempt."""
    assert hook.generated is not None
    found = answer.generated.get(hook.generated.pattern)
    release = re.match(r"(\d+)\.(\d+)", hello.kernel)
    if found is None:
        return Judgement(
            False, "", answer.traceable_problem or "the functions that can be hooked cannot be listed there"
        )
    if not found.count:
        return Judgement(False, "", f"no function matches {hook.generated.pattern!r}")
    way = f"{_MANY} ×{found.count}"
    if release and tuple(map(int, release.groups())) < _MANY_SINCE:
        return Judgement(
            False, way, "attaching to many functions at once needs Linux 5.18; a list with `values` does not"
        )
    return Judgement(None, way, "only a run shows whether it can attach to many functions at once (CONFIG_FPROBE)")


def _denies(hook: Hook) -> bool:
    return any(action.kind == "Override" for selector in hook.selectors for action in selector.actions)
