"""A compiled hook as an entry of RUN's `hooks` (docs/protocol.md, "Policies"): tables, variables, ways.

The trap: `tables` holds bytes that are written to the kernel's maps unchanged, keys and values alternating.
"""

import os
import struct
from collections.abc import Sequence

from kubectl_gadget.policies.compiler import file_following, socket_tracking
from kubectl_gadget.policies.compiler.attach.hook_ways import HookWay, ways
from kubectl_gadget.policies.compiler.compiled_hook import MASKS, CompiledHook
from kubectl_gadget.policies.compiler.encoding.register_tables import new_functions, register_tables
from kubectl_gadget.policies.compiler.encoding.slots import SlotFlag
from kubectl_gadget.policies.compiler.hook_slots import placed
from kubectl_gadget.policies.compiler.selectors_at_hook import SelectorAtHook, hashed_argument
from kubectl_gadget.policies.language.linux_names import lsm_hook
from kubectl_gadget.policies.model import Hook
from kubectl_gadget.wire.message import Value
from kubectl_gadget.wire.policy_messages import PolicyHookSpec, Remedy, SameFile, Way

_ANY_LSM_HOOK, _ANY_FUNCTION = Hook("lsm", "file_open"), Hook("kprobe", "vfs_read")
_LIMITED_ENTRIES = 32768
_ACTION = struct.Struct("<iIQIIIIQ")
_SCOPES = {"global": 0, "process": 1, "thread": 2}


def hook_spec(hook: CompiledHook) -> PolicyHookSpec:
    """One entry of RUN's `hooks`."""
    encoded, masks = hook.encoded, hook.masks
    tables = dict(encoded.tables)
    tables["policy_masks"] = b"".join(
        struct.pack("<I", key) + encoded.set(masks[name]) for key, name in enumerate(MASKS)
    )
    tables |= register_tables(hook.overriding)
    tables["policy_actions"] = b"".join(
        struct.pack("<I", bit) + _action(hook, one) for bit, one in enumerate(hook.bits)
    )
    generated, mirrors = hook.hook.generated, hook.hook.mirrors
    if mirrors:
        # The same for all mirrors of one hook, and for no others: a call may have several hooks.
        mirrors += f"{' return' if hook.at_return else ''}{' sockets' if hook.tracks else ''}"
    return PolicyHookSpec(
        name=hook.name,
        words=encoded.words,
        variables=_variables(hook),
        ways=tuple(_way(hook, way) for way in hook.ways),
        selectors=tuple(-1 if one is None else one.scope for one in hook.bits),
        workloads={bit: one.workloads for bit, one in hook.selectors if one.workloads},
        unsure=_unsure(hook),
        tables=tables,
        limited=_LIMITED_ENTRIES if masks["limit"] else 1,
        optional=hook.ignores_missing,
        remedies=_remedies(hook),
        resolve=hook.resolved,
        files=tuple(
            SameFile(test=test, path=os.fsdecode(path), selectors=selectors) for test, path, selectors in encoded.files
        ),
        whole=any(slot.flags & SlotFlag.WHOLE for slot in hook.slots),
        mappings=hook.hook.kind == "loader",
        functions=generated.pattern if generated else None,
        mirrors=mirrors,
    )


def _variables(hook: CompiledHook) -> dict[str, Value]:
    masks = hook.masks
    return {
        "policy_hook": hook.number,
        "policy_words": hook.encoded.words,
        "policy_slot_count": len(hook.slots),
        "policy_tests": hook.encoded.tests,
        "policy_signals": bool(masks["signal"]),
        "policy_limits": bool(masks["limit"]),
        "policy_follows_files": hook.options.follows,
        "policy_stacks": hook.takes_stacks,
        "policy_sets": bool(masks["set"]),
        "policy_tracks_sockets": hook.tracks,
        **_hash(hook),
    }


def _remedies(hook: CompiledHook) -> tuple[Remedy, ...]:
    """Suggestions for nodes that support none of the ways. Only a node knows which helps there: it tries the ways of
    each. The trap: a hook that does not exist can neither deny nor send signals."""
    if hook.hook.generated and not hook.hook.syscall:
        what = "a list with `values`, the functions' names, which have a program each"
        return (_remedy(what, ways(_ANY_FUNCTION, False, False)),)
    if not hook.denies or hook.options.allow_weaker:
        return ()
    found = []
    if weaker := [way for way in ways(hook.hook, hook.at_return, True) if not way.denies]:
        what = "send signals, which may come too late" if hook.masks["signal"] else "watch"
        found.append(_remedy(f"--allow-weaker, which lets such nodes only {what}", weaker))
    if not hook.hook.probe and hook.hook.kind != "lsm" and lsm_hook(hook.hook.target) is None:
        able = [way for way in ways(_ANY_LSM_HOOK, False, True) if way.denies]
        found.append(_remedy("a policy with lsmhooks, where such nodes can deny", able))
    return tuple(found)


def _remedy(text: str, tried: Sequence[HookWay]) -> Remedy:
    """One suggestion. Ways in programs are left out, since they cannot be tried without a file."""
    return Remedy(text=text, ways=tuple(way.message() for way in tried if not way.probe))


def _unsure(hook: CompiledHook) -> tuple[int, ...]:
    """Of the selectors for some workloads, those that apply to all until labels are known: those that deny or kill.
    Selectors that would let calls pass apply to none."""
    strict = {one.policy.name for _, one in hook.selectors if one.enforced and one.acts}
    return tuple(bit for bit, one in hook.selectors if one.workloads and (one.acts or one.policy.name not in strict))


def _action(hook: CompiledHook, one: SelectorAtHook | None) -> bytes:
    """`struct policy_action`."""
    if one is None:
        return bytes(_ACTION.size)
    rate = one.limit.rate_limit if one.limit else None
    interval, scope = (rate.milliseconds * 1_000_000, _SCOPES[rate.scope]) if rate else (0, 0)
    file = 0
    for action in one.selector.all_actions:
        if action.kind in ("FollowFD", "UnfollowFD"):
            file = hook.arguments[id(one.hook)][file_following.file_position(one.hook, action)] or 0
    argument, value = (one.written.argument, one.written.value) if one.written else (0, 0)
    signal = one.signal_sent()
    return _ACTION.pack(one.denial, signal, interval, scope, file, _socket(hook, one), argument, value)


def _socket(hook: CompiledHook, one: SelectorAtHook) -> int:
    """The slot of the socket that is tracked or no longer tracked; 0 also when there is none."""
    if hook.at_return and one.hook.return_argument_action in socket_tracking.KINDS:
        return hook.results[id(one.hook)] or 0
    for action in one.selector.all_actions:
        if action.kind in socket_tracking.KINDS:
            return hook.arguments[id(one.hook)][socket_tracking.socket_position(one.hook, action)] or 0
    return 0


def _way(hook: CompiledHook, way: HookWay) -> Way:
    slots = b"".join(
        placed(slot, way).encode(first, tests, unsent)
        for slot, (first, tests), unsent in zip(hook.slots, hook.spans, hook.unsent, strict=True)
    )
    overrides = way.denies and bool(hook.masks["override"])
    instead = new_functions(hook.overriding) if overrides else ()
    return way.message({"policy_slots": slots, "policy_overrides": overrides}, _method(hook, way), instead)


def _method(hook: CompiledHook, way: HookWay) -> str:
    """What this way enforces, for people."""
    if hook.options.reaction == "kill" and hook.reacting:
        return "kills from user space, after the fact,"
    if not hook.enforces:
        return "observes"
    if hook.masks["set"]:
        return "overwrites arguments"
    if not hook.denies:
        return "sends signals"
    return "denies" if way.denies else "only sends signals" if hook.masks["signal"] else "only observes"


def _hash(hook: CompiledHook) -> dict[str, Value]:
    """Which argument's file is hashed."""
    for _, one in hook.selectors:
        if any(action.file_hash for action in one.selector.all_actions):
            argument = hashed_argument(one.hook)
            assert argument is not None
            return {"policy_hash_index": argument.index, "policy_hash_program": argument.type == "linux_binprm"}
    return {}
